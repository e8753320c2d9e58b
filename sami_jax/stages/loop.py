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

import numpy as np
from ml_collections import ConfigDict

from sami_jax.config import iterations
from sami_jax.data.jsonl import parse_measured, read_json, write_json, write_jsonl
from sami_jax.data.queries import Query
from sami_jax.data.replies import Replies
from sami_jax.data.rows import Skipped
from sami_jax.data.splits import of_iteration
from sami_jax.data.templates import encode_prompt, say_cut
from sami_jax.errors import NotFinite, StoppedByCanary, UserError
from sami_jax.evaluation.explain import explain_all, read_answers
from sami_jax.evaluation.measure import measure, trained_principles
from sami_jax.ground import hosts
from sami_jax.ground.lock import lock_folder
from sami_jax.ground.redaction import redacted
from sami_jax.ground.terminal import say, show
from sami_jax.models.pretrained import ModelFolder
from sami_jax.principles import constitutions as composing
from sami_jax.principles.constitutions import Constitution
from sami_jax.provenance.manifest import RunRecord
from sami_jax.report.model_card import write_card
from sami_jax.report.summary import print_summary
from sami_jax.report.write import write_report
from sami_jax.sampling.drawing import SamplingOptions
from sami_jax.sampling.rollout import held_against_opposites, seeds, write_responses
from sami_jax.sampling.samplers import Prompt
from sami_jax.serving.engine import Engine, open_engine
from sami_jax.stages.checkpoint import check_place
from sami_jax.stages.filtering import filter_pairs
from sami_jax.stages.finetuning import train, trained_model
from sami_jax.stages.merging import MERGED, told_merge
from sami_jax.stages.metrics import EVALUATION, tell_again, tell_evaluation
from sami_jax.stages.preparation import Inputs, devices, prepare, provenance
from sami_jax.tracking.trackers import Trackers, open_trackers

# What an evaluation counts of queries that did not fit.
CUT = {"prompts_with_query_cut": "prompts", "training_prompts_with_query_cut": "training prompts"}
EXPLAINED = 16  # held-out queries whose responses a finished run explains


def run(
    config: ConfigDict,
    workdir: Path,
    allow_unapproved: bool = False,
    skipped: Skipped | None = None,
    force_resume: bool = False,
) -> None:
    """Runs or continues the whole loop in `workdir`, then prints the results and writes the report.

    Args:
      skipped: takes bad rows of queries; None refuses them.
      force_resume: go on in the folder of a run that was made otherwise; what differs is recorded.
    Raises:
      UserError: bad config or input, before anything costly.
      StoppedByCanary: a training stage showed signs of collapse; its last good model is exported and measured.
      NotFinite: weights, losses or log-likelihoods are no numbers; what was good before stands.
      Stopped: somebody asked.
    """
    check_place(workdir)
    inputs = prepare(config, workdir, allow_unapproved, skipped)
    with lock_folder(workdir):
        made_from = provenance(config, inputs, workdir)
        record = RunRecord(workdir, made_from, devices(), force_resume)
        with open_trackers(config, workdir) as trackers:
            trackers.describe(redacted(record.config), made_from["principles"])
            tell_again(trackers, config, workdir)
            try:
                with open_engine(config, inputs.mesh, workdir) as engine:
                    _iterate(config, inputs, workdir, allow_unapproved, made_from, record, trackers, engine)
            except NotFinite as error:
                record.audit.add("not finite", reason=str(error))
                raise


def _iterate(
    config: ConfigDict,
    inputs: Inputs,
    workdir: Path,
    allow_unapproved: bool,
    made_from: dict,
    record: RunRecord,
    trackers: Trackers,
    engine: Engine,
) -> None:
    record.audit.add("principles admitted", **made_from["review"], allow_unapproved=allow_unapproved)
    if inputs.skipped and inputs.skipped.counts:
        record.audit.add("rows passed over", counts=inputs.skipped.counts)
    shares = ", ".join(f"{share:.0%} {name}" for name, share in inputs.admission.rates.items() if share)
    say(f"{len(inputs.principles)} principles; reviews: {shares}")
    _measure(config, inputs, inputs.base, workdir, 0, trackers, engine)
    record.stage("evaluated", 0, [workdir / "iteration_0"])
    sampler, models = inputs.base, []
    for n in iterations(config):
        folder = workdir / f"iteration_{n}"
        say(f"Iteration {n} of {len(config.train.updates)}")
        sample(config, inputs, sampler, n, folder, engine)
        engine.rest()
        record.stage("sampled", n, [folder / name for name in ("responses.jsonl", "pairs.jsonl", "dropped.json")])
        earlier = workdir / "iteration_1" if n > 1 else None
        stop = train(config, inputs, folder / "pairs.jsonl", folder, n, trackers, earlier)
        trained = [folder / name for name in ("metrics.jsonl", "canaries.jsonl", "adapter", MERGED)]
        record.stage("trained", n, trained, canaries=stop and stop.rules)
        if stop is None or stop.last_good:
            sampler = trained_model(config, inputs.base, folder)
            results = _measure(config, inputs, sampler, workdir, n, trackers, engine)
            record.stage("evaluated", n, [folder / "evaluation", folder / EVALUATION])
            title = f"{workdir.name}, iteration {n}"
            write_card(folder / "model", title, made_from, results, stop and stop.reason, told_merge(folder))
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


