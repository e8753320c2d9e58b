"""What is measured of answers, and the sums that are kept of it: of a window, of a reference, of many windows."""

import dataclasses
import math
from collections.abc import Iterable
from typing import NamedTuple

ALL = ""  # the slice of all answers
# Measure -> which way it goes where something goes wrong: -1 down, 1 up, 0 either. Those of every answer first; the others are of the
# answers that were drawn. Each but the length is a share, of an answer 0 or 1 or between.
DIRECTIONS = {
    "length": 0,  # natural logarithm of the characters
    "refusal": 0,  # begins by refusing; a guard that fell is a fault too
    "following": -1,  # of the principles that are stated
    "well_formed": -1,
    "language": -1,  # that of its query
    "repetition": 1,  # of its runs of four words, those that occurred before
    "echo": 1,  # repeats its constitution
}
PRINCIPLE = "principle "  # begins the measure of one principle's following


class Cell(NamedTuple):
    """One measure of one slice."""

    measure: str  # a key of DIRECTIONS, or PRINCIPLE and an id
    slice: str  # ALL, or a tag

    @property
    def direction(self) -> int:
        return DIRECTIONS[self.kind]

    @property
    def kind(self) -> str:
        return "following" if self.principle else self.measure

    @property
    def principle(self) -> str | None:
        """The id of the principle, where it is about one."""
        return self.measure.removeprefix(PRINCIPLE) if self.measure.startswith(PRINCIPLE) else None


@dataclasses.dataclass(slots=True)
class Tally:
    """Answers, and the sums of their values and of the squares of these."""

    count: int = 0
    total: float = 0.0
    squares: float = 0.0

    def add(self, value: float) -> None:
        self.count += 1
        self.total += value
        self.squares += value * value

    @property
    def mean(self) -> float:
        return self.total / self.count if self.count else math.nan

    @property
    def variance(self) -> float:
        """Of the values."""
        return max(0.0, self.squares / self.count - self.mean**2) if self.count else math.nan

    def row(self) -> list[float]:
        """As a file has it."""
        return [self.count, round(self.total, 6), round(self.squares, 6)]


Tallies = dict[Cell, Tally]


def summed(each: Iterable[Tallies]) -> Tallies:
    """All of them in one."""
    found: Tallies = {}
    for tallies in each:
        for cell, tally in tallies.items():
            whole = found.setdefault(cell, Tally())
            whole.count += tally.count
            whole.total += tally.total
            whole.squares += tally.squares
    return found


def as_rows(tallies: Tallies) -> dict[str, dict[str, list[float]]]:
    """Measure -> slice -> a tally."""
    found: dict[str, dict[str, list[float]]] = {}
    for cell, tally in tallies.items():
        found.setdefault(cell.measure, {})[cell.slice] = tally.row()
    return found


def of_rows(rows: dict[str, dict[str, list[float]]]) -> Tallies:
    """The inverse of `as_rows`."""
    return {
        Cell(measure, slice): Tally(int(row[0]), row[1], row[2])
        for measure, slices in rows.items()
        for slice, row in slices.items()
    }
