"""One training stage (paper, algorithm 1): pairs in; checkpoints, metrics and a model in Hugging Face format out.

It goes on where it was stopped, to the same bits. An update whose loss or gradient is no number changes nothing and is counted;
past a bound the stage ends, with that batch kept for study.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from sami_jax.contrast.update import TrainState, check_shared_prefix, init_state, make_update, needs_base
from sami_jax.data.batches import ContrastExample, TrainingBatches
from sami_jax.data.jsonl import write_jsonl
from sami_jax.data.pairs import encode_pairs, read_pairs
from sami_jax.data.templates import say_cut
from sami_jax.errors import NotFinite, UserError
from sami_jax.evaluation.canaries import Canaries, Stop
from sami_jax.export.huggingface import companions, export
from sami_jax.export.merged import merged
from sami_jax.export.peft import export_adapters
from sami_jax.ground import hosts, stopping
from sami_jax.ground.display import doing
from sami_jax.ground.progress import track
from sami_jax.ground.terminal import say
from sami_jax.models.adapters import adapted, init_adapters, write_record
from sami_jax.models.pretrained import ModelFolder, open_model
from sami_jax.models.stack import joined
from sami_jax.principles import constitutions as composing
from sami_jax.principles.principle import Principle
from sami_jax.report.data import LEAST_EFFECTIVE
from sami_jax.report.model_card import write_principles
from sami_jax.stages.checkpoint import Checkpoints
from sami_jax.stages.merging import MERGED, tell_merge
from sami_jax.stages.metrics import MetricsLog
from sami_jax.stages.preparation import Inputs, principle_records
from sami_jax.tracking.trackers import Trackers

NOT_FINITE = "not_finite.jsonl"  # the batch that ended a stage, as `sami score` reads it

Update = Callable[[TrainState, int], tuple[TrainState, dict[str, float]]]  # (state, number from 1) -> (state, metrics)
Keep = Callable[[int], Path]  # writes the texts of an update, by its number, to a file


def train(
    config: ConfigDict,
    inputs: Inputs,
    pairs: Path,
    folder: Path,
    iteration: int,
    trackers: Trackers,
    earlier: Path | None = None,
) -> Stop | None:
    """Trains the base model on a pairs file: checkpoints/, metrics.jsonl, canaries.jsonl, model/; of adapters, adapter/ and merged.json.

    Args:
      earlier: folder of another stage of this run, whose canaries have asked the base already.
    Returns:
      how the canaries stopped it, if they did; then the exported model is the last good one, and none where there was none.
    Raises:
      UserError: texts that are too long, or that do not fit the model.
      NotFinite: too many updates were skipped, or a weight is no number; the checkpoints before stand.
      Stopped: somebody asked; the state is saved.
    """
    stop = Stop.read(folder)
    examples = functools.cache(lambda: examples_of(config, inputs, pairs))
    exported = (folder / "model").exists
    if not hosts.once(exported) and not (stop and not stop.last_good):
        stop = _train(config, inputs, examples(), folder, iteration, trackers, earlier, stop)
    if config.lora.rank and hosts.once(exported) and not hosts.once((folder / MERGED).exists):
        tell_merge(config, inputs.base, examples(), folder, inputs.mesh)
    return stop


def trained_model(config: ConfigDict, base: ModelFolder, folder: Path) -> ModelFolder:
    """What `train` left in an iteration's folder, as it was trained: adapters beside the base, not the merge of both."""
    if config.lora.rank:
        return base.with_adapter(folder / "adapter")
    return open_model(folder / "model", config.model.attention, config.prompt)


