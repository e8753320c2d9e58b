"""Control limits: what windows may show by chance, and which do not.

Of each cell (a measure of a slice) the answers of the last 1, 2, 4, 8 and 16 windows are set against a reference, twice:

- as answers: a share by the prediction of a beta-binomial (Jeffreys' prior; Aitchison & Dunsmore 1975), which knows that the reference
  is a sample too, takes answers that are no 0 or 1 for as many as they are worth, and answers of a window for as alike as the
  reference's may be (by moments, Kleinman 1973; the upper limit of their chi square); the length, a logarithm, by the prediction of a normal mean (Hahn 1970, Student's t);
- as windows: the prediction of a normal mean from the reference's windows, for these may differ by more than their answers' chance
  does, as weekends do, and how much they do is known from few windows.

The larger p-value counts: neither alone may call an alarm. All p-values of a window are one family, by Holm's method: in a window, whatever
is measured, by however many slices, an alarm comes by chance with a probability of FALSE_ALARMS at most.
"""

import dataclasses
import functools
import math
from collections import deque
from collections.abc import Mapping, Sequence

import numpy as np
import scipy.special

from sami_jax.watch.tally import ALL, Cell, Tallies, Tally, summed

HORIZONS = (1, 2, 4, 8, 16)  # windows that are pooled, up to the present one
FALSE_ALARMS = 0.001  # of a window, by chance, at most
OVER = 0.01  # p-value, by itself, from which on an alarm is over
MOST_SLICES = 20
LEAST = 50  # answers of a slice in the reference; rarer ones are not watched
_SCREEN = OVER  # p-value above which it decides nothing how large it is


@dataclasses.dataclass(frozen=True)
class Reference:
    """What a cell was in the reference.

    Attributes:
      windows: of the reference, those with answers.
      spread: variance of an answer, as it shows between windows.
    """

    cell: Cell
    tally: Tally
    windows: int
    spread: float

    @classmethod
    def of(cls, cell: Cell, windows: Sequence[Tally]) -> "Reference":
        """
        Args:
          windows: at least one with an answer.
        """
        counted = [tally for tally in windows if tally.count]
        whole = summed({cell: tally} for tally in counted)[cell]
        between = sum(tally.count * (tally.mean - whole.mean) ** 2 for tally in counted)
        return cls(cell, whole, len(counted), between / max(len(counted) - 1, 1))

    def p_value(self, now: Tally, horizon: int = 1) -> float:
        """That chance alone would show as much, or more, of what goes wrong.

        Args:
          horizon: windows that `now` is of.
        """
        if not now.count:
            return 1.0
        windows = self._by_windows(now)
        # The other one is wanted where it may decide, and not known beforehand: it takes a thousand times as long.
        return windows if windows > _SCREEN else max(windows, self._by_answers(now, horizon))

    def _by_windows(self, now: Tally) -> float:
        if self.windows < 2 or self.spread <= 0:
            return 0.0
        return self._sided(*_student(self.windows - 1, self._distance(now, self.spread)))

    def _by_answers(self, now: Tally, horizon: int) -> float:
        if not self._share:
            return self._sided(*_student(self.tally.count - 1, self._distance(now, self.tally.variance)))
        from scipy.stats import betabinom

        n, a, b = self._predicted(now.count, horizon)
        low = min(n, math.ceil(now.total / self._worth - 1e-9))
        high = min(n, math.floor(now.total / self._worth + 1e-9))
        return self._sided(float(betabinom.cdf(low, n, a, b)), float(betabinom.sf(high - 1, n, a, b)))

    def _sided(self, low: float, high: float) -> float:
        return {-1: low, 1: high, 0: min(1.0, 2 * min(low, high))}[self.cell.direction]

    def _distance(self, now: Tally, variance: float) -> float:
        """Of the means, in standard errors."""
        error = math.sqrt(max(variance, 1e-12) * (1 / now.count + 1 / self.tally.count))
        return (now.mean - self.tally.mean) / error

    @property
    def _share(self) -> bool:
        return self.cell.measure != "length"

    @property
    def _worth(self) -> float:
        """Answers that tell as much as one 0 or 1 does (Kish's design effect): below 1 where values lie between."""
        worst = self.tally.mean * (1 - self.tally.mean)
        return min(1.0, self.tally.variance / worst) if worst > 1e-12 and self.tally.variance > 1e-12 else 1.0

    @property
    def _alike(self) -> float:
        """Correlation of a window's answers, the most that the reference allows at 95 %: what few windows show of it is rough."""
        size = self.tally.count / self.windows / self._worth
        if self.windows < 2 or size <= 1 or self.tally.variance <= 1e-12:
            return 0.0
        most = (
            (self.windows - 1) / float(scipy.special.chdtri(self.windows - 1, 0.95)) * self.spread / self.tally.variance
        )
        return min(0.999, max(0.0, (most - 1) / (size - 1)))

    def _predicted(self, count: int, horizon: int) -> tuple[int, float, float]:
        """The beta-binomial of so many answers of so many windows: its size and both parameters."""
        happened, whole = self.tally.total / self._worth + 0.5, self.tally.count / self._worth + 1
        alike = self._alike
        # Variances add: of the reference's mean, and of the windows' own.
        own = alike / (horizon * (1 - alike) + alike)
        reference = min(0.999, (1 + alike * (whole / self.windows - 1)) / whole if alike else 1 / (whole + 1))
        both = min(0.999, own + reference)
        size = 1 / both - 1
        mean = min(happened / whole, 1 - 0.5 / whole)
        return max(1, math.floor(count / self._worth)), mean * size, (1 - mean) * size

    def limits(self, count: int, chance: float) -> tuple[float, float]:
        """Between which the mean of so many answers lies but by that chance; on a side that does no harm there is none.

        Returns:
          low, high: shares, or logarithms of lengths.
        """
        direction, each = self.cell.direction, chance / (1 if self.cell.direction else 2)
        lows, highs = [], []

        def add_normal(df: int, variance: float) -> None:
            error = math.sqrt(max(variance, 1e-12) * (1 / count + 1 / self.tally.count))
            half = float(scipy.special.stdtrit(max(df, 1), 1 - each)) * error
            lows.append(self.tally.mean - half)
            highs.append(self.tally.mean + half)

        if self.windows > 1:
            add_normal(self.windows - 1, self.spread)
        if self._share:
            low, high = _share_limits(*self._predicted(count, 1), each)
            lows.append(low)
            highs.append(high)
        else:
            add_normal(self.tally.count - 1, self.tally.variance)
        outer = (0.0, 1.0) if self._share else (-math.inf, math.inf)
        low = max(min(lows), outer[0]) if direction <= 0 else outer[0]
        return low, min(max(highs), outer[1]) if direction >= 0 else outer[1]


