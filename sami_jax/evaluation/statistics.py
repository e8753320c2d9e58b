"""Win rates that hold up: intervals that know which verdicts belong together, corrections for length, sizes of samples.

An outcome is 1 for a win of the tested model, 0 for a loss, 0.5 for a tie. Outcomes on the same query are not independent:
wherever an interval is asked for, `clusters` names the query of each.
"""

import math
import warnings
from collections.abc import Sequence

import numpy as np
import scipy.special

# scipy.stats, statsmodels and choix take a second to import, which a run should not wait for: each function imports its own.

Values = Sequence[float] | np.ndarray  # [n]

TIES = ("half", "strict", "drop")
CONFIDENCE = 0.95
RESAMPLES = 2000  # of the bootstrap


def apply_ties(outcomes: Values, ties: str) -> tuple[np.ndarray, np.ndarray]:
    """Outcomes under a rule for ties, and which of the given outcomes they are.

    Args:
      ties: "half" counts a tie as half a win (paper: HH), "strict" as a loss (paper: TL;DR), "drop" leaves it out.
    """
    outcomes = np.asarray(outcomes, float)
    if ties == "drop":
        kept = np.flatnonzero(outcomes != 0.5)
        return outcomes[kept], kept
    return np.where(outcomes == 0.5, 0.0 if ties == "strict" else 0.5, outcomes), np.arange(len(outcomes))


def mean_interval(
    values: Values, clusters: Sequence | None = None, bounds: tuple[float, float] | None = (0.0, 1.0)
) -> tuple[float, float, float]:
    """Mean and its 95 % interval.

    Wilson's interval where every value is 0 or 1 and no two share a cluster; else the t interval with a variance clustered by
    query (Cameron & Miller 2015), cut to the values' range.

    Args:
      clusters: which values belong together; None: none do.
      bounds: the range the values can have; None: any.
    Raises:
      ValueError: no values.
    """
    values = np.asarray(values, float)
    if not len(values):
        raise ValueError("no values")
    mean = float(values.mean())
    _, index = np.unique(clusters if clusters is not None else np.arange(len(values)), return_inverse=True)
    count = int(index.max()) + 1
    if bounds and count == len(values) and set(values) <= {0.0, 1.0}:
        from statsmodels.stats.proportion import proportion_confint

        low, high = proportion_confint(values.sum(), len(values), alpha=1 - CONFIDENCE, method="wilson")
        return mean, float(np.asarray(low)), float(np.asarray(high))
    lowest, highest = bounds or (-math.inf, math.inf)
    if count == 1:
        return mean, lowest, highest
    residuals = np.bincount(index, weights=values - mean)
    error = math.sqrt(count / (count - 1) * float(residuals @ residuals)) / len(values)
    half = _t_quantile((1 + CONFIDENCE) / 2, count - 1) * error
    return mean, max(lowest, mean - half), min(highest, mean + half)


