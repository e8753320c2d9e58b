"""The watch: answers into windows, windows against their limits, alarms and files out of them."""

import dataclasses
import re
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from pathlib import Path

from sami_jax.data.fields import BadRow
from sami_jax.errors import UserError
from sami_jax.ground import stopping
from sami_jax.watch.alarm import FIRST, MEASURED, Alarm, Examples, stamp, value_of
from sami_jax.watch.control import HORIZONS, Control, Departure, against
from sami_jax.watch.evaluated import comparable
from sami_jax.watch.journal import Journal, Made
from sami_jax.watch.lines import Answer, read_line
from sami_jax.watch.logs import Line, PassedOver
from sami_jax.watch.measuring import Measuring
from sami_jax.watch.tally import ALL, Tallies, as_rows, of_rows
from sami_jax.watch.window import Window

SHOWN_WINDOWS, SHOWN_ALARMS = 500, 20  # of the page: the last ones
LATE = 60.0  # seconds after its end that a window of a log that is followed waits for answers
_SPAN = re.compile(r"(\d{1,9})([smhdw]?)")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


@dataclasses.dataclass(frozen=True)
class Span:
    """How long a window is: so many answers, or so many seconds; the other is 0."""

    answers: int = 0
    seconds: int = 0

    @classmethod
    def read(cls, text: str) -> "Span":
        """
        Raises:
          UserError: neither a number of answers nor a time.
        """
        found = _SPAN.fullmatch(text.strip())
        number = int(found[1]) if found else 0
        if not found or not number:
            raise UserError(f"--window {text}: neither a number of answers, as 2000, nor a time, as 30m, 6h, 1d or 1w")
        return cls(seconds=number * _SECONDS[found[2]]) if found[2] else cls(answers=number)

    def __str__(self) -> str:
        return f"{self.seconds}s" if self.seconds else str(self.answers)


@dataclasses.dataclass(frozen=True)
class Seen:
    """A window that is over, as the page shows it."""

    number: int
    begins: float | None
    answers: int
    tallies: Tallies  # of all answers; slices aside


