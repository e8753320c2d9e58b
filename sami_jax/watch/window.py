"""One window of answers: what is counted of each, and the sample that is drawn for what takes longer."""

import math
import random
from collections.abc import Collection, Sequence

from sami_jax.evaluation.signs import refuses
from sami_jax.watch.lines import Answer
from sami_jax.watch.measuring import Measuring, Values
from sami_jax.watch.tally import ALL, Cell, Tallies, Tally

MOST_SLICES = 200  # tags that are counted while it is not known yet which of them are frequent


class Window:
    """Memory grows with the sample, not with the answers."""

    def __init__(self, number: int, sample: int, slices: Collection[str] | None, refusals: Sequence[str], seed: int):
        """
        Args:
          number: from 1.
          sample: answers that are drawn, at most (reservoir sampling, Vitter 1985, algorithm R).
          slices: the tags that are watched; None: the first MOST_SLICES that come.
          refusals: texts that mark a refusal.
        """
        self.number, self.answers = number, 0
        self.first: float | None = None  # earliest and latest time of an answer
        self.last: float | None = None
        self.drawn: list[Answer] = []
        self.refused: dict[str, list[Answer]] = {}  # by slice, the first few
        self.values: list[Values] = []  # of the drawn
        self._sample, self._slices, self._refusals = sample, slices, refusals
        self._random = random.Random(f"{seed}/watch/{number}")
        self._counted: dict[str, tuple[Tally, Tally]] = {ALL: (Tally(), Tally())}  # by slice: length, refusal

    def add(self, answer: Answer) -> None:
        self.answers += 1
        if (time := answer.time) is not None:
            if self.first is None or time < self.first:
                self.first = time
            if self.last is None or time > self.last:
                self.last = time
        length, refusal = math.log(1 + len(answer.response)), refuses(answer.response, self._refusals)
        for slice in (ALL, *answer.slices):
            counted = self._counted.get(slice)
            if counted is None:
                if slice not in self._slices if self._slices is not None else len(self._counted) > MOST_SLICES:
                    continue
                counted = self._counted[slice] = (Tally(), Tally())
            counted[0].add(length)
            counted[1].add(refusal)
            if refusal and len(examples := self.refused.setdefault(slice, [])) < 3:
                examples.append(answer)
        if len(self.drawn) < self._sample:
            self.drawn.append(answer)
        elif (place := int(self._random.random() * self.answers)) < self._sample:
            self.drawn[place] = answer

    def measured(self, measuring: Measuring) -> Tallies:
        """What it adds up to."""
        self._random.shuffle(self.drawn)  # a judge may be asked about the first of them alone
        self.values = measuring.values(self.drawn)
        found = {
            Cell(name, slice): tally
            for slice, pair in self._counted.items()
            for name, tally in zip(("length", "refusal"), pair, strict=True)
        }
        for answer, values in zip(self.drawn, self.values, strict=True):
            for measure, value in values.items():
                by_slice = () if Cell(measure, ALL).principle else answer.slices
                for slice in (ALL, *by_slice):
                    if slice in self._counted:
                        found.setdefault(Cell(measure, slice), Tally()).add(value)
        return found
