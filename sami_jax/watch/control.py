"""Control limits: what windows may show by chance, and which do not.

Of each cell (a measure of a slice) the answers of the last 1, 2, 4, ... and 32 windows are set against a reference: a share by the
prediction of a beta-binomial (Jeffreys' prior; Aitchison & Dunsmore 1975), the length, a logarithm, by that of a normal mean (Student's
t; Hahn 1970). Both know that the reference is a sample too.

Windows may differ by more than their answers' chance does, as nights and weekends do. How much is told by the chi square of the
reference's windows around their mean, a cell's own drawn towards that of all cells of the measure as far as these differ by chance
alone (empirical Bayes: Smyth 2004). The beta-binomial takes answers of a window for as alike as that means (by moments; Kleinman 1973), the normal mean has its variance
multiplied by it (as in Laney's p' chart, 2002). That dispersion is an estimate too: its degrees of freedom make Student's t of what
would be normal, as tests by quasi-likelihood do (McCullagh & Nelder 1989).

Windows beside each other may be alike, as those of one night are; then the mean of several varies more than that of as many independent
ones. By how much is told by the variance of Newey & West (1987; statsmodels) over the windows that are pooled, freed of what the
estimated mean takes from it (as of overlapping batch means: Meketon & Schmeiser 1984): of the cells of all measures together, or of the
measure's own where these are beyond what chance makes of the others (two standard errors: Bartlett's weights leave 4/3 of the pooled
windows' share as its variance; Priestley 1981, section 6.2).

All p-values of a window are one family, by Holm's method: in a window, whatever is measured, by however many slices, an alarm comes by
chance with a probability of FALSE_ALARMS at most.
"""

import dataclasses
import functools
import math
from collections import deque
from collections.abc import Mapping, Sequence

import numpy as np
import scipy.special

from sami_jax.watch.tally import ALL, Cell, Tallies, Tally, summed

HORIZONS = (1, 2, 4, 8, 16, 32)  # windows that are pooled, up to the present one
FALSE_ALARMS = 0.001  # of a window, by chance, at most
OVER = 0.01  # p-value, by itself, from which on an alarm is over
MOST_SLICES = 20
LEAST = 50  # answers of a slice in the reference; rarer ones are not watched
NORMAL = 100  # answers from which on the mean length is held against a normal's limits: a few that are cut off or refuse make less skewed
_SCREEN = 2.0  # standard errors below which nobody needs the exact value, which takes a thousand times as long


