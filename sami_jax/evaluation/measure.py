"""Measures one model on held-out queries: responses, principle-following, wins over the base, mutual information."""

import dataclasses
import functools
import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from sami_jax.contrast import objective
from sami_jax.contrast.likelihood import normalized
from sami_jax.contrast.scoring import score, tracked
from sami_jax.data.jsonl import read_jsonl, write_jsonl
from sami_jax.data.pairs import clean, encode_pairs
from sami_jax.data.queries import Query
from sami_jax.data.templates import encode_prompt
from sami_jax.evaluation.echo import echoes
from sami_jax.evaluation.judge import Judge, Reply
from sami_jax.evaluation.statistics import mean_interval
from sami_jax.ground.display import doing
from sami_jax.ground.terminal import say
from sami_jax.models.pretrained import ModelFolder
from sami_jax.principles import constitutions as composing
from sami_jax.principles.constitutions import Constitution
from sami_jax.principles.principle import Principle
from sami_jax.sampling.drawing import SamplingOptions
from sami_jax.sampling.rollout import held_against_opposites, seeds, write_responses
from sami_jax.sampling.samplers import OwnSampler, Prompt, Sampler


@dataclasses.dataclass(frozen=True)
class EvaluationSet:
    """Queries, each with the C constitutions it is answered under. The same for every model of a run."""

    name: str
    queries: Sequence[Query]
    constitutions: Sequence[tuple[Constitution, ...]]
    bare: bool = False  # asked without stating them, by `prompt.bare`

    def stated(self, constitution: Constitution) -> str:
        """What prompts say of a constitution."""
        return "" if self.bare else composing.text(constitution)


def evaluation_sets(
    config: ConfigDict, principles: Sequence[Principle], queries: Sequence[Query]
) -> list[EvaluationSet]:
    """Held-out queries under the trained principles, under held-out wordings of them, and under held-out principles; with `prompt.bare`,
    under the trained principles without their antitheses too, which are not stated."""
    queries = queries[: config.evaluation.queries]
    choices = {
        "trained": trained_principles(config, principles),
        "held_out_principles": split_principles(config, principles)[1],
        "held_out_phrasings": held_out_phrasings(config, principles),
    }

    def constitutions(name: str, chosen: Sequence[Principle], rule: str, count: int):
        size = min(config.constitutions.principles, len(chosen))
        root = f"{config.seed}/evaluation/{name}"
        return [composing.compose(chosen, rule, size, count, root, i) for i in range(len(queries))]

    c = config.constitutions
    sets = [
        EvaluationSet(name, queries, constitutions(name, chosen, c.rule, c.count))
        for name, chosen in choices.items()
        if chosen
    ]
    if config.prompt.bare:
        composed = constitutions("bare", choices["trained"], "positive_vs_rest", 1)
        sets.append(EvaluationSet("bare", queries, composed, bare=True))
    return sets


def split_principles(config: ConfigDict, principles: Sequence[Principle]) -> tuple[list[Principle], list[Principle]]:
    """Principles that training may use, and those it may not."""
    c = config.principles
    return composing.split(principles, c.held_out, c.held_out_drawn, config.seed)


def trained_principles(config: ConfigDict, principles: Sequence[Principle]) -> list[Principle]:
    """The principles, in the wordings, that training may use."""
    kept = -config.principles.held_out_phrasings or None
    return [dataclasses.replace(p, phrasings=p.phrasings[:kept]) for p in split_principles(config, principles)[0]]


def held_out_phrasings(config: ConfigDict, principles: Sequence[Principle]) -> list[Principle]:
    """The trained principles in the wordings that training may not use."""
    if not config.principles.held_out_phrasings:
        return []
    first = -config.principles.held_out_phrasings
    return [dataclasses.replace(p, phrasings=p.phrasings[first:]) for p in split_principles(config, principles)[0]]