def _train(
    config: ConfigDict,
    inputs: Inputs,
    examples: list[ContrastExample],
    folder: Path,
    iteration: int,
    trackers: Trackers,
    earlier: Path | None,
    stop: Stop | None,
) -> Stop | None:
    """What of `train` is not there yet, up to the exported model."""
    base, mesh = inputs.base, inputs.mesh
    batches = batches_of(config, examples, iteration)
    shares = [batches.padded_share(index) for index in range(len(batches))]
    rows = ", ".join(str(shape.row) for shape in batches.shapes)
    say(f"  microbatches in rows of {rows} tokens, {sum(shares) / len(shares):.1%} of them padding")
    model_config = adapted(base.config, config.lora)
    frozen = {}
    if model_config.adapter:
        frozen = base.load(mesh, config.train.compute_dtype)
        write_record(folder / "checkpoints", model_config, base.folder)
        say(f"  adapters of rank {model_config.adapter.rank} on {', '.join(model_config.adapter.targets)}")
    reference = None
    if needs_base(config):
        reference = frozen or base.load(mesh, config.train.compute_dtype)
    principles = principle_records(config, inputs)

    def side_files(target: Path) -> None:
        companions(base)(target)
        write_principles(target, principles)

    def begin() -> TrainState:
        dtype = config.train.param_dtype
        adapters = model_config.adapter and init_adapters(model_config, config.seed, mesh, dtype)
        state = init_state(adapters or base.load(mesh, dtype), model_config, config, mesh)
        with doing("checking log-likelihoods against separate rows"):
            check_shared_prefix(joined(frozen, state.params), model_config, config, batches.examples(0), mesh)
        return state

    with jax.set_mesh(mesh), Checkpoints(folder / "checkpoints", side_files) as checkpoints:
        state = checkpoints.restore_latest(model_config, config, mesh)
        if stop is None:
            state = begin() if state is None else state
            done = int(state.step)
            watched = dataclasses.replace(base, config=model_config)
            canaries = inputs.canaries and Canaries(
                config, watched, frozen, inputs.canaries, inputs.judge, mesh, folder, done, earlier
            )
            make = make_update(model_config, config, mesh)

            def update(state: TrainState, number: int):
                return make(state, batches[number - 1], frozen, reference)

            def keep(number: int) -> Path:
                _write_texts(folder / NOT_FINITE, batches.examples(number - 1), base)
                return folder / NOT_FINITE

            log = MetricsLog(folder, trackers, config, iteration, resume_step=done)
            state, alarms = _make_updates(config, batches, state, update, canaries, keep, checkpoints, log)
            if canaries and alarms:
                fired_after = int(state.step)
                checkpoints.drop_after(canaries.looked_at(fired_after))
                state = checkpoints.restore_latest(model_config, config, mesh)
                stop = Stop(fired_after, int(state.step) if state else 0, alarms)
                stop.write(folder)
        if state is not None:
            params = state.params
            if model_config.adapter:
                export_adapters(model_config, params, base.folder, folder / "adapter")
                params = merged(base.folder, model_config, params, mesh)
            export(params, base.config, folder / "model", side_files, jnp.dtype(config.model.export_dtype))
    return stop


def _make_updates(
    config: ConfigDict,
    batches: TrainingBatches,
    state: TrainState,
    update: Update,
    canaries: Canaries | None,
    keep: Keep,
    checkpoints: Checkpoints,
    log: MetricsLog,
) -> tuple[TrainState, list[str]]:
    """Makes the updates that are missing. Returns the state, and the alarms that ended it before the last one, if any did."""
    done, updates, warned = int(state.step), len(batches), False
    skipped = int(log.latest("skipped_updates", 0))

    def is_due(number: int) -> bool:
        """Whether a checkpoint is to be taken, and looked at."""
        return number > 0 and (number % config.train.checkpoint_every == 0 or number == updates)

    def look(number: int) -> list[str]:
        if canaries is None or not is_due(number):
            return []
        signs, alarms = canaries.look(number, state.params)
        log.write(number, {f"canaries/{name}": value for name, value in signs.items()})
        for alarm in alarms:
            say(f"  canary after update {number}: {alarm}")
        return alarms if config.canaries.action == "stop" else []

    # A stop may have come before the canaries did: what was saved is looked at now.
    if alarms := look(done):
        return state, alarms
    tokens = [batches.tokens(index) for index in range(updates)]
    to_come = range(done + 1, updates + 1)
    numbers = track(to_come, "updates", updates, done, lambda number: tokens[number - 1], sum(tokens[done:]))
    try:
        for number in numbers:
            state, metrics = update(state, number)
            stopping.hold()
            if not math.isfinite(metrics["loss"] + metrics["gradient_norm"]):
                skipped += 1
                say(f"  WARNING: update {number} was skipped, its loss or gradient is no number; {skipped} so far")
            if metrics["effective_update"] < LEAST_EFFECTIVE and not warned:
                warned = True
                say(f"  WARNING: update {number}: {_lost(config, metrics['effective_update'])}")
            log.write(number, metrics | {"padded_share": batches.padded_share(number - 1), "skipped_updates": skipped})
            if skipped > config.train.max_skipped_updates:
                raise NotFinite(
                    f"update {number}: loss or gradient is no number, as in {skipped - 1} before (config.train.max_skipped_updates); "
                    f"its texts are in {keep(number)}"
                )
            asked = stopping.anywhere()
            if is_due(number) or asked:
                log.settle()
                checkpoints.save(state, keep=canaries.looked_at(number) if canaries else 0)
            if asked:
                checkpoints.settle()
                stopping.end()
            if alarms := look(number):
                return state, alarms
    finally:
        log.settle()
        stopping.release()
    return state, []


