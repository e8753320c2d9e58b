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
Z = float(scipy.special.ndtri((1 + CONFIDENCE) / 2))


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
    """Mean and its 95 % interval, which is never of width zero: docs/judging.md has how often it covers the truth.

    Of values with bounds it is Wilson's, of as many independent values as the given ones are worth (Kish's effective sample size;
    Dean & Pagano 2015): fewer where values of a cluster are alike, more where ties are many. Of others it is the t interval with a
    variance clustered by query (Cameron & Miller 2015).

    Args:
      clusters: which values belong together; None: none do.
      bounds: the range the values can have; None: any.
    Returns:
      mean, low, high: the whole range where nothing shows how much values differ, as with a single cluster.
    Raises:
      ValueError: no values.
    """
    values = np.asarray(values, float)
    if not len(values):
        raise ValueError("no values")
    mean = float(values.mean())
    _, index = np.unique(clusters if clusters is not None else np.arange(len(values)), return_inverse=True)
    count = int(index.max()) + 1
    lowest, highest = bounds or (-math.inf, math.inf)
    if count == 1 or (bounds is None and not np.ptp(values)):
        return mean, lowest, highest
    if bounds is None:
        residuals = np.bincount(index, weights=values - mean)
        error = math.sqrt(count / (count - 1) * float(residuals @ residuals)) / len(values)
        half = float(scipy.special.stdtrit(count - 1, (1 + CONFIDENCE) / 2)) * error
        return mean, mean - half, mean + half
    share = (mean - lowest) / (highest - lowest)
    worth = _effective_size((values - lowest) / (highest - lowest), index)
    low, high = _lower_limit(share, worth), 1 - _lower_limit(1 - share, worth)
    return mean, lowest + low * (highest - lowest), lowest + high * (highest - lowest)


def _effective_size(shares: np.ndarray, index: np.ndarray) -> float:
    """How many independent wins and losses tell as much of the mean as these values from 0 to 1.

    The variance of the mean, by cluster, is set against that of so many wins and losses. One more win and one more loss, which
    count as alike as a cluster's values, enter both: where all values are 1, clusters are then what counts, and never is the
    variance 0. Independent wins and losses are worth their number, exactly.
    """
    sizes, sums = np.bincount(index), np.bincount(index, weights=shares)
    values, count = len(shares), len(sizes)
    size = values / count
    centre = (float(sums.sum()) + 1) / (values + 2)
    residuals = sums - centre * sizes
    squares = float(residuals @ residuals) + size * ((1 - centre) ** 2 + centre**2)
    independent = centre * (1 - centre) * (values + 2)
    # What few clusters show of their own variance is too little, by count / (count - 1) where clusters are large.
    few = 1 + (1 - 1 / size) / (count - 1)
    return values * independent / (squares * few)


def _lower_limit(share: float, size: float) -> float:
    """Wilson's lower limit (1927) of a share of `size` independent values.

    Where a single value or less is not 0, Poisson's, as Brown, Cai & DasGupta (2001, section 4.1.1) have it: Wilson's covers there
    in 84 of 100 cases.
    """
    if share <= 0:
        return 0.0
    middle, half = share + Z**2 / (2 * size), Z * math.sqrt(share * (1 - share) / size + Z**2 / (4 * size**2))
    limit = (middle - half) / (1 + Z**2 / size)
    if share * size < 1.5:
        limit = min(limit, float(scipy.special.gammaincinv(share * size, 1 - CONFIDENCE)) / size)
    return limit


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


def required_queries(gain: float, margin: float = 0.0, ties: float = 0.0, power: float = 0.8) -> int:
    """Queries after which `compare.decide` ships a model with probability `power` or more, one verdict a query.

    The normal approximation of its three conditions, with Fleiss' correction for steps of a rate (1 / gain queries; Fleiss, Tytun
    & Ury 1980) twice, since the sign test is exact. Several verdicts a query are worth more than one.

    Args:
      gain: the true win rate, ties as half, less one half.
      margin: the gain that the rate must show.
      ties: share of verdicts that are ties.
    Raises:
      ValueError: a gain that no number of queries shows so often, or one that so many ties do not allow.
    """
    rate = 0.5 + gain
    if not margin < gain <= 0.5 - ties / 2 + 1e-9:
        raise ValueError(f"a gain of {gain} with a margin of {margin} and {ties:.0%} ties cannot be shown")
    variance = max(rate * (1 - rate) - ties / 4, 1e-9)
    missed = float(scipy.special.ndtri(power))
    # Wilson's interval excludes one half by the variance at one half.
    shown = Z / (2 * math.sqrt(rate * (1 - rate))) if rate < 1 else 0.0
    count = variance * max((shown + missed) / gain, missed / (gain - margin)) ** 2
    return math.ceil(count + 2 / gain)


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
        return 1.0, -1.0, 1.0  # one label throughout: chance would agree as well
    codes = np.array([[labels.index(a), labels.index(b)] for a, b in zip(one, other, strict=True)])
    table, _ = to_table(codes, bins=np.arange(len(labels) + 1) - 0.5)
    with np.errstate(invalid="ignore"):  # its z value, where one rater never varies
        found = cohens_kappa(table)
    agreed, low, high = (float(getattr(found, name)) for name in ("kappa", "kappa_low", "kappa_upp"))
    if low == high:  # where all agree, the standard error is 0: the limits are then those of the agreement
        chance = float(table.sum(axis=0) @ table.sum(axis=1) / table.sum() ** 2)
        low, high = ((end - chance) / (1 - chance) for end in mean_interval(codes[:, 0] == codes[:, 1])[1:])
    return agreed, max(-1.0, low), min(1.0, high)
