"""Everything a run needs, read and checked before anything costly."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
from ml_collections import ConfigDict

from sami_jax.config.checks import validate
from sami_jax.contrast.optim import decay
from sami_jax.contrast.update import HOST_MEMORY, abstract_state, check_microbatches
from sami_jax.data.queries import Query
from sami_jax.data.rows import Skipped
from sami_jax.data.splits import distinct, split_queries
from sami_jax.errors import UserError
from sami_jax.evaluation.canaries import canary_set
from sami_jax.evaluation.judge import Judge
from sami_jax.evaluation.judges import make_judge
from sami_jax.evaluation.measure import EvaluationSet, evaluation_sets, split_principles
from sami_jax.evaluation.signs import looks
from sami_jax.ground import hosts
from sami_jax.ground.digests import json_digest, remembered_digests
from sami_jax.ground.display import doing
from sami_jax.ground.paths import path_of
from sami_jax.ground.terminal import say
from sami_jax.kernels.attention import LANES
from sami_jax.miniature.untrained import UNTRAINED, write_random_bytes_model
from sami_jax.models.adapters import adapted
from sami_jax.models.config import ModelConfig
from sami_jax.models.files import model_files
from sami_jax.models.pretrained import ModelFolder, open_model
from sami_jax.planning import costs
from sami_jax.planning.costs import Texts
from sami_jax.planning.topology import GIB
from sami_jax.principles import constitutions as composing
from sami_jax.principles.files import read_principles
from sami_jax.principles.gate import Admission, admit
from sami_jax.principles.principle import Principle
from sami_jax.serving.engine import check_server
from sami_jax.sharding import make_mesh
from sami_jax.stages.bills import say_bills
from sami_jax.tracking.trackers import check_trackers

REMEMBERED = ".digests.json"  # in a run's folder: of the base's files, while they stay as they are


@dataclasses.dataclass(frozen=True)
class Inputs:
    """All that a run reads, checked."""

    base: ModelFolder
    mesh: jax.sharding.Mesh
    admission: Admission  # of the principles
    queries: Sequence[Query]
    data: Mapping[str, dict]  # what was read of queries, for the manifest, by config field
    evaluation_sets: Sequence[EvaluationSet]
    canaries: EvaluationSet | None
    judge: Judge | None
    skipped: Skipped | None  # rows that were passed over; None: bad ones are refused

    @property
    def principles(self) -> tuple[Principle, ...]:
        return self.admission.principles


def prepare(config: ConfigDict, workdir: Path, allow_unapproved: bool, skipped: Skipped | None = None) -> Inputs:
    """Reads and checks everything a run needs. Puts a number where `config.train.checkpoint_every` is 0.

    Args:
      skipped: takes bad rows of queries; None refuses them.
    Raises:
      UserError: bad config or input; principles that are not approved, unless `allow_unapproved`.
    """
    validate(config)
    check_trackers(config)
    mesh = make_mesh(config.mesh.to_dict())
    check_microbatches(config, mesh)
    folder = path_of(config.principles.path)
    admission = admit(folder, read_principles(folder), config.review.fraction, allow_unapproved)
    principles = admission.principles
    judge = make_judge(config, principles, workdir)
    _check_principles(config, principles)
    queries = split_queries(config.data, skipped)
    if (texts := distinct(queries.training)) < config.data.splits:
        raise UserError(
            f"{config.data.queries}: {texts} queries to train on cannot make {config.data.splits} splits; add queries"
        )
    hosts.check_shared(workdir)
    base = open_model(_base_folder(config, workdir), config.model.attention, config.prompt)
    hosts.expect(sum(file.stat().st_size for file in model_files(base.folder)))
    if base.adapter:
        raise UserError(
            f"config.model.path={config.model.path!r}: holds adapters, and training begins with a whole model; give the model that they "
            "are merged into, a run's iteration_N/model"
        )
    base = dataclasses.replace(base, held=config.lora.base)  # whatever of this run computes with it
    adapted(base.config, config.lora)
    _check_attention(config, base)
    check_server(config, base)
    _check_offload(config)
    longest = config.prompt.max_tokens + config.sampling.max_new_tokens
    if longest > base.config.max_positions:
        raise UserError(
            f"config.prompt.max_tokens + config.sampling.max_new_tokens = {longest}: the model {base.folder} takes "
            f"{base.config.max_positions} tokens at most; lower one of them"
        )
    say_bills(config, base.config, mesh)
    _choose_checkpoints(config, adapted(base.config, config.lora))
    if names := ", ".join(p.name for p in admission.unapproved):
        say(f"WARNING: not approved, used because of --allow_unapproved: {names}")
    sets = evaluation_sets(config, principles, queries.held_out)
    canaries = None if config.canaries.action == "off" else canary_set(config, principles, queries.training)
    if judge and judge.most:
        asked = most_questions(config, sets, canaries, judge.most)
        say(f"judge {config.evaluation.judge}: is asked at most {asked:,} questions in this run")
    return Inputs(
        base=base,
        mesh=mesh,
        admission=admission,
        queries=queries.training,
        data=queries.records,
        evaluation_sets=sets,
        canaries=canaries,
        judge=judge,
        skipped=skipped,
    )


def most_questions(config: ConfigDict, sets: Sequence[EvaluationSet], canaries: EvaluationSet | None, most: int) -> int:
    """How many statements a judge is asked about in a whole run, if each model answers everything differently.

    Args:
      most: responses of a set that it is asked about at a measurement.
    """

    def statements(one: EvaluationSet) -> int:
        responses = len(one.queries) * len(one.constitutions[0])
        return min(most, responses) * len(one.constitutions[0][0])

    models = 1 + len(config.train.updates)
    return sum(map(statements, sets)) * models + (statements(canaries) * (1 + looks(config)) if canaries else 0)


def provenance(config: ConfigDict, inputs: Inputs, workdir: Path) -> dict:
    """What a run is made from, for its manifest. What the base's files hold is remembered in `workdir`."""
    admitted = inputs.admission.record() | {"principles": principle_records(config, inputs)}
    plan = [
        {
            "name": chosen.name,
            "queries": [dataclasses.asdict(query) for query in chosen.queries],
            "constitutions": [[composing.text(c) for c in constitutions] for constitutions in chosen.constitutions],
        }
        for chosen in inputs.evaluation_sets
    ]
    with doing(f"hashing {inputs.base.folder}"):
        base, memory = inputs.base.folder, workdir / REMEMBERED
        base_files = hosts.once(lambda: remembered_digests(model_files(base), base, memory))
    return {
        "config": recorded(config),
        "seed": config.seed,
        **admitted,
        "inputs": inputs.data,
        "evaluation_plan": {"sha256": json_digest([config.evaluation.to_dict(), plan])},
        "base_model": {
            "path": str(inputs.base.folder),
            "files": base_files,
        },
        "status": "running",
    }


