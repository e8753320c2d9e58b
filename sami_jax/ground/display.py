"""What goes on, shown while it does: bars on a terminal; where none can move, as in a pipe, a line now and then.

Work may go on within work, as canaries within updates: the outermost is what is shown, with all within it.
"""

import contextlib
import os
import sys
import threading
from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from sami_jax.ground import compilation, work
from sami_jax.ground.terminal import cell, console, say
from sami_jax.ground.work import Work, duration

FIRST = 8.0  # seconds of work after which a line tells how far it is, where no bar is drawn
HEARTBEAT = 30.0  # seconds between two such lines
BAR = (10, 40)  # characters: as many as there is room for
# Of environments whose terminals keep all that was ever drawn, so that a moving bar fills pages: continuous integration, and
# the cells of notebooks.
_NO_BARS = ("CI", "JPY_PARENT_PID", "COLAB_RELEASE_TAG")

_going_on: list[Work] = []  # outermost first


@contextlib.contextmanager
def doing(what: str) -> Iterator[None]:
    """Shows what goes on while nothing can be counted: loading, checking, waiting. What is over soon leaves no line."""
    with showing(Work(what)):
        yield


@contextlib.contextmanager
def showing(one: Work) -> Iterator[bool]:
    """Shows work while the block is at it; yields whether it is the outermost, and not hidden."""
    if console.quiet:
        yield False
        return
    compilation.listen()
    _going_on.append(one)
    try:
        if len(_going_on) > 1:
            yield False
        elif draws():
            with Live(get_renderable=_drawn, console=console, refresh_per_second=8, transient=one.total is None):
                yield True
        else:
            with _heartbeat(one):
                yield True
    finally:
        _going_on.remove(one)


def current() -> Work | None:
    """The innermost work, if any is shown."""
    return _going_on[-1] if _going_on else None


def draws() -> bool:
    """Whether stderr is a terminal on which a bar can move."""
    return sys.stderr.isatty() and not console.is_dumb_terminal and not any(map(os.environ.get, _NO_BARS))


_SPINNER = Spinner("line")  # of characters that every terminal has


def _drawn() -> RenderableType:
    """A row for each."""
    return Group(*(_row(one, depth) for depth, one in enumerate(list(_going_on))))


def _row(one: Work, depth: int) -> RenderableType:
    """In one line: what a narrow terminal has no room for is cut at its end."""
    title = Text("  " * depth) + cell(one.title)
    state = one.state if one is current() else ""
    if one.total is None:
        parts, narrowest = [duration(one.elapsed), state], 0
    else:
        parts, narrowest = [f"{one.done}/{one.total}", one.left, state, duration(one.elapsed), *one.numbers()], BAR[0]
    told = Text("  ".join(filter(None, parts)), style="cyan")
    room = console.width - 5  # the spinner, and spaces between
    title.truncate(max(room - narrowest, 1), overflow="ellipsis")
    told.truncate(max(room - title.cell_len - narrowest, 1), overflow="ellipsis")
    cells: list[RenderableType] = [_SPINNER, title, told]
    if narrowest:
        width = max(min(room - title.cell_len - told.cell_len, BAR[1]), 1)
        cells.insert(2, ProgressBar(1.0, one.share, width=width))
    table = Table.grid(padding=(0, 1))
    for _ in cells:
        table.add_column(no_wrap=True)
    table.add_row(*cells)
    return table


class Beats:
    """When a line is due: soon after the work has begun to move, and every HEARTBEAT seconds."""

    def __init__(self, one: Work):
        self._work = one
        self._last: float | None = None  # when a line was written
        self._moved = False  # whether one has told of something done

    def due(self) -> bool:
        """Whether a line is to be written now; the caller then does."""
        now, moves = work.clock(), self._work.moves
        if self._last is None:
            due = self._work.elapsed >= FIRST
        else:
            due = now - self._last >= HEARTBEAT or (moves and not self._moved and self._work.busy >= FIRST)
        if due:
            self._last, self._moved = now, moves
        return due

    @property
    def begun(self) -> bool:
        """Whether a line was written."""
        return self._last is not None


@contextlib.contextmanager
def _heartbeat(one: Work) -> Iterator[None]:
    """Says now and then how far it is, also while one item takes long."""
    over, beats = threading.Event(), Beats(one)

    def beat() -> None:
        while not over.wait(min(FIRST, HEARTBEAT) / 8):
            if beats.due():
                say("; ".join(each.line() for each in list(_going_on)))

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    if beats.begun and one.total is None:
        say(one.end())