class Watch:
    """Goes on where an earlier call in the same folder ended: answers up to its last window's are passed over."""

    def __init__(
        self,
        folder: Path,
        span: Span,
        made: Made,
        measuring: Measuring,
        examples: Examples,
        measured: Tallies,
        refusals: Sequence[str],
    ):
        """
        Args:
          measured: by the run's own evaluation; {} where there is none.
        Raises:
          UserError: the folder's watch.jsonl was made otherwise.
        """
        self.control, self.measured = Control(made.first), measured
        self.seen: deque[Seen] = deque(maxlen=SHOWN_WINDOWS)
        self.shown: deque[Alarm] = deque(maxlen=SHOWN_ALARMS)
        self.alarms: list[Alarm] = []  # the first of this call, SHOWN_ALARMS at most
        self.windows = self.answers = self.alarmed = 0  # of all calls
        self.passed, self.noted = PassedOver(), Counter[str]()
        self._span, self._made, self._measuring, self._examples, self._refusals = (
            span,
            made,
            measuring,
            examples,
            refusals,
        )
        self._journal, self._until, self._over, self._latest = Journal(folder, made), 0.0, 0.0, 0.0
        self._begins: deque[tuple[int, str | None]] = deque(maxlen=max(HORIZONS))
        for row in self._journal.rows():
            self._replay(row)
        self._window, self._end = self._next(), 0.0

    def _replay(self, row: dict) -> None:
        tallies = of_rows(row["cells"])
        self.control.take(tallies)
        self._count(row["window"], row.get("from"), row["answers"], tallies)
        found = [Alarm.read(one) for one in row["alarms"]]
        self.shown.extend(found)
        self.alarmed += len(found)
        self._until = row.get("until") or self._until

    def _next(self) -> Window:
        return Window(self.windows + 1, self._made.sample, self.control.slices, self._refusals, self._made.seed)

    def watch(self, lines: Iterator[Line | None]) -> Iterator[list[Alarm]]:
        """Yields the alarms of each window as it ends, none mostly."""
        for line in lines:
            stopping.check()
            now = time.time()
            if line is None:
                if self._end and now > self._end + LATE and self._window.answers:
                    yield self._close()
            elif (answer := self._read(line, now)) is not None:
                if self._end and answer.time is not None and answer.time >= self._end:
                    if self._window.answers:
                        yield self._close()
                    self._end = 0.0
                if self._span.seconds and not self._end and answer.time is not None:
                    self._end = (answer.time // self._span.seconds + 1) * self._span.seconds
                self._window.add(answer)
                if self._window.answers == self._span.answers:
                    yield self._close()
        if self._end and time.time() > self._end + LATE and self._window.answers:
            yield self._close()

    @property
    def unfinished(self) -> int:
        """Answers of a window that has not ended."""
        return self._window.answers

    def _read(self, line: Line, now: float) -> Answer | None:
        """The answer of a line; None where it is passed over."""
        reason = line.fault
        try:
            answer = read_line(line.content, now) if line.content is not None else None
        except BadRow as bad:
            answer, reason = None, bad.reason
        if answer is not None:
            reason = self._unusable(answer)
        if answer is None or reason:
            self.passed.add(reason, line.file, line.number)
            return None
        answer.place = line.file, line.number
        return answer

    def _unusable(self, answer: Answer) -> str:
        """Why an answer belongs to no window that is open; "" where it does."""
        if answer.time is None:
            if self._span.seconds:
                return "no time, which windows by time need"
            self.noted["without a time"] += 1
            return ""
        if self._until and answer.time <= self._until:
            return "watched before"
        if answer.time < self._over or (self._end and answer.time < self._end - self._span.seconds):
            return "too late for its window"
        if answer.time < self._latest:
            self.noted["earlier than one before it"] += 1
        self._latest = max(self._latest, answer.time)
        return ""

    def _close(self) -> list[Alarm]:
        window = self._window
        tallies = window.measured(self._measuring)
        was_ready = self.control.ready
        departures = self.control.take(tallies)
        begins = self._end - self._span.seconds if self._end else window.first
        self._count(window.number, begins, window.answers, tallies)
        alarms = [self._alarm(departure, window, FIRST) for departure in departures]
        if self.control.ready and not was_ready:
            live = {cell: reference.tally for cell, reference in self.control.references.items()}
            late = against(self.measured, live, comparable(self.measured))
            alarms += [self._alarm(departure, window, MEASURED) for departure in sorted(late, key=lambda one: one.p)]
        # A window by time is over for good; one by count ends with its last answer.
        until = self._end - 1e-6 if self._end else window.last
        row = {
            "window": window.number,
            "from": begins,
            "until": until,
            "begins": stamp(begins),
            "answers": window.answers,
        }
        row |= {"drawn": len(window.drawn), "cells": as_rows(tallies), "alarms": [alarm.record() for alarm in alarms]}
        self._journal.add(row)
        self.shown.extend(alarms)
        self.alarmed += len(alarms)
        self.alarms += alarms[: SHOWN_ALARMS - len(self.alarms)]
        self._window, self._over, self._end = self._next(), self._end, 0.0
        return alarms

    def _count(self, number: int, begins: float | None, answers: int, tallies: Tallies) -> None:
        self.windows, self.answers = number, self.answers + answers
        whole = {cell: tally for cell, tally in tallies.items() if cell.slice == ALL}
        self.seen.append(Seen(number, begins, answers, whole))
        self._begins.append((number, stamp(begins)))

    def _alarm(self, departure: Departure, window: Window, compared: str) -> Alarm:
        since, since_time = self._begins[-departure.horizon] if departure.horizon else (1, None)
        cell = departure.cell
        return Alarm(
            cell.measure,
            cell.slice,
            value_of(cell, departure.now.mean),
            value_of(cell, departure.before.mean),
            departure.p,
            window.number,
            since,
            since_time,
            compared,
            self._examples.of(departure, window),
        )