def measure(
    config: ConfigDict,
    model: ModelFolder,
    params: dict,
    evaluation_set: EvaluationSet,
    judge: Judge | None,
    mesh: jax.sharding.Mesh,
    folder: Path,
    baseline_folder: Path | None,
    sampler: Sampler | None = None,
) -> dict[str, float]:
    """Samples, scores and judges one model on one set.

    Args:
      params: weights in the compute dtype.
      folder: where this model's responses are kept, one file a set.
      baseline_folder: the same of the base model; None where this is the base model.
      sampler: who answers; None for our own sampler, with `params`.
    Returns:
      scalars by name. Following and wins are there where there is a judge, wins where there is a baseline. Intervals are
      pairs, and "mean_s" is S [C, C] as the objective takes it, its mean over the queries. With `filter.keep_after`,
      "unanswered" is the share of texts in which no response follows it. "echo" is the share of responses that repeat their
      constitution. "prompts_with_query_cut" and
      "training_prompts_with_query_cut" count where a query was cut to fit: as it was asked, and as it was scored. "principles" has
      following and wins of each principle, by id: intervals of the set are over queries, for these principles, and say nothing
      of others.
    """
    sampler = sampler or OwnSampler(model, params, mesh, config.sampling.batch_size)
    rows, cut = answered(config, sampler, evaluation_set, folder)
    metrics: dict = {"responses": len(rows), "mean_tokens": float(np.mean([row["tokens"] for row in rows]))}
    metrics["echo"] = float(np.mean([echoes(row["response"], row["constitution"]) for row in rows]))
    metrics["prompts_with_query_cut"] = cut
    if config.filter.keep_after:
        metrics["unanswered"] = float(np.mean([not row["response"] for row in rows]))
    metrics |= _information(config, model, params, evaluation_set, rows, mesh)
    if judge is None:
        return metrics
    baseline = baseline_folder and read_jsonl(baseline_folder / f"{evaluation_set.name}.jsonl")
    return metrics | _judged(config, evaluation_set, rows, baseline, judge, folder)


def _judged(
    config: ConfigDict,
    evaluation_set: EvaluationSet,
    rows: list[dict],
    baseline: list[dict] | None,
    judge: Judge,
    folder: Path,
) -> dict:
    """What a judge finds in a model's responses, beside the base's where there are these."""
    by_query = [query.id for query, _ in _tasks(evaluation_set)]
    verdicts, whole = judged_replies(config, evaluation_set, rows, judge)
    write_jsonl(folder / f"{evaluation_set.name}.verdicts.jsonl", [{"followed": verdict} for verdict in verdicts])
    before = None if baseline is None else judged_replies(config, evaluation_set, baseline, judge)[0]
    metrics = _followed(verdicts, before, by_query)
    metrics["judged"] = sum(map(bool, verdicts))
    metrics["well_formed"] = float(np.mean(whole))
    metrics["principles"] = {}
    for id in sorted({id for verdict in verdicts for id in verdict}):
        own = [_only(verdict, id) for verdict in verdicts]
        found = _followed(own, before and [_only(verdict, id) for verdict in before], by_query)
        metrics["principles"][id] = {"responses": sum(map(bool, own))} | found
    return metrics


def _only(verdict: dict[str, bool], id: str) -> dict[str, bool]:
    return {id: verdict[id]} if id in verdict else {}


def _followed(
    verdicts: Sequence[dict[str, bool]], before: Sequence[dict[str, bool]] | None, by_query: Sequence[str]
) -> dict:
    """Following, and wins over a baseline where there is one, of the responses that have a verdict."""
    found = {}
    ours = np.array([share_followed(verdict) for verdict in verdicts])
    there = np.flatnonzero(~np.isnan(ours))
    if not len(there):
        return found
    clusters = [by_query[place] for place in there.tolist()]
    found["following"], *found["following_interval"] = mean_interval(ours[there], clusters)
    if before is not None:
        outcomes = 0.5 + 0.5 * np.sign(ours - np.array([share_followed(verdict) for verdict in before]))
        if len(there := np.flatnonzero(~np.isnan(outcomes))):
            clusters = [by_query[place] for place in there.tolist()]
            found["win_rate"], *found["win_rate_interval"] = mean_interval(outcomes[there], clusters)
    return found