@dataclasses.dataclass(frozen=True)
class Reference:
    """What a cell was in the reference.

    Attributes:
      windows: of the reference, those with answers.
      dispersion: how much more the windows' means vary than those of as many independent answers do; at least 1.
      df: degrees of freedom of that estimate.
      persistence: at each of HORIZONS, how much more the mean of so many windows varies than that of independent ones; at least 1.
    """

    cell: Cell
    tally: Tally
    windows: int = 1
    dispersion: float = 1.0
    df: float = math.inf
    persistence: tuple[float, ...] = (1.0,) * len(HORIZONS)

    def p_value(self, now: Tally, horizon: int = 1) -> float:
        """That chance alone would show as much, or more, of what goes wrong.

        Args:
          horizon: windows that `now` is of.
        """
        if not now.count or (not self._share and now.count < NORMAL):
            return 1.0
        far = (now.mean - self.tally.mean) / self._error(now.count, horizon)
        towards = far * self.cell.direction if self.cell.direction else abs(far)
        if towards < _SCREEN and (not self._share or self._expected(now.count) > 1 or self._harmless(far)):
            return min(1.0, float(scipy.special.ndtr(-towards)) * (1 if self.cell.direction else 2))
        low, high = self._tails(now, horizon, far)
        return {-1: low, 1: high, 0: min(1.0, 2 * min(low, high))}[self.cell.direction]

    def _tails(self, now: Tally, horizon: int, far: float) -> tuple[float, float]:
        """P(mean <= the present one), P(mean >= it)."""
        if not self._share:
            return float(scipy.special.stdtr(self._df, far)), float(scipy.special.stdtr(self._df, -far))
        from scipy.stats import betabinom

        n, a, b = self._predicted(now.count, horizon)
        low = min(n, math.ceil(now.total / self._worth - 1e-9))
        high = min(n, math.floor(now.total / self._worth + 1e-9))
        exact = betabinom.cdf(low, n, a, b), betabinom.sf(high - 1, n, a, b)
        low, high = (float(scipy.special.stdtr(self._df, scipy.special.ndtri(p))) for p in exact)
        return low, high

    def _error(self, count: int, horizon: int) -> float:
        """Standard error of the difference between the reference's mean and that of so many answers of so many windows."""
        each = self._dispersed(horizon) / count + self._dispersed(HORIZONS[-1]) / self.tally.count
        return math.sqrt(max(self.tally.variance, 1e-12) * each)

    def _dispersed(self, horizon: int) -> float:
        """How much more the mean of so many windows varies than that of as many independent answers."""
        return self.dispersion * self.persistence[HORIZONS.index(horizon)]

    @property
    def _df(self) -> float:
        """Of what is Student's t; of a length, the answers' variance is an estimate too."""
        return self.df if self._share else min(self.df, max(self.tally.count - 1, 1))

    def _expected(self, count: int) -> float:
        """Of the rarer of both outcomes."""
        return min(self.tally.mean, 1 - self.tally.mean) * count

    def _harmless(self, far: float) -> bool:
        """Whether a share is on the side of the reference where nothing goes wrong; none of what is rare is never too few."""
        return far * self.cell.direction <= 0 if self.cell.direction else (far <= 0) == (self.tally.mean < 0.5)

    @property
    def _share(self) -> bool:
        return self.cell.measure != "length"

    @property
    def _worth(self) -> float:
        """Answers that tell as much as one 0 or 1 does (Kish's design effect): below 1 where values lie between."""
        worst = self.tally.mean * (1 - self.tally.mean)
        return min(1.0, self.tally.variance / worst) if worst > 1e-12 and self.tally.variance > 1e-12 else 1.0

    def _predicted(self, count: int, horizon: int) -> tuple[int, float, float]:
        """The beta-binomial of so many answers of so many windows: its size and both parameters."""
        whole = self.tally.count / self._worth + 1
        size = whole / self.windows
        dispersed, lasting = self._dispersed(horizon), self._dispersed(HORIZONS[-1])
        alike = min(0.999, (dispersed - 1) / (size - 1)) if size > 1 else 0.0  # correlation of a window's answers
        # Variances add, as shares of that of one answer: the windows' own, and the reference's.
        own = alike / (horizon * (1 - alike) + alike)
        both = min(0.999, own + lasting / (whole + lasting))
        mean = (self.tally.total / self._worth + 0.5) / whole
        mean = min(mean, 1 - 0.5 / whole)
        return max(1, math.floor(count / self._worth)), mean * (1 / both - 1), (1 - mean) * (1 / both - 1)

    def limits(self, count: int, chance: float) -> tuple[float, float]:
        """Between which the mean of so many answers of a window lies but by that chance; on a side that does no harm there is none.

        Returns:
          low, high: shares, or logarithms of lengths.
        """
        each = chance / (1 if self.cell.direction else 2)
        far = float(scipy.special.stdtrit(self._df, each))
        if self._share:
            low, high = _share_limits(*self._predicted(count, 1), float(scipy.special.ndtr(far)))
        else:
            half = -far * self._error(count, 1)
            low, high = self.tally.mean - half, self.tally.mean + half
        outer = (0.0, 1.0) if self._share else (-math.inf, math.inf)
        return low if self.cell.direction <= 0 else outer[0], high if self.cell.direction >= 0 else outer[1]


@functools.lru_cache(maxsize=4_096)
def _share_limits(n: int, a: float, b: float, chance: float) -> tuple[float, float]:
    from scipy.stats import betabinom

    return float(betabinom.ppf(chance, n, a, b)) / n, float(betabinom.isf(chance, n, a, b)) / n


