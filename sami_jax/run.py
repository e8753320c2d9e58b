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
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from sami_jax import hosts
from sami_jax.checkpoint import Checkpoints
from sami_jax.config import iterations
from sami_jax.data.batches import TrainingBatches
from sami_jax.data.jsonl import Skipped, parse_measured, read_json, write_json, write_jsonl
from sami_jax.data.pairs import encode_pairs, filter_pairs, read_pairs
from sami_jax.data.queries import Query, split
from sami_jax.data.templates import encode_prompt
from sami_jax.errors import StoppedByCanary, UserError
from sami_jax.evaluation.canaries import Canaries, Stop
from sami_jax.evaluation.explain import explain_all, read_answers
from sami_jax.evaluation.measure import measure, trained_principles
from sami_jax.metrics import MetricsLog, show_evaluation
from sami_jax.model_card import write_card, write_principles
from sami_jax.models.adapters import adapted, export_adapters, folded, init_adapters, write_record
from sami_jax.models.huggingface import copy_companions, export
from sami_jax.models.pretrained import ModelFolder, open_model
from sami_jax.models.stack import joined
from sami_jax.preparation import Inputs, devices, prepare, principle_records, provenance
from sami_jax.principles import constitutions as composing
from sami_jax.principles.constitutions import Constitution
from sami_jax.provenance.lock import lock_folder
from sami_jax.provenance.manifest import RunRecord
from sami_jax.report.write import write_report
from sami_jax.rollout import Prompt, seeds, write_responses
from sami_jax.sampling import SamplingOptions
from sami_jax.summary import print_summary
from sami_jax.terminal import say, show, track
from sami_jax.training import check_shared_prefix, init_state, make_update

EXPLAINED = 16  # held-out queries whose responses a finished run explains


def run(config: ConfigDict, workdir: Path, allow_unapproved: bool = False, skipped: Skipped | None = None) -> None:
    """Runs or continues the whole loop in `workdir`, then prints the results and writes the report.

    Args:
      skipped: takes bad rows of queries; None refuses them.
    Raises:
      UserError: bad config or input, before anything costly.
      StoppedByCanary: a training stage showed signs of collapse; its last good model is exported and measured.
    """
    inputs = prepare(config, workdir, allow_unapproved, skipped)
    with lock_folder(workdir):
        _iterate(config, inputs, workdir, allow_unapproved)


def _iterate(config: ConfigDict, inputs: Inputs, workdir: Path, allow_unapproved: bool) -> None:
    made_from = provenance(config, inputs)
    record = RunRecord(workdir, made_from, devices())
    record.audit.add("principles admitted", **made_from["review"], allow_unapproved=allow_unapproved)
    if inputs.skipped and inputs.skipped.counts:
        record.audit.add("rows passed over", counts=inputs.skipped.counts)
    shares = ", ".join(f"{share:.0%} {name}" for name, share in inputs.admission.rates.items() if share)
    say(f"{len(inputs.principles)} principles; reviews: {shares}")
    folder = workdir / "iteration_0"
    results = evaluate(config, inputs, inputs.base, folder, None)
    if record.stage("evaluated", 0, [folder]):
        show_evaluation(workdir / "tensorboard", 0, results, folder / "evaluation")
    sampler, models = inputs.base, []
    for n in iterations(config):
        folder = workdir / f"iteration_{n}"
        say(f"Iteration {n} of {len(config.train.updates)}")
        sample(config, inputs, sampler, n, folder)
        record.stage("sampled", n, [folder / name for name in ("responses.jsonl", "pairs.jsonl", "dropped.json")])
        stop = train(config, inputs, folder / "pairs.jsonl", folder, n, workdir / "tensorboard")
        trained = [folder / name for name in ("metrics.jsonl", "canaries.jsonl", "adapter")]
        record.stage("trained", n, trained, canaries=stop and stop.rules)
        if stop is None or stop.last_good:
            sampler = open_model(folder / "model", config.model.attention)
            results = evaluate(config, inputs, sampler, folder, workdir / "iteration_0")
            if record.stage("evaluated", n, [folder / "evaluation", folder / "evaluation.json"]):
                show_evaluation(workdir / "tensorboard", n, results, folder / "evaluation")
            write_card(folder / "model", f"{workdir.name}, iteration {n}", made_from, results, stop and stop.reason)
            record.publish(folder / "model")
            models.append(folder / "model")
        if stop:
            break
    if models:
        explain_responses(config, inputs, sampler, models[-1].parent)
        record.stage("explained", 0, [models[-1].parent / "explain.jsonl"])
    record.finish("stopped by canaries" if stop else "complete")
    print_summary([workdir / "iteration_0", *(model.parent for model in models)])
    show(f"Report: {write_report(workdir)}")
    if stop:
        kept = f"the model of update {stop.last_good} is kept: {models[-1]}" if stop.last_good else "no update was good"
        raise StoppedByCanary(f"iteration {n}, update {stop.update}: stopped by canaries: {stop.reason}; {kept}")


