"""Loops that tell how far they are."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from sami_jax.ground import stopping
from sami_jax.ground.display import draws, showing
from sami_jax.ground.terminal import say
from sami_jax.ground.work import Work

T = TypeVar("T")


def track(
    items: Iterable[T],
    title: str,
    total: int,
    done: int = 0,
    tokens: Callable[[T], int] | None = None,
    to_come: int | None = None,
) -> Iterator[T]:
    """Yields `items` behind a progress bar with the time left; where no bar can be drawn, a line now and then tells the same,
    and one at the end. Between two items is a good moment to end, if somebody asked.

    What makes the items may tell better how far it is, as sampling does: see `display.current`.

    Args:
      total: items, with the `done` ones that `items` does not yield again.
      tokens: counts an item's.
      to_come: tokens of all that are yielded, if that is known: then an item counts as much as it has tokens.
    """
    one, seen, counted = Work(title, total, done), 0, 0
    with showing(one) as outermost:
        for item in items:
            yield item
            stopping.check()
            seen, counted = seen + 1, counted + (tokens(item) if tokens else 0)
            one.count(seen, counted / to_come if to_come else seen / max(total - done, 1), counted)
    if outermost and not draws():
        say(one.end())