def references(windows: Sequence[Tallies], cells: Sequence[Cell]) -> dict[Cell, Reference]:
    """What each cell was in these windows, at least one of which has answers of it."""
    whole = summed(windows)
    far = {cell: _residuals([tallies.get(cell) for tallies in windows], whole[cell]) for cell in cells}
    found, lasting = {}, _persistence(list(far.values()), len(windows))
    for kind in {cell.kind for cell in cells}:
        alike = [cell for cell in cells if cell.kind == kind]
        persistence = _own_or_common([far[cell] for cell in alike], len(windows), lasting)
        own = [_own(far[cell]) for cell in alike]
        prior = _prior([one for one in own if one[0] > 0])
        for cell, (dispersion, df) in zip(alike, own, strict=True):
            moderated = _moderated(dispersion, df, *prior)
            found[cell] = Reference(cell, whole[cell], df + 1, max(1.0, moderated[0]), moderated[1], persistence)
    return {cell: found[cell] for cell in cells}


def _residuals(tallies: Sequence[Tally | None], whole: Tally) -> list[float | None]:
    """Of each window, how far its mean is from that of all, in standard errors of independent answers; None: no answers."""
    scale = math.sqrt(whole.variance) if whole.variance > 1e-12 else math.inf
    return [math.sqrt(one.count) * (one.mean - whole.mean) / scale if one and one.count else None for one in tallies]


def _own(far: Sequence[float | None]) -> tuple[float, int]:
    """A cell's own dispersion and its degrees of freedom; 0 where it has none, or all its windows are alike."""
    told = [one for one in far if one is not None]
    df = len(told) - 1
    return (sum(one**2 for one in told) / df if df else 0.0), df


def _prior(own: Sequence[tuple[float, int]]) -> tuple[float, float]:
    """What the cells' dispersions vary around and with how many degrees of freedom, by moments of their logarithms (Smyth 2004, section
    6.2); chance says nothing where there is no cell."""
    if not own:
        return 1.0, math.inf
    half = np.array([df / 2 for _, df in own])
    logs = np.log([dispersion for dispersion, _ in own]) - scipy.special.digamma(half) + np.log(half)
    beyond_chance = logs.var(ddof=1) - scipy.special.polygamma(1, half).mean() if len(own) > 1 else 0.0
    if beyond_chance <= 1e-6:
        return float(np.exp(logs.mean())), math.inf
    from scipy.optimize import brentq

    of = float(brentq(lambda half: scipy.special.polygamma(1, half) - beyond_chance, 1e-4, 1e7))  # pyright: ignore[reportArgumentType]
    return float(np.exp(logs.mean() + scipy.special.digamma(of) - math.log(of))), 2 * of


def _moderated(own: float, df: int, prior: float, prior_df: float) -> tuple[float, float]:
    """A dispersion drawn towards the prior, and its degrees of freedom."""
    if math.isinf(prior_df):
        return prior, math.inf
    return (prior_df * prior + df * own) / (prior_df + df), prior_df + df