def _lost(config: ConfigDict, effective: float) -> str:
    """What to do where most of an update is rounded away."""
    t = config.train
    kept, exact = f"config.train.param_dtype={t.param_dtype}", "config.train.param_dtype=bfloat16"
    if t.param_dtype == "bfloat16":
        kept, exact = f"config.train.rounding={t.rounding}", "config.train.rounding=stochastic"
    return (
        f"{effective:.0%} of it reached the weights in {t.compute_dtype} that the model is computed with, the rest is rounded away by {kept}; "
        f"set {exact}, or raise config.optim.learning_rate"
    )


def examples_of(config: ConfigDict, inputs: Inputs, pairs: Path) -> list[ContrastExample]:
    """The pairs, encoded as they are trained on.

    Raises:
      UserError: texts that are too long.
    """
    base = inputs.base
    rows = read_pairs(pairs, config.constitutions.count, inputs.skipped)
    template = config.prompt.training
    if config.objective.bare:
        rows, template = distilled(rows, inputs.principles), config.prompt.bare
        if not rows:
            raise UserError(
                f"{pairs}: no response is to principles alone; objective.bare needs constitutions that state no antithesis"
            )
    replies = base.replies(base.scored_end(config.objective.score_eos))
    encoded = encode_pairs(rows, replies, template, config.prompt.max_tokens)
    longest = max(example.longest_text for example in encoded.examples)
    if longest > base.config.max_positions:
        raise UserError(
            f"{pairs}: prompt and response of {longest} tokens exceed the model's context of {base.config.max_positions}; shorten the responses"
        )
    say_cut(config.prompt, encoded.cut, "training prompts")
    if encoded.anew:
        responses = sum(len(row["responses"]) for row in rows)
        say(
            f"  {pairs}: the token_ids of {encoded.anew} of {responses} responses are not those of their text, which is encoded instead"
        )
    return encoded.examples


def distilled(rows: Sequence[dict], principles: Sequence[Principle]) -> list[dict]:
    """Each response that was given under principles without antitheses, as a row of its own that states none of them."""
    return [
        {**row, "constitutions": [""]}
        | {key: [row[key][place]] for key in ("responses", "finish_reasons", "token_ids") if row[key]}
        for row in rows
        for place, constitution in enumerate(row["constitutions"])
        if all(statement.positive for statement in composing.read(constitution, principles))
    ]


def batches_of(config: ConfigDict, examples: list[ContrastExample], iteration: int) -> TrainingBatches:
    """The batches of an iteration's updates."""
    return TrainingBatches(
        examples,
        updates=config.train.updates[iteration - 1],
        batch_size=config.train.batch_size,
        microbatches=config.train.microbatches,
        seed=config.seed + iteration,
        shapes=config.train.shapes,
        bucket=config.train.bucket,
    )


def _write_texts(file: Path, examples: list[ContrastExample], model: ModelFolder) -> None:
    """Prompts and responses as `sami score` reads them; those of a chat with its template's marks, for people."""

    def texts(ids: tuple[tuple[int, ...], ...]) -> list[str]:
        return [model.tokenizer.decode(list(each), skip_special_tokens=not model.chat) for each in ids]

    rows = [(texts(example.prompts), texts(example.responses)) for example in examples]
    write_jsonl(file, [{"id": str(i), "prompts": p, "responses": r} for i, (p, r) in enumerate(rows)])