def sample(
    config: ConfigDict, inputs: Inputs, sampler: ModelFolder, iteration: int, folder: Path, engine: Engine
) -> None:
    """Samples a response to each query under each constitution, then filters: responses.jsonl, pairs.jsonl, dropped.json."""
    if hosts.once((folder / "pairs.jsonl").exists):
        return
    queries = _iteration_queries(config, inputs, iteration)
    root = f"{config.seed}/iteration/{iteration}"
    composed = _compose(config, inputs, root, len(queries))
    prompts, cut = _prompts(config, sampler, queries, composed, root)
    say_cut(config.prompt, cut, f"{len(prompts)} prompts")
    params = sampler.load(inputs.mesh, config.train.compute_dtype)
    s = config.sampling
    options = SamplingOptions(s.temperature, s.top_p, s.top_k, s.max_new_tokens, tuple(s.stop), s.contrast)
    file = folder / "responses.jsonl"
    served = engine.sampler(sampler, params, _exported(sampler))
    rows = write_responses(file, served, prompts, options, "sampling", config.filter)
    positives = [[all(statement.positive for statement in c) for c in constitutions] for constitutions in composed]
    kept, dropped = filter_pairs(_pair_rows(config, queries, composed, rows, root), positives, config.filter)
    kept, anew = _with_spelling_ids(kept, sampler.replies(None, config.filter.prefix))
    counts = {"queries": len(queries), "kept": len(kept), "dropped": dropped, "prompts_with_query_cut": cut}
    write_json(folder / "dropped.json", counts | {"responses_encoded_anew": anew})
    reasons = "".join(f"; {count} dropped: {reason}" for reason, count in dropped.items())
    say(f"  kept {len(kept)} of {len(queries)} queries{reasons}")
    if anew:
        say(f"  {anew} responses were cut within a token: their text is encoded anew")
    if not kept:
        raise UserError(f"{file}: every query was dropped ({dropped}); loosen config.filter or sample otherwise")
    write_jsonl(folder / "pairs.jsonl", kept)


def _measure(
    config: ConfigDict,
    inputs: Inputs,
    model: ModelFolder,
    workdir: Path,
    iteration: int,
    trackers: Trackers,
    engine: Engine,
) -> dict:
    """Evaluates the model of an iteration, 0 for the base, and tells trackers if that is news."""
    folder = workdir / f"iteration_{iteration}"
    known = (folder / EVALUATION).exists()
    results = evaluate(config, inputs, model, folder, workdir / "iteration_0" if iteration else None, engine)
    if not known:
        tell_evaluation(trackers, config, iteration, folder)
    return results


def evaluate(
    config: ConfigDict, inputs: Inputs, model: ModelFolder, folder: Path, baseline: Path | None, engine: Engine
) -> dict:
    """Measures a model on every evaluation set: evaluation/*.jsonl and evaluation.json. Returns what the latter holds."""
    file = folder / EVALUATION
    if not hosts.once(file.exists):
        params = model.load(inputs.mesh, config.train.compute_dtype)
        baseline_responses = None if baseline is None else baseline / "evaluation"
        sampler = engine.sampler(model, params, _exported(model))
        kept = (folder / "evaluation", baseline_responses, sampler)
        results = {
            chosen.name: measure(config, model, params, chosen, inputs.judge, inputs.mesh, *kept)
            for chosen in inputs.evaluation_sets
        }
        write_json(file, results)
        for name, found in results.items():
            for key, prompts in CUT.items():
                say_cut(config.prompt, int(found[key]), f"{found['responses']} {prompts} of {name}")
    return read_json(file, "restore it, or remove it to measure again", parse_measured)


def _exported(model: ModelFolder) -> Path | None:
    """Where a model whose adapters lie beside it is a whole one: `train` leaves both in an iteration's folder."""
    return model.adapter and model.adapter.with_name("model")


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
        write_jsonl(file, explain_all(model, params, answers, config, ids, inputs.mesh, batch_size))
    except UserError as error:
        say(f"not explained: {error}")


def _iteration_queries(config: ConfigDict, inputs: Inputs, iteration: int) -> list[Query]:
    """As many queries as the iteration's updates take, from its split, in a seeded order.

    A split that is smaller is gone through again: each time a query comes back, it meets other constitutions.
    """
    queries = of_iteration(inputs.queries, config.data.splits, iteration)
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
            asked = (config.prompt.generation, text, query.text, config.prompt.max_tokens)
            ids, missing = encode_prompt(sampler.tokenizer, *asked, sampler.chat, query.turns)
            prompts.append(Prompt({"id": query.id, "constitution": text}, ids, next(drawn)))
            cut += missing > 0
    return held_against_opposites(prompts) if config.sampling.contrast else prompts, cut


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
                **query.row,
                "constitutions": [composing.text(constitution) for constitution in stated],
                "responses": [row["response"] for row in own],
                "finish_reasons": [row["finish_reason"] for row in own],
                "token_ids": [row.get("token_ids", []) for row in own],
            }
        )
    return pairs


def _with_spelling_ids(pairs: Sequence[dict], replies: Replies) -> tuple[list[dict], int]:
    """The pairs with the ids as sampled that spell their cleaned responses, [] where none do; and how many such there are, of those
    whose ids are known: a response of an older run has none."""
    rows, anew = [], 0
    for pair in pairs:
        sampled = list(zip(pair["responses"], pair["token_ids"], strict=True))
        spelt = [replies.spelling(text, ids) for text, ids in sampled]
        anew += sum(bool(ids) and own is None for own, (_, ids) in zip(spelt, sampled, strict=True))
        rows.append({**pair, "token_ids": [ids or [] for ids in spelt]})
    return rows, anew