def _persistence(far: Sequence[Sequence[float | None]], windows: int) -> tuple[float, ...]:
    """At each of HORIZONS, as `Reference` has it; of half of the windows at most, which is what they can tell of."""
    from statsmodels.stats.sandwich_covariance import S_hac_simple

    series = [np.array([one or 0.0 for one in each]) for each in far if any(each)]
    alone = sum(float(each @ each) for each in series)
    found = []
    for horizon in HORIZONS:
        pooled = min(horizon, windows // 2)
        if pooled < 2 or not alone:
            found.append(1.0)
            continue
        together = sum(S_hac_simple(each[:, None], nlags=pooled - 1).item() for each in series)
        found.append(max(1.0, together / alone * (windows - 1) / (windows - pooled)))
    return tuple(found)


def _own_or_common(far: Sequence[Sequence[float | None]], windows: int, common: tuple[float, ...]) -> tuple[float, ...]:
    """Persistence of some cells: their own where chance does not explain how far it is above that of all."""
    own, series = _persistence(far, windows), sum(map(any, far))
    error = [math.sqrt(4 / 3 * min(horizon, windows // 2) / (windows * max(1, series))) for horizon in HORIZONS]
    return tuple(
        one if one > each * (1 + 2 * relative) else each for one, each, relative in zip(own, common, error, strict=True)
    )


@dataclasses.dataclass(frozen=True)
class Departure:
    """A cell that is beyond its limits."""

    cell: Cell
    p: float
    horizon: int  # windows, up to the present one, that show it best
    now: Tally  # of these
    before: Tally  # of the reference


class Control:
    """The reference, and the last windows beside it."""

    def __init__(self, windows: int):
        """
        Args:
          windows: of the reference.
        """
        self.wanted = windows
        self.first: list[Tallies] = []
        self.references: dict[Cell, Reference] = {}
        self.slices: tuple[str, ...] | None = (
            None  # those that are watched, the most frequent first; None: not known yet
        )
        self.standing: set[Cell] = set()
        self._recent: deque[Tallies] = deque(maxlen=max(HORIZONS))

    @property
    def ready(self) -> bool:
        """Whether the reference is complete."""
        return self.slices is not None

    @property
    def tests(self) -> int:
        """P-values of a window."""
        return max(1, len(self.references) * len(HORIZONS))

    def take(self, tallies: Tallies) -> list[Departure]:
        """The next window. Returns what is newly beyond its limits, what is least likely by chance first."""
        if not self.ready:
            self.first.append(tallies)
            if len(self.first) == self.wanted:
                self._complete()
            return []
        self._recent.append(tallies)
        found = [self._tested(cell, reference) for cell, reference in self.references.items()]
        beyond = holm([p for tested in found for p, _, _ in tested])
        new, standing, place = [], set(), 0
        for (cell, reference), tested in zip(self.references.items(), found, strict=True):
            rejected = any(beyond[place : place + len(tested)])
            place += len(tested)
            p, horizon, now = min(tested, key=lambda one: one[0])
            if rejected and cell not in self.standing:
                new.append(Departure(cell, p, horizon, now, reference.tally))
            if rejected or (cell in self.standing and p < OVER):
                standing.add(cell)
        self.standing = standing
        return sorted(new, key=lambda one: one.p)

    def _complete(self) -> None:
        counts = {cell.slice: tally.count for cell, tally in summed(self.first).items() if cell.measure == "length"}
        whole = counts[ALL]
        # A tag that all answers have tells nothing more than all answers do.
        kept = [slice for slice, count in counts.items() if LEAST <= count < whole]
        self.slices = tuple(sorted(kept, key=lambda slice: -counts[slice])[:MOST_SLICES])
        cells = {cell for tallies in self.first for cell in tallies if cell.slice in (ALL, *self.slices)}
        self.references = references(self.first, sorted(cells))

    def recent(self, cell: Cell) -> Tally:
        """The last windows after the reference, summed; the reference where there are none."""
        if not self._recent:
            return self.references[cell].tally if cell in self.references else Tally()
        return summed({cell: tallies[cell]} for tallies in self._recent if cell in tallies).get(cell, Tally())

    def _tested(self, cell: Cell, reference: Reference) -> list[tuple[float, int, Tally]]:
        """P-value, horizon and tally at each horizon that there are windows for."""
        whole, found = Tally(), []
        for back, tallies in enumerate(reversed(self._recent), start=1):
            if tally := tallies.get(cell):
                whole = Tally(whole.count + tally.count, whole.total + tally.total, whole.squares + tally.squares)
            if back in HORIZONS:
                found.append((reference.p_value(whole, back), back, whole))
        return found


def holm(p_values: Sequence[float], chance: float = FALSE_ALARMS) -> Sequence[bool]:
    """Which of a family are beyond chance (statsmodels)."""
    if not len(p_values):
        return []
    if min(p_values) > chance / len(p_values):
        return [False] * len(p_values)  # as nearly always: Holm begins with the smallest
    from statsmodels.stats.multitest import multipletests

    return multipletests(np.asarray(p_values), alpha=chance, method="holm")[0].tolist()


def against(measured: Mapping[Cell, Tally], live: Mapping[Cell, Tally], cells: Sequence[Cell]) -> list[Departure]:
    """Those of the cells in which the reference itself is beyond what was measured before the launch."""
    both = [cell for cell in cells if measured.get(cell, Tally()).count > 1 and live.get(cell, Tally()).count]
    values = [Reference(cell, measured[cell]).p_value(live[cell]) for cell in both]
    return [
        Departure(cell, p, 0, live[cell], measured[cell])
        for cell, p, beyond in zip(both, values, holm(values), strict=True)
        if beyond
    ]
