"""The iteration loop (paper, algorithm 1).

    for n = 1, 2, 3:
        sample y_j from the model of iteration n - 1 under each constitution c_j, for the queries of this iteration
        drop what cannot be learnt from
        train the *base* model on I(Y; C | X) over these pairs
        measure the new model on held-out queries

Every stage leaves a file or folder that appears whole or not at all, and is passed over where it is there already. So a
run that was stopped at any point goes on when it is started again, and ends in the same bits on CPU.
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from sami_jax.checkpoint import Checkpoints
from sami_jax.config import iterations, validate
from sami_jax.data.batches import TrainingBatches
from sami_jax.data.jsonl import write_json, write_jsonl
from sami_jax.data.pairs import encode_pairs, filter_pairs, read_pairs
from sami_jax.data.queries import Query, read_queries, split
from sami_jax.data.templates import encode_prompt
from sami_jax.errors import UserError
from sami_jax.evaluation.judges import Judge, make_judge
from sami_jax.evaluation.measure import EvaluationSet, evaluation_sets, measure, trained_principles
from sami_jax.metrics import MetricsLog
from sami_jax.models.huggingface import copy_companions, export
from sami_jax.models.kernels import LANES
from sami_jax.models.pretrained import ModelFolder, open_model
from sami_jax.models.untrained import RANDOM_BYTES, write_random_bytes_model
from sami_jax.principles import constitutions as composing
from sami_jax.principles.constitutions import Constitution
from sami_jax.principles.files import Principle, read_principles
from sami_jax.provenance import open_manifest
from sami_jax.rollout import Prompt, seeds, write_responses
from sami_jax.sampling import SamplingOptions
from sami_jax.sharding import batch_shards, make_mesh
from sami_jax.summary import print_summary
from sami_jax.terminal import say, track
from sami_jax.training import check_shared_prefix, init_state, make_update


@dataclasses.dataclass(frozen=True)
class Inputs:
    """All that a run reads, checked."""

    base: ModelFolder
    mesh: jax.sharding.Mesh
    principles: Sequence[Principle]
    queries: Sequence[Query]
    evaluation_sets: Sequence[EvaluationSet]
    judge: Judge | None


def run(config: ConfigDict, workdir: Path) -> None:
    """Runs or continues the whole loop in `workdir`, then prints the results.

    Raises:
      UserError: bad config or input, before anything costly.
    """
    inputs = prepare(config, workdir)
    open_manifest(workdir, config)
    evaluate(config, inputs, inputs.base, workdir / "iteration_0", None)
    sampler = inputs.base
    for n in iterations(config):
        folder = workdir / f"iteration_{n}"
        say(f"Iteration {n} of {len(config.train.updates)}")
        sample(config, inputs, sampler, n, folder)
        train(config, inputs, folder / "pairs.jsonl", folder, n, workdir / "tensorboard")
        sampler = open_model(folder / "model", config.model.attention)
        evaluate(config, inputs, sampler, folder, workdir / "iteration_0")
    print_summary(config, workdir)


def prepare(config: ConfigDict, workdir: Path) -> Inputs:
    """Reads and checks everything a run needs, before anything costly."""
    validate(config)
    mesh = make_mesh(config.mesh.to_dict())
    if (config.train.batch_size // config.train.microbatches) % batch_shards(mesh):
        raise UserError(
            f"config.train.microbatches={config.train.microbatches}: a microbatch of {config.train.batch_size // config.train.microbatches} "
            f"queries cannot be split over {batch_shards(mesh)} devices; choose fewer microbatches or a larger batch_size"
        )
    principles = read_principles(Path(config.principles.path))
    _check_principles(config, principles)
    queries = read_queries(Path(config.data.queries))
    if config.data.eval_queries:
        eval_queries = read_queries(Path(config.data.eval_queries))
    else:
        held_out = max(1, round(len(queries) * config.data.eval_fraction))
        queries, eval_queries = queries[:-held_out], queries[-held_out:]
    if len(queries) < config.data.splits:
        raise UserError(
            f"{config.data.queries}: {len(queries)} queries to train on cannot make {config.data.splits} splits; add queries"
        )
    base = open_model(_base_folder(config, workdir), config.model.attention)
    _check_attention(config, base)
    longest = config.prompt.max_tokens + config.sampling.max_new_tokens
    if longest > base.config.max_positions:
        raise UserError(
            f"config.prompt.max_tokens + config.sampling.max_new_tokens = {longest}: the model {base.folder} takes "
            f"{base.config.max_positions} tokens at most; lower one of them"
        )
    sets = evaluation_sets(config, principles, eval_queries)
    return Inputs(base, mesh, principles, queries, sets, make_judge(config.evaluation.judge))


def sample(config: ConfigDict, inputs: Inputs, sampler: ModelFolder, iteration: int, folder: Path) -> None:
    """Samples a response to each query under each constitution, then filters: responses.jsonl, pairs.jsonl, dropped.json."""
    if (folder / "pairs.jsonl").exists():
        return
    queries = _iteration_queries(config, inputs, iteration)
    root = f"{config.seed}/iteration/{iteration}"
    composed = _compose(config, inputs, root, len(queries))
    prompts, cut = _prompts(config, sampler, queries, composed, root)
    _say_cut(config, cut, f"{len(prompts)} prompts")
    params = sampler.load(inputs.mesh, config.train.compute_dtype)
    s = config.sampling
    options = SamplingOptions(s.temperature, s.top_p, s.top_k, s.max_new_tokens, tuple(s.stop))
    file = folder / "responses.jsonl"
    rows = write_responses(file, sampler, params, prompts, options, inputs.mesh, s.batch_size, "sampling")
    positives = [[all(statement.positive for statement in c) for c in constitutions] for constitutions in composed]
    kept, dropped = filter_pairs(_pair_rows(config, queries, composed, rows, root), positives, config.filter)
    counts = {"queries": len(queries), "kept": len(kept), "dropped": dropped, "prompts_with_query_cut": cut}
    write_json(folder / "dropped.json", counts)
    reasons = "".join(f"; {count} dropped: {reason}" for reason, count in dropped.items())
    say(f"  kept {len(kept)} of {len(queries)} queries{reasons}")
    if not kept:
        raise UserError(f"{file}: every query was dropped ({dropped}); loosen config.filter or sample otherwise")
    write_jsonl(folder / "pairs.jsonl", kept)


def train(
    config: ConfigDict, inputs: Inputs, pairs: Path, folder: Path, iteration: int, tensorboard: Path | None
) -> None:
    """Trains the base model on a pairs file: checkpoints/, metrics.jsonl, model/."""
    if (folder / "model").exists():
        return
    base, mesh = inputs.base, inputs.mesh
    updates = config.train.updates[iteration - 1]
    end_token = base.end_tokens[0] if config.objective.score_eos else None
    rows = read_pairs(pairs, config.constitutions.count)
    examples, cut = encode_pairs(rows, base.tokenizer, config.prompt, end_token)
    longest = max(example.longest_text for example in examples)
    if longest > base.config.max_positions:
        raise UserError(
            f"{pairs}: prompt and response of {longest} tokens exceed the model's context of {base.config.max_positions}; shorten the responses"
        )
    _say_cut(config, cut, "training prompts")
    batches = TrainingBatches(
        examples,
        updates=updates,
        batch_size=config.train.batch_size,
        microbatches=config.train.microbatches,
        seed=config.seed + iteration,
        shapes=config.train.shapes,
        bucket=config.train.bucket,
    )
    _say_shapes(batches)
    reference = base.load(mesh, config.train.compute_dtype) if config.objective.kl_weight else None
    with jax.set_mesh(mesh), Checkpoints(folder / "checkpoints", base.folder) as checkpoints:
        state = checkpoints.restore_latest(base.config, config, mesh)
        if state is None:
            state = init_state(base.load(mesh, config.train.param_dtype), base.config, config, mesh)
        done = int(state.step)
        if done == 0:
            check_shared_prefix(state.params, base.config, config, examples, mesh)
        update = make_update(base.config, config, mesh)
        with MetricsLog(folder / "metrics.jsonl", tensorboard, f"iteration_{iteration}", resume_step=done) as log:
            numbers = track(range(done + 1, updates + 1), "updates", updates, done, lambda n: batches.tokens(n - 1))
            for number in numbers:
                state, metrics = update(state, batches[number - 1], reference)
                metrics = {name: float(value) for name, value in metrics.items()}
                log.write(number, metrics | {"padded_share": batches.padded_share(number - 1)})
                if number % config.train.checkpoint_every == 0 or number == updates:
                    checkpoints.save(state)
        dtype = jnp.dtype(config.model.export_dtype)
        export(state.params, base.config, folder / "model", copy_companions(base.folder), dtype)


def evaluate(config: ConfigDict, inputs: Inputs, model: ModelFolder, folder: Path, baseline: Path | None) -> dict:
    """Measures a model on every evaluation set: evaluation/*.jsonl and evaluation.json. Returns what the latter holds."""
    file = folder / "evaluation.json"
    if not file.exists():
        params = model.load(inputs.mesh, config.train.compute_dtype)
        baseline_responses = None if baseline is None else baseline / "evaluation"
        results = {
            chosen.name: measure(
                config, model, params, chosen, inputs.judge, inputs.mesh, folder / "evaluation", baseline_responses
            )
            for chosen in inputs.evaluation_sets
        }
        write_json(file, results)
    return json.loads(file.read_text(encoding="utf-8"))


def _base_folder(config: ConfigDict, workdir: Path) -> Path:
    if config.model.path != RANDOM_BYTES:
        return Path(config.model.path)
    folder = workdir / RANDOM_BYTES
    if not folder.exists():
        # A sampled byte that is no text comes back as a replacement character, which is three bytes.
        write_random_bytes_model(folder, config.prompt.max_tokens + 3 * config.sampling.max_new_tokens, config.seed)
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
    left = len(known) - len(config.principles.held_out)
    if left < config.constitutions.principles:
        raise UserError(
            f"config.constitutions.principles={config.constitutions.principles}: only {left} principle(s) to train on; state fewer or add some"
        )


def _iteration_queries(config: ConfigDict, inputs: Inputs, iteration: int) -> list[Query]:
    """As many queries as the iteration's updates take, from its split, in a seeded order.

    A split that is smaller is gone through again: each time a query comes back, it meets other constitutions.
    """
    queries = split(list(inputs.queries), config.data.splits, iteration)
    wanted = config.train.updates[iteration - 1] * config.train.batch_size
    chosen = []
    for turn in range(-(-wanted // len(queries))):
        order = np.random.default_rng([config.seed, iteration, turn]).permutation(len(queries))
        again = f"#{turn + 1}" if turn else ""
        chosen += [dataclasses.replace(queries[i], id=queries[i].id + again) for i in order]
    return chosen[:wanted]


def _compose(config: ConfigDict, inputs: Inputs, root: str, count: int) -> list[tuple[Constitution, ...]]:
    chosen = trained_principles(config, inputs.principles)
    rule = config.constitutions
    return [composing.compose(chosen, rule.rule, rule.principles, rule.count, root, i) for i in range(count)]


def _prompts(config: ConfigDict, sampler: ModelFolder, queries, composed, root: str) -> tuple[list[Prompt], int]:
    """The generation prompt of each query under each of its constitutions, and in how many the query was cut to fit."""
    drawn = iter(seeds(root, len(queries) * config.constitutions.count))
    prompts, cut = [], 0
    for query, constitutions in zip(queries, composed, strict=True):
        for text in map(composing.text, constitutions):
            template = config.prompt.generation
            ids, missing = encode_prompt(sampler.tokenizer, template, text, query.text, config.prompt.max_tokens)
            prompts.append(Prompt({"id": query.id, "constitution": text}, ids, next(drawn)))
            cut += missing > 0
    return prompts, cut


def _say_cut(config: ConfigDict, cut: int, of: str) -> None:
    if cut:
        say(f"  the query was cut to fit config.prompt.max_tokens={config.prompt.max_tokens} in {cut} of {of}")


def _say_shapes(batches: TrainingBatches) -> None:
    shares = [batches.padded_share(index) for index in range(len(batches))]
    rows = ", ".join(str(shape.row) for shape in batches.shapes)
    say(f"  microbatches in rows of {rows} tokens, {sum(shares) / len(shares):.1%} of them padding")


def _pair_rows(
    config: ConfigDict,
    queries: Sequence[Query],
    composed: Sequence[tuple[Constitution, ...]],
    rows: Sequence[dict],
    root: str,
) -> list[dict]:
    """One row a query, with its C constitutions as training prompts state them and the C sampled responses."""
    count = config.constitutions.count
    pairs = []
    for i, (query, constitutions) in enumerate(zip(queries, composed, strict=True)):
        own = rows[i * count : (i + 1) * count]
        stated = composing.reordered(constitutions, root, i) if config.prompt.shuffle else constitutions
        pairs.append(
            {
                "id": query.id,
                "query": query.text,
                "constitutions": [composing.text(constitution) for constitution in stated],
                "responses": [row["response"] for row in own],
                "finish_reasons": [row["finish_reason"] for row in own],
            }
        )
    return pairs