def recorded(config: ConfigDict) -> dict:
    """The config as manifests and trackers are told it: with the numbers that are computed with, whatever stands for them."""
    told = json.loads(config.to_json())
    told["optim"]["b2"] = decay(config.optim)
    return told


def principle_records(config: ConfigDict, inputs: Inputs) -> list[dict]:
    """The principles used, each with its role, as manifests, checkpoints and exported models keep them."""
    trained = [p.id for p in split_principles(config, inputs.principles)[0]]
    records = inputs.admission.record()["principles"]
    return [record | {"role": "trained" if record["id"] in trained else "held out"} for record in records]


def devices() -> dict[str, str | int]:
    """What this process computes on."""
    return {"kind": jax.devices()[0].device_kind, "count": jax.device_count(), "processes": jax.process_count()}


def _base_folder(config: ConfigDict, workdir: Path) -> Path:
    if config.model.path not in UNTRAINED:
        return path_of(config.model.path)
    folder = workdir / config.model.path
    if not hosts.once(folder.exists):
        # A sampled byte that is no text comes back as a replacement character, which is three bytes.
        longest = config.prompt.max_tokens + 3 * config.sampling.max_new_tokens
        hosts.once(lambda: write_random_bytes_model(folder, longest, config.seed, config.model.path))
    return folder


def _check_attention(config: ConfigDict, base: ModelFolder) -> None:
    chosen, backend = config.model.attention, jax.default_backend()
    wanted = {"cudnn": "gpu", "splash": "tpu"}.get(chosen, backend)
    if backend != wanted:
        raise UserError(f"config.model.attention={chosen!r}: needs a {wanted}, and this is a {backend}; use 'xla'")
    if chosen == "cudnn" and config.train.compute_dtype != "bfloat16":
        raise UserError(
            "config.model.attention='cudnn': computes in bfloat16; set config.train.compute_dtype='bfloat16'"
        )
    if chosen == "splash" and base.config.head_dim % LANES:
        raise UserError(
            f"config.model.attention='splash': needs heads of a multiple of {LANES}, not {base.config.head_dim}; use 'xla'"
        )


def _choose_checkpoints(config: ConfigDict, model: ModelConfig) -> None:
    if config.train.checkpoint_every:
        return
    state = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(abstract_state(model, config)))
    texts = Texts(config.prompt.max_tokens, config.sampling.max_new_tokens, config.constitutions.count)
    recomputed = config.train.remat == "full"
    update = costs.update_flops(dataclasses.replace(model, adapter=None), texts, config.train.batch_size, recomputed)
    every = costs.updates_between_checkpoints(update, state, max(config.train.updates))
    config.train.checkpoint_every = every
    if every > 1:
        say(
            f"  a checkpoint every {every} updates, and at the end of each iteration: one takes {state / GIB:.0f} GiB (config.train.checkpoint_every)"
        )


def _check_offload(config: ConfigDict) -> None:
    if config.optim.offload and HOST_MEMORY not in (memory.kind for memory in jax.devices()[0].addressable_memories()):
        raise UserError(
            f"config.optim.offload=True: a {jax.default_backend()} has no {HOST_MEMORY} memory here; set it to False"
        )


def _check_principles(config: ConfigDict, principles: Sequence[Principle]) -> None:
    known = [principle.id for principle in principles]
    for id in config.principles.held_out:
        if id not in known:
            raise UserError(
                f"config.principles.held_out: no principle {id!r} in {config.principles.path}; known: {', '.join(known)}"
            )
    for principle in principles:
        if len(principle.phrasings) <= config.principles.held_out_phrasings:
            raise UserError(
                f"config.principles.held_out_phrasings={config.principles.held_out_phrasings}: principle {principle.id!r} has only "
                f"{len(principle.phrasings)} wording(s), none would be left to train on; add phrasings or hold out fewer"
            )
    left = len(known) - len(config.principles.held_out) - config.principles.held_out_drawn
    if left < config.constitutions.principles:
        raise UserError(
            f"config.constitutions.principles={config.constitutions.principles}: only {left} principle(s) to train on; state fewer or add some"
        )
