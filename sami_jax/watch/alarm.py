"""An alarm: which measure, of which slice, since when, and answers that show it."""

import dataclasses
import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sami_jax.ground.redaction import MASK, redact
from sami_jax.principles.checks.patterns import replaced
from sami_jax.watch.control import Departure
from sami_jax.watch.lines import Answer
from sami_jax.watch.tally import Cell
from sami_jax.watch.texts import words
from sami_jax.watch.window import Window

EXAMPLES = 3
LONGEST, IN_LINE = 600, 60  # characters that are kept of a text, and that a line shows
FIRST, MEASURED = "first windows", "evaluation"  # what an alarm compares with


@dataclasses.dataclass(frozen=True)
class Example:
    """An answer; where numbers alone are kept, only its place and time."""

    place: str
    time: str | None
    query: str = ""
    response: str = ""


@dataclasses.dataclass(frozen=True)
class Alarm:
    """One cell that left its limits.

    Attributes:
      value: what it is now; a share, or of the length the geometric mean, characters.
      since: number of the first window that shows it, and its beginning.
      against: FIRST or MEASURED.
    """

    measure: str
    slice: str
    value: float
    before: float
    p: float
    window: int
    since: int
    since_time: str | None
    against: str
    examples: tuple[Example, ...]

    @property
    def cell(self) -> Cell:
        return Cell(self.measure, self.slice)

    @property
    def line(self) -> str:
        """In one line, in English."""
        told = f"{self.what} {'since the first window' if self.against == MEASURED else self._since}"
        shown = [" ".join(filter(None, (one.place, _quoted(one.response)))) for one in self.examples]
        return told + (f"; for example {', '.join(shown)}" if shown else "")

    @property
    def what(self) -> str:
        """Without the time and the examples."""
        verb = "rose" if self.value > self.before else "fell"
        after = " in the run's evaluation" if self.against == MEASURED else ""
        name = f"{words.measure(self.cell)}, {self.slice or 'all answers'}"
        if self.against == MEASURED:
            return f"{name}: {words.value(self.cell, self.value)}, but {words.value(self.cell, self.before)}{after}"
        return f"{name}: {verb} from {words.value(self.cell, self.before)} to {words.value(self.cell, self.value)}"

    @property
    def _since(self) -> str:
        return f"since window {self.since}" + (f" ({self.since_time})" if self.since_time else "")

    def record(self) -> dict:
        """As watch.jsonl and the webhook have it."""
        return dataclasses.asdict(self) | {"p": float(f"{self.p:.3g}"), "line": self.line}

    @classmethod
    def read(cls, row: dict) -> "Alarm":
        """The inverse of `record`."""
        given: dict[str, Any] = {field.name: row[field.name] for field in dataclasses.fields(cls)}
        given["examples"] = tuple(Example(**one) for one in row["examples"])
        return cls(**given)


def _quoted(text: str) -> str:
    text = " ".join(text.split())
    return f'"{text[:IN_LINE]}{"..." if len(text) > IN_LINE else ""}"' if text else ""


def value_of(cell: Cell, mean: float) -> float:
    """A mean as people are told it."""
    return round(math.exp(mean) - 1, 2) if cell.measure == "length" else round(mean, 6)


def stamp(seconds: float | None) -> str | None:
    """A time as ISO 8601, UTC."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


class Examples:
    """Picks answers, and takes from their texts what must not be kept."""

    def __init__(self, patterns: Sequence[str], numbers_only: bool):
        """
        Args:
          patterns: what they find is masked.
          numbers_only: whether no text is kept at all.
        """
        self._patterns, self._numbers_only = patterns, numbers_only

    def of(self, departure: Departure, window: Window) -> tuple[Example, ...]:
        """Answers of the window that show the departure most."""
        cell, falls = departure.cell, departure.now.mean < departure.before.mean
        if cell.measure == "refusal":
            chosen = [] if falls else window.refused.get(cell.slice, [])
        else:
            valued = []
            for answer, values in zip(window.drawn, window.values, strict=True):
                value = len(answer.response) if cell.measure == "length" else values.get(cell.measure)
                if value is not None and (not cell.slice or cell.slice in answer.slices):
                    valued.append((value if falls else -value, answer))
            worst = sorted(valued, key=lambda pair: pair[0])[:EXAMPLES]
            harmless = 1.0 if falls else 0.0
            chosen = [answer for value, answer in worst if cell.measure == "length" or value != harmless]
        return tuple(self._example(answer) for answer in chosen[:EXAMPLES])

    def _example(self, answer: Answer) -> Example:
        place = "{}:{}".format(*answer.place)
        if self._numbers_only:
            return Example(place, stamp(answer.time))
        return Example(place, stamp(answer.time), _cut(self.masked(answer.query)), _cut(self.masked(answer.response)))

    def masked(self, text: str) -> str:
        """Without secrets, and without what the patterns find."""
        text = text.encode("utf-8", "replace").decode("utf-8")
        for pattern in self._patterns:
            text = replaced(pattern, text, MASK)
        return redact(text).strip()


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else text[:LONGEST] + "..."