def sample(config: ConfigDict, inputs: Inputs, sampler: ModelFolder, iteration: int, folder: Path) -> None:
    """Samples a response to each query under each constitution, then filters: responses.jsonl, pairs.jsonl, dropped.json."""
    if hosts.once((folder / "pairs.jsonl").exists):
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
    sampling = (prompts, options, inputs.mesh, s.batch_size, "sampling")
    rows = write_responses(file, sampler, params, *sampling, config.filter)
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
) -> Stop | None:
    """Trains the base model on a pairs file: checkpoints/, metrics.jsonl, canaries.jsonl, model/.

    Returns:
      how the canaries stopped it, if they did; then the exported model is the last good one, and none where there was none.
    """
    stop = Stop.read(folder)
    if hosts.once((folder / "model").exists) or (stop and not stop.last_good):
        return stop
    base, mesh = inputs.base, inputs.mesh
    updates = config.train.updates[iteration - 1]
    end_token = base.end_tokens[0] if config.objective.score_eos else None
    rows = read_pairs(pairs, config.constitutions.count, inputs.skipped)
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
    model_config = adapted(base.config, config.lora)
    frozen = {}
    if model_config.adapter:
        frozen = base.load(mesh, config.train.compute_dtype)
        write_record(folder / "checkpoints", model_config, base.folder, config.train.compute_dtype)
        say(f"  adapters of rank {model_config.adapter.rank} on {', '.join(model_config.adapter.targets)}")
    reference = None
    if config.objective.kl_weight:
        reference = frozen or base.load(mesh, config.train.compute_dtype)
    principles = principle_records(config, inputs)

    def side_files(target: Path) -> None:
        copy_companions(base.folder)(target)
        write_principles(target, principles)

    with jax.set_mesh(mesh), Checkpoints(folder / "checkpoints", side_files) as checkpoints:
        state = checkpoints.restore_latest(model_config, config, mesh)
        if state is None:
            dtype = config.train.param_dtype
            adapters = model_config.adapter and init_adapters(model_config, config.seed, mesh, dtype)
            start = adapters or base.load(mesh, dtype)
            state = init_state(start, model_config, config, mesh)
        done = int(state.step)
        if done == 0:
            check_shared_prefix(joined(frozen, state.params), model_config, config, examples, mesh)
        canaries = inputs.canaries and Canaries(config, base, inputs.canaries, inputs.judge, mesh, folder, done)
        update = make_update(model_config, config, mesh)
        with MetricsLog(folder / "metrics.jsonl", tensorboard, f"iteration_{iteration}", resume_step=done) as log:
            numbers = track(range(done + 1, updates + 1), "updates", updates, done, lambda n: batches.tokens(n - 1))
            for number in numbers if stop is None else ():
                state, metrics = update(state, batches[number - 1], frozen, reference)
                metrics = {name: float(value) for name, value in metrics.items()}
                metrics["padded_share"] = batches.padded_share(number - 1)
                at_checkpoint = number % config.train.checkpoint_every == 0 or number == updates
                alarms = []
                if canaries and at_checkpoint:
                    signs, alarms = canaries.look(number, model_config, joined(frozen, state.params))
                    metrics |= {f"canaries/{name}": value for name, value in signs.items()}
                log.write(number, metrics)
                for alarm in alarms:
                    say(f"  canary after update {number}: {alarm}")
                if alarms and config.canaries.action == "stop":
                    stop = Stop(number, checkpoints.latest_step() or 0, alarms)
                    stop.write(folder)
                    break
                if at_checkpoint:
                    checkpoints.save(state)
        if stop:
            state = checkpoints.restore_latest(model_config, config, mesh)
        if state is not None:
            dtype = jnp.dtype(config.model.export_dtype)
            params = state.params
            if model_config.adapter:
                export_adapters(model_config, params, base.folder, folder / "adapter")
                params = folded(model_config, frozen, params, mesh)
            export(params, base.config, folder / "model", side_files, dtype)
    return stop


def evaluate(config: ConfigDict, inputs: Inputs, model: ModelFolder, folder: Path, baseline: Path | None) -> dict:
    """Measures a model on every evaluation set: evaluation/*.jsonl and evaluation.json. Returns what the latter holds."""
    file = folder / "evaluation.json"
    if not hosts.once(file.exists):
        params = model.load(inputs.mesh, config.train.compute_dtype)
        baseline_responses = None if baseline is None else baseline / "evaluation"
        results = {
            chosen.name: measure(
                config, model, params, chosen, inputs.judge, inputs.mesh, folder / "evaluation", baseline_responses
            )
            for chosen in inputs.evaluation_sets
        }
        write_json(file, results)
    return read_json(file, "restore it, or remove it to measure again", parse_measured)


def explain_responses(config: ConfigDict, inputs: Inputs, model: ModelFolder, folder: Path) -> None:
    """Which words of a model's first held-out responses the constitution and each principle caused: explain.jsonl.

    Where that cannot be told, as with one constitution a query, it is said and the run goes on.
    """
    file = folder / "explain.jsonl"
    if hosts.once(file.exists):
        return
    responses = folder / "evaluation" / f"{inputs.evaluation_sets[0].name}.jsonl"
    ids = {text: p.id for p in inputs.principles for wording in p.phrasings for text in wording}
    try:
        answers = read_answers(responses, config.filter)[: EXPLAINED * config.constitutions.count]
        params = model.load(inputs.mesh, config.train.compute_dtype)
        batch_size = config.evaluation.batch_size
        write_jsonl(file, explain_all(model, params, answers, config.prompt, ids, inputs.mesh, batch_size))
    except UserError as error:
        say(f"not explained: {error}")


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
