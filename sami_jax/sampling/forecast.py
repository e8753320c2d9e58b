"""How long sampling will still take, from what the host has seen of it."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

FEW = 4  # responses, fewer of which tell nothing of the others


class Outlook(NamedTuple):
    share: float  # of the whole time, compilation left out
    seconds: float  # that the rest will take
    at_most: bool  # whether that is a bound: too few responses have ended to tell their lengths


class Forecast:
    """Of a number of rows in which prompts are read and answered, as `decoding.generate` does it.

    Lengths are those of the responses so far, by the estimate of Kaplan and Meier (1958), which takes those that go on for what
    they are: at least so long. Times are those of the calls so far.
    """

    def __init__(self, rows: int, longest: int):
        """
        Args:
          longest: tokens a response has at most.
        """
        self._rows, self._longest = rows, longest
        self._reading, self._read = 0.0, 0  # seconds, prompt tokens
        self._decoding, self._steps = 0.0, 0  # seconds, steps

    def read(self, seconds: float, tokens: int) -> None:
        """So many prompt tokens were read in so many seconds, compilation left out."""
        self._reading, self._read = self._reading + seconds, self._read + tokens

    def decoded(self, seconds: float, steps: int) -> None:
        """So many tokens of each row that goes on were sampled."""
        self._decoding, self._steps = self._decoding + seconds, self._steps + steps

    @property
    def knows(self) -> bool:
        """Whether enough was seen to tell anything."""
        return self._steps > 0

    def outlook(self, ended: Sequence[int], cut: int, running: Sequence[int], waiting: int, to_read: int) -> Outlook:
        """
        Args:
          ended: steps that each response took which ended by itself.
          cut: responses that ended at the longest.
          running: steps that each of the others has taken.
          waiting: prompts that are not yet read.
          to_read: tokens of these.
        """
        survives, known = self._survival(ended, cut, running)
        ages = np.minimum(np.asarray(running, int), self._longest)
        # [rows at work, step]: the chance that it still goes on, now and later.
        steps = np.arange(self._longest)
        later = np.minimum(ages[:, None] + steps, self._longest)
        go_on = survives[later] / np.maximum(survives[ages], 1e-9)[:, None]
        fresh = survives[:-1]
        tokens = go_on.sum() + waiting * fresh.sum()
        last = int((go_on.sum(axis=0) > 0.5).sum())  # when the last of those at work ends
        if waiting:
            made = sum(ended) + cut * self._longest + sum(running)
            at_a_time = made / self._steps if self._steps else self._rows
            last_of_all = int((min(waiting, self._rows) * fresh > 0.5).sum())
            # Rows stay full until nobody waits; then the last of them decides, who is at any point of his way.
            last = max(last, tokens / max(at_a_time, 1.0) + last_of_all / 2)
        left = last * self._decoding / max(self._steps, 1) + to_read * self._reading / max(self._read, 1)
        spent = self._reading + self._decoding
        return Outlook(spent / (spent + left) if left else 1.0, float(left), not known)

    def _survival(self, ended: Sequence[int], cut: int, running: Sequence[int]) -> tuple[np.ndarray, bool]:
        """The chance [longest + 1] that a response goes on after so many steps, and whether that is known of three in four. Beyond
        what was seen it is one of a constant rate of ending, or none where that is not known."""
        size = self._longest + 1
        ends = np.bincount(np.minimum(ended, self._longest), minlength=size) if len(ended) else np.zeros(size)
        seen = ends + (np.bincount(np.minimum(running, self._longest), minlength=size) if len(running) else 0)
        seen[-1] += cut
        at_risk = seen[::-1].cumsum()[::-1]
        rate = np.divide(ends, at_risk, out=np.zeros(size), where=at_risk > 0)
        known = len(ended) + cut >= FEW and (cut > 0 or np.prod(1 - rate) <= 0.25)
        tokens = sum(ended) + cut * self._longest + sum(running)
        if known and tokens:
            rate = np.where(at_risk > 0, rate, len(ended) / tokens)
        survives = np.cumprod(1 - rate)
        survives[-1] = 0.0
        return survives, bool(known)