def _student(df: int, t: float) -> tuple[float, float]:
    """Both tails."""
    return float(scipy.special.stdtr(max(df, 1), t)), float(scipy.special.stdtr(max(df, 1), -t))


@functools.lru_cache(maxsize=4_096)
def _share_limits(n: int, a: float, b: float, chance: float) -> tuple[float, float]:
    from scipy.stats import betabinom

    return float(betabinom.ppf(chance, n, a, b)) / n, float(betabinom.isf(chance, n, a, b)) / n


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
        frequent = {
            cell.slice: tally.count
            for cell, tally in summed(self.first).items()
            if cell.measure == "length" and cell.slice
        }
        kept = sorted((slice for slice in frequent if frequent[slice] >= LEAST), key=lambda slice: -frequent[slice])
        self.slices = tuple(kept[:MOST_SLICES])
        cells = {cell for tallies in self.first for cell in tallies if cell.slice in (ALL, *self.slices)}
        for cell in sorted(cells):
            self.references[cell] = Reference.of(cell, [tallies[cell] for tallies in self.first if cell in tallies])

    def recent(self, cell: Cell, windows: int) -> Tally:
        """The last windows after the reference, summed."""
        each = [tallies[cell] for tallies in list(self._recent)[-windows:] if cell in tallies]
        return summed({cell: tally} for tally in each).get(cell, Tally())

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
    values = [Reference.of(cell, [measured[cell]]).p_value(live[cell]) for cell in both]
    return [
        Departure(cell, p, 0, live[cell], measured[cell])
        for cell, p, beyond in zip(both, values, holm(values), strict=True)
        if beyond
    ]
