"""Several methods on the same queries, with several seeds: what a study says of each, and of each beside the others."""

import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from sami_jax.evaluation.statistics import bradley_terry, length_controlled, mean_interval


class Settings(NamedTuple):
    """What is chosen for each objective. Contrastive decoding has a weight alone: the first two's product."""

    rate: float = 1.0  # times the config's learning rate
    beta: float = 1.0  # times the objective's own
    kl_weight: float = 0.0

    def __str__(self) -> str:
        return f"{self.rate:g} times the rate, {self.beta:g} times beta, KL {self.kl_weight:g}"


def settings_of(row: Mapping) -> Settings:
    """From what study.json says of a run or choice."""
    return Settings(*(row[name] for name in Settings._fields))


class Answers(NamedTuple):
    """Of one model, with one seed, on one evaluation set: n responses, in the same order for every model of that seed."""

    seed: int
    queries: Sequence[str]  # [n], ids
    tokens: Sequence[float]  # [n]
    information: float  # nats, the posterior bound
    probed: Mapping[str, float]  # `probing`: diversity and, where there were texts, their perplexity
    kept: float | None = None  # change of the log-likelihood of the base's own replies, nats a token
    # [n], shares of the principles stated, NaN where the judge gave no verdict; None where nobody judges.
    followed: Sequence[float] | None = None
    well_formed: float | None = None  # share of responses


def outcomes(ours: Answers, theirs: Answers) -> np.ndarray:
    """[n]: 1 where ours follows more of what was stated, 0 where less, 0.5 where as much, NaN where a verdict is missing."""
    if ours.followed is None or theirs.followed is None:
        return np.full(len(ours.queries), np.nan)
    return 0.5 + 0.5 * np.sign(np.asarray(ours.followed) - np.asarray(theirs.followed))


def summary(ours: Sequence[Answers], base: Sequence[Answers]) -> dict:
    """What is said of a method, from its answers and the base's, by seed.

    Intervals are 95 %, clustered by query over all seeds, which have the queries in common; `by_seed` tells the seeds apart.
    `win_rate_at_equal_length` is None where it cannot be told.
    """
    found: dict = {
        "responses": sum(len(one.queries) for one in ours),
        "mean_tokens": float(np.mean([tokens for one in ours for tokens in one.tokens])),
        "mi_posterior_bound": float(np.mean([one.information for one in ours])),
    } | {name: float(np.mean([one.probed[name] for one in ours])) for name in ours[0].probed}
    if kept := [one.kept for one in ours if one.kept is not None]:
        found["kept_logprob_change"] = float(np.mean(kept))
    if whole := [one.well_formed for one in ours if one.well_formed is not None]:
        found["well_formed"] = float(np.mean(whole))
    queries = [query for one in ours for query in one.queries]
    followed = np.concatenate([one.followed or np.full(len(one.queries), np.nan) for one in ours])
    if len(there := np.flatnonzero(~np.isnan(followed))):
        found["following"], *found["following_interval"] = mean_interval(followed[there], [queries[i] for i in there])
        found["following_by_seed"] = {str(one.seed): float(np.nanmean(one.followed or np.nan)) for one in ours}
    won = np.concatenate([outcomes(*both) for both in zip(ours, base, strict=True)])
    longer = np.concatenate([np.subtract(one.tokens, other.tokens) for one, other in zip(ours, base, strict=True)])
    if len(there := np.flatnonzero(~np.isnan(won))):
        found["win_rate"], *found["win_rate_interval"] = mean_interval(won[there], [queries[i] for i in there])
        found["win_rate_at_equal_length"] = length_controlled(won[there], longer[there])
    return found


def strengths(by_method: Mapping[str, Sequence[Answers]]) -> dict[str, float]:
    """Bradley-Terry strengths of the methods, from all comparisons of two of them on a query with the same seed; {} where nobody
    judges."""
    wins = {}
    for one, other in itertools.combinations(by_method, 2):
        won = np.concatenate([outcomes(*both) for both in zip(by_method[one], by_method[other], strict=True)])
        if len(won := won[~np.isnan(won)]):
            wins |= {(one, other): float(won.sum()), (other, one): float((1 - won).sum())}
    return bradley_terry(wins) if wins else {}