def bootstrap_interval(values: Values, clusters: Sequence | None = None, seed: int = 0) -> tuple[float, float]:
    """95 % percentile interval of the mean, drawing whole clusters with replacement; makes no assumption of shape."""
    values = np.asarray(values, float)
    _, index = np.unique(clusters if clusters is not None else np.arange(len(values)), return_inverse=True)
    sums, sizes = np.bincount(index, weights=values), np.bincount(index)
    draws = np.random.default_rng(seed).integers(0, len(sums), (RESAMPLES, len(sums)))
    means = sums[draws].sum(axis=1) / sizes[draws].sum(axis=1)
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def sign_test(outcomes: Values, clusters: Sequence | None = None) -> float:
    """Two-sided p-value that wins and losses are equally likely; ties, by query where there are clusters, say nothing."""
    from scipy.stats import binomtest

    outcomes = np.asarray(outcomes, float)
    if clusters is not None:
        _, index = np.unique(clusters, return_inverse=True)
        outcomes = 0.5 + 0.5 * np.sign(np.bincount(index, weights=outcomes - 0.5))
    wins, losses = int((outcomes > 0.5).sum()), int((outcomes < 0.5).sum())
    return float(binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0


def length_balanced(outcomes: np.ndarray, differences: np.ndarray) -> float | None:
    """Mean of the win rates among longer responses of the tested model and among the others (paper, section 4.1).

    Args:
      differences: tokens of the tested model's response minus tokens of the baseline's.
    Returns:
      None where one of the two groups is empty.
    """
    longer = np.asarray(differences) > 0
    if longer.all() or not longer.any():
        return None
    return float((np.mean(outcomes[longer]) + np.mean(outcomes[~longer])) / 2)


def length_controlled(outcomes: np.ndarray, differences: np.ndarray) -> float | None:
    """Win rate at equal length, by a logistic regression of the outcome on the difference in length (paper, appendix).

    A tie is half a win and half a loss of equal weight, unless the caller's rule for ties has settled it already.

    Returns:
      None where it cannot be told: all differences equal, or lengths separate wins from losses.
    """
    import statsmodels.api as sm

    outcomes, differences = np.asarray(outcomes, float), np.asarray(differences, float)
    spread = differences.std()
    if not spread or len(set(outcomes)) < 2 or _separates(outcomes, differences):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = sm.GLM(outcomes, sm.add_constant(differences / spread), family=sm.families.Binomial()).fit()
    return float(1 / (1 + math.exp(-fit.params[0])))


def _separates(outcomes: np.ndarray, differences: np.ndarray) -> bool:
    """Whether some length splits the wins from the losses: then the likelihood has no maximum."""
    won, lost = differences[outcomes > 0], differences[outcomes < 1]  # a tie is in both
    return bool(won.min() >= lost.max() or lost.min() >= won.max())


def required_queries(win_rate: float, power: float = 0.8, ties: float = 0.0) -> int:
    """Queries after which a 95 % interval excludes one half with probability `power`, one verdict a query.

    Args:
      win_rate: the true one, ties as half.
      ties: share of verdicts that are ties.
    Raises:
      ValueError: a win rate of one half, which no number of queries shows, or one that so many ties do not allow.
    """
    if win_rate == 0.5 or not ties / 2 <= win_rate <= 1 - ties / 2:
        raise ValueError(f"a win rate of {win_rate} with {ties:.0%} ties cannot be shown")
    deviation = math.sqrt(max(win_rate * (1 - win_rate) - ties / 4, 1e-9))
    count = 2
    # The t quantile depends on the number it determines; it settles in a few rounds.
    for _ in range(20):
        quantiles = _t_quantile((1 + CONFIDENCE) / 2, count - 1) + _t_quantile(power, count - 1)
        count = max(2, math.ceil((quantiles * deviation / (win_rate - 0.5)) ** 2), (count + 1) // 2)
    return count


def _t_quantile(probability: float, degrees: int) -> float:
    return float(scipy.special.stdtrit(degrees, probability))


def bradley_terry(wins: dict[tuple[str, str], float]) -> dict[str, float]:
    """Strengths of several models from their pairwise outcomes, on a scale where a difference d wins with 1 / (1 + exp(-d)).

    Args:
      wins: (winner, loser) -> number of wins; a tie counts half in both directions.
    Returns:
      strength by model, their mean 0 (choix, with a slight prior that keeps undefeated models finite).
    """
    import choix

    names = sorted({name for pair in wins for name in pair})
    matrix = np.zeros((len(names), len(names)))
    for (winner, loser), count in wins.items():
        matrix[names.index(winner), names.index(loser)] += count
    strengths = choix.ilsr_pairwise_dense(matrix, alpha=0.01)
    return dict(zip(names, map(float, strengths - strengths.mean()), strict=True))


def kappa(one: Sequence, other: Sequence) -> tuple[float, float, float]:
    """Cohen's kappa of two raters of the same items, with its 95 % interval (statsmodels)."""
    from statsmodels.stats.inter_rater import cohens_kappa, to_table

    labels = sorted({*one, *other}, key=str)
    if len(labels) < 2:
        return 1.0, 1.0, 1.0
    codes = np.array([[labels.index(a), labels.index(b)] for a, b in zip(one, other, strict=True)])
    table, _ = to_table(codes, bins=np.arange(len(labels) + 1) - 0.5)
    with np.errstate(invalid="ignore"):  # its z value, where one rater never varies
        found = cohens_kappa(table)
    kappa, low, high = (float(getattr(found, name)) for name in ("kappa", "kappa_low", "kappa_upp"))
    return kappa, max(-1.0, low), min(1.0, high)
