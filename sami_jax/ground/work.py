"""What is known of some work while it goes on: how much is done, and how long the rest will take."""

import time
from collections.abc import Callable

from sami_jax.ground import compilation

clock: Callable[[], float] = time.monotonic  # seconds


class Work:
    """One piece of work. Whoever does it tells how far it is; whoever draws it asks."""

    def __init__(self, title: str, total: int | None = None, before: int = 0):
        """
        Args:
          title: as people read it: "sampling", "loading runs/tiny/base".
          total: items; None where nothing can be counted.
          before: items that were done when it began.
        """
        self.title, self.total, self._before = title, total, before
        self._begun, self._busy = clock(), compilation.stopwatch(clock)
        self._items = 0  # done since
        self._share = 0.0  # of what was to be done when it began
        self._within = 0.0  # of the item that is worked at
        self._ends: float | None = None  # when it will, by the clock, where the worker knows better than its share says
        self._at_most = False
        self.tokens = 0
        self.moment = ""  # what it is at just now, where that is worth a word

    def count(self, items: int, share: float, tokens: int) -> None:
        """By the loop around it, at the end of each item. Where the worker itself tells, that prevails.

        Args:
          items: done since it began.
          share: of all that was to be done then, 0 to 1.
          tokens: so far; 0 where they are not counted.
        """
        if self._ends is None:
            self._items, self._share, self.tokens, self._within = items, share, tokens, 0.0

    def tell(self, items: int, share: float, tokens: int, left: float, at_most: bool) -> None:
        """By the worker, whenever it knows more. Further

        Args:
          left: seconds that the rest will take.
          at_most: whether that is no more than a bound.
        """
        self._items, self._share, self.tokens = items, share, tokens
        self._ends, self._at_most = clock() + left, at_most

    def tell_within(self, share: float) -> None:
        """How much of the item at hand is done, 0 to 1."""
        self._within = share

    @property
    def done(self) -> int:
        """Items."""
        return self._before + self._items

    @property
    def share(self) -> float:
        """Of everything, 0 to 1, with what was done before it began."""
        if not self.total:
            return 0.0
        return (self._before + self._made * (self.total - self._before)) / self.total

    @property
    def moves(self) -> bool:
        """Whether anything was done since it began."""
        return self._made > 0

    @property
    def _made(self) -> float:
        """The share of what was to be done when it began."""
        to_come = (self.total or 0) - self._before - self._items
        return self._share + (self._within * (1 - self._share) / to_come if to_come > 0 else 0.0)

    @property
    def elapsed(self) -> float:
        """Seconds since it began."""
        return clock() - self._begun

    @property
    def busy(self) -> float:
        """Seconds since it began in which nothing was compiled: what is done was done in these."""
        return self._busy()

    @property
    def rate(self) -> float | None:
        """Tokens a second."""
        return self.tokens / self.busy if self.tokens and self.busy else None

    @property
    def left(self) -> str:
        """How long the rest will take, in words; "" where nobody knows yet, or nothing is left."""
        if self.done == self.total:
            return ""
        if self._ends is not None:
            seconds = max(self._ends - clock(), 0.0)
        elif share := self._made:
            seconds = self.busy * (1 - share) / share
        else:
            return ""
        return f"{'at most' if self._at_most else 'about'} {duration(seconds)} left"

    @property
    def state(self) -> str:
        """What it is at just now; "" where that goes without saying."""
        return "compiling" if compilation.going_on() else self.moment

    def line(self) -> str:
        """All of it in one line."""
        if self.total is None:
            return f"{self.title}: {duration(self.elapsed)} so far" + f", {self.state}" * bool(self.state)
        parts = [
            f"{self.title}: {self.done} of {self.total} after {duration(self.elapsed)}",
            *self.numbers(),
            self.left,
        ]
        return ", ".join(filter(None, [*parts, self.state]))

    def end(self) -> str:
        """One line about work that is over."""
        took = self.elapsed
        if self.total is None:
            return f"{self.title}: {duration(took)}"
        return f"{self.title}: {self.total} in {took:.1f} s" + (
            f", {self.tokens / took:,.0f} tokens/s" if self.tokens and took else ""
        )

    def numbers(self) -> list[str]:
        """Share of the work that is done, and tokens, where there is something to tell."""
        rate = f"{self.rate:,.0f} tokens/s" if self.rate else ""
        tokens = f"{self.tokens:,} tokens" if self.tokens else ""
        return [f"{self.share:.0%} of the work" if self.moves and self.left else "", tokens, rate]


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