def _tasks(evaluation_set: EvaluationSet):
    for query, constitutions in zip(evaluation_set.queries, evaluation_set.constitutions, strict=True):
        for constitution in constitutions:
            yield query, constitution


def answered(
    config: ConfigDict, sampler: Sampler, evaluation_set: EvaluationSet, folder: Path
) -> tuple[list[dict], int]:
    """A set's responses, each query under each of its constitutions, kept in `folder`; and in how many prompts the query was cut to fit."""
    model = sampler.model
    tasks = list(_tasks(evaluation_set))
    # The same seeds for every model of a run: differences are the model's.
    drawn = seeds(f"{config.seed}/evaluation/{evaluation_set.name}", len(tasks))
    prompts, cut = [], 0
    template = config.prompt.bare if evaluation_set.bare else config.prompt.generation
    for (query, constitution), seed in zip(tasks, drawn, strict=True):
        asked = (template, evaluation_set.stated(constitution), query.text, config.prompt.max_tokens)
        ids, missing = encode_prompt(model.tokenizer, *asked, model.chat, query.turns)
        cut += missing > 0
        prompts.append(Prompt({"id": query.id, **query.row, "constitution": composing.text(constitution)}, ids, seed))
    e, s = config.evaluation, config.sampling
    contrast = 0.0 if evaluation_set.bare else s.contrast  # of prompts that state something
    if contrast:
        prompts = held_against_opposites(prompts)
    options = SamplingOptions(e.temperature, e.top_p, s.top_k, s.max_new_tokens, tuple(s.stop), contrast)
    file = folder / f"{evaluation_set.name}.jsonl"
    title = f"answering {evaluation_set.name}"
    return write_responses(file, sampler, prompts, options, title, config.filter), cut


def own_logprobs(
    config: ConfigDict, model: ModelFolder, params: dict, evaluation_set: EvaluationSet, rows: list[dict], mesh
) -> np.ndarray:
    """[Q, C]: mean log-likelihood per token, nats, of responses under the constitutions they belong to, whoever gave them."""
    scored = _summed(config, model, params, evaluation_set, rows, mesh)
    return np.diagonal(scored.s_sum, axis1=1, axis2=2) / np.maximum(scored.lengths, 1)


class _Scored(NamedTuple):
    s_sum: np.ndarray  # [Q, C, C], summed over tokens
    lengths: np.ndarray  # [Q, C], of responses, tokens
    unanswered: list[bool]  # queries without an answer
    cut: int  # prompts in which the query was cut to fit


def _summed(
    config: ConfigDict, model: ModelFolder, params: dict, evaluation_set: EvaluationSet, rows: list[dict], mesh
) -> _Scored:
    """S of responses in the training prompt."""
    count = len(evaluation_set.constitutions[0])
    pairs, unanswered = [], []
    for i, (query, constitutions) in enumerate(zip(evaluation_set.queries, evaluation_set.constitutions, strict=True)):
        own = rows[i * count : (i + 1) * count]
        unanswered.append(bool(config.filter.keep_after) and not all(row["response"] for row in own))
        pairs.append(
            {
                **query.row,
                "constitutions": [evaluation_set.stated(constitution) for constitution in constitutions],
                "responses": [clean(row["response"], config.filter) for row in own],
                "finish_reasons": [row["finish_reason"] for row in own],
                "token_ids": [row.get("token_ids", []) for row in own],
            }
        )
    replies = model.replies(model.scored_end(config.objective.score_eos), config.filter.prefix)
    template = config.prompt.bare if evaluation_set.bare else config.prompt.training
    encoded = encode_pairs(pairs, replies, template, config.prompt.max_tokens)
    examples = encoded.examples
    s_sum = np.zeros((len(examples), count, count), np.float32)
    with doing(f"scoring {evaluation_set.name}"):
        scored = score(params, model.config, examples, mesh, config.evaluation.batch_size)
        for place, summed in tracked(scored, "queries", examples):
            s_sum[place] = summed
    lengths = np.array([[len(response) for response in example.responses] for example in examples])
    return _Scored(s_sum, lengths, unanswered, encoded.cut)


def _information(
    config: ConfigDict, model: ModelFolder, params: dict, evaluation_set: EvaluationSet, rows: list[dict], mesh
) -> dict[str, float | list]:
    """Mutual information, accuracies and the mean S of the model on its own responses, in the training prompt."""
    count = len(evaluation_set.constitutions[0])
    s_sum, lengths, unanswered, cut = _summed(config, model, params, evaluation_set, rows, mesh)
    s_sum[unanswered] = 0.0  # who says nothing tells nothing of the constitution: 0 nats
    estimates, mean_s = _estimates(s_sum, lengths, config.objective.normalize)
    found: dict = {"mean_s": mean_s.tolist(), "mi_cap": math.log(count)}  # nats, the most that the bounds can show
    found["training_prompts_with_query_cut"] = cut
    for name, values in estimates.items():
        found[name], *interval = mean_interval(values, bounds=(0.0, 1.0) if name.endswith("accuracy") else None)
        # Where all queries give the same nats, nothing shows how much others would differ.
        if np.isfinite(interval).all():
            found[f"{name}_interval"] = interval
    return found


@functools.partial(jax.jit, static_argnames="normalize")
def _estimates(s_sum: jax.Array, lengths: jax.Array, normalize: str) -> tuple[dict[str, jax.Array], jax.Array]:
    s = normalized(s_sum, lengths, normalize)
    return objective.estimates(s, s_sum), jnp.mean(s, axis=0)


def judged_replies(
    config: ConfigDict, evaluation_set: EvaluationSet, rows: Sequence[dict], judge: Judge
) -> tuple[list[dict[str, bool]], list[bool]]:
    """For each response: principle id -> whether the stated side is followed, {} where the judge was not asked or gave no verdict;
    and whether it is well formed.

    A judge that is to be asked about a bounded number is asked about queries drawn by lot, the same ones for every model. A
    response that repeats its constitution follows nothing, whatever a judge would say, and is not well formed.
    """
    replies = [
        Reply(query.text, constitution, row["response"], row["finish_reason"] == "stop")
        for (query, constitution), row in zip(_tasks(evaluation_set), rows, strict=True)
    ]
    echoed = [echoes(reply.response, composing.text(reply.constitution)) for reply in replies]
    verdicts: list[dict[str, bool]] = [{} for _ in replies]
    asked = []
    for place in _drawn(config, evaluation_set, judge.most):
        if echoed[place]:
            stated = composing.stated(replies[place].constitution)
            verdicts[place] = {id: False for id in stated if judge.knows(id)}
        else:
            asked.append(place)
    for place, verdict in zip(asked, judge.followed([replies[place] for place in asked]), strict=True):
        verdicts[place] = verdict
    if judge.most is None:  # who has to be asked says it of his own
        known = (place for place in asked if any(map(judge.knows, composing.stated(replies[place].constitution))))
        if unread := sum(not verdicts[place] for place in known):
            say(f"{unread} of {len(asked)} responses are longer than the judge reads and are not judged")
    whole = [not echo and judge.well_formed(reply) for echo, reply in zip(echoed, replies, strict=True)]
    return verdicts, whole


def _drawn(config: ConfigDict, evaluation_set: EvaluationSet, most: int | None) -> list[int]:
    """Places of the responses that are judged: all of some queries."""
    queries, count = len(evaluation_set.queries), len(evaluation_set.constitutions[0])
    if most is None or most >= queries * count:
        return list(range(queries * count))
    seed = random.Random(f"{config.seed}/judged/{evaluation_set.name}")
    chosen = sorted(seed.sample(range(queries), max(1, most // count)))
    return [query * count + place for query in chosen for place in range(count)]


def share_followed(verdict: dict[str, bool]) -> float:
    """Of the principles that a constitution states and the judge decided on; NaN where there is none."""
    return sum(verdict.values()) / len(verdict) if verdict else math.nan
