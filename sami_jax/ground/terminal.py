"""What people see: progress bars and tables on the terminal. What a program reads goes to files."""

import contextlib
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from sami_jax.ground import stopping
from sami_jax.ground.redaction import redact

T = TypeVar("T")
# Control characters but for tab and line end, marks that turn the direction of text or cannot be seen, and halves of
# characters. Joiners stay: they are part of words in some scripts, and of emoji.
_CONTROL = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    r"\U000e0000-\U000e007f\ud800-\udfff]"
)

PIPE_WIDTH = 1000  # characters
HEARTBEAT = 30.0  # seconds between two lines that tell how far it is, where no bar is drawn
# Of environments whose terminals keep all that was ever drawn, so that a moving bar fills pages: continuous integration, and
# the cells of notebooks.
_NO_BARS = ("CI", "JPY_PARENT_PID", "COLAB_RELEASE_TAG")

console = Console(stderr=True, highlight=False)  # progress and news
results = Console(highlight=False)  # what the user asked for


def say(line: str) -> None:
    """One line of news."""
    console.print(visible(redact(line)), markup=False, soft_wrap=True)


def show(line: str = "", style: str | None = None) -> None:
    """One line of results."""
    results.print(visible(redact(line)), style=style, markup=False, soft_wrap=True)


def show_table(table: RenderableType) -> None:
    """A table or panel of results. Where no terminal sets the width, as in a pipe, nothing is cut or wrapped."""
    wide = Console(width=PIPE_WIDTH, highlight=False, quiet=results.quiet)
    (results if results.is_terminal else wide).print(table)


def cell(text: str, style: str = "") -> Text:
    """A text of others for a table, as `show` shows it."""
    return Text(visible(redact(text)), style)


def visible(text: str) -> str:
    """The text with control characters spelt out: what a model or a file says must not steer the terminal."""
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def track(
    items: Iterable[T], title: str | None, total: int, done: int = 0, tokens: Callable[[T], int] | None = None
) -> Iterator[T]:
    """Yields `items` behind a progress bar with the time left and, where `tokens` counts an item's, tokens per second.

    Where no bar can be drawn, as in a pipe, a line every HEARTBEAT seconds tells the same, and one at the end. Between two
    items is a good moment to end, if somebody asked.

    Args:
      title: None shows nothing.
    """
    hidden = title is None or console.quiet or not _draws()
    columns = [
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    ]
    with contextlib.ExitStack() as stack:
        progress = stack.enter_context(Progress(*columns, console=console, disable=hidden))
        task = progress.add_task(title or "", total=total, completed=done, rate="")
        if title and hidden and not console.quiet:
            stack.enter_context(_heartbeat(title, progress.tasks[task], total))
        seen = 0
        for item in items:
            yield item
            stopping.check()
            seen += tokens(item) if tokens else 0
            elapsed = progress.tasks[task].elapsed
            progress.update(task, advance=1, rate=f"{seen / elapsed:,.0f} tokens/s" if tokens and elapsed else "")
        finished = progress.tasks[task].elapsed or 0.0
    if title and hidden:
        rate = f", {seen / finished:,.0f} tokens/s" if tokens and finished else ""
        say(f"{title}: {total} in {finished:.1f} s{rate}")


def _draws() -> bool:
    """Whether stderr is a terminal on which a bar can move."""
    return sys.stderr.isatty() and not console.is_dumb_terminal and not any(map(os.environ.get, _NO_BARS))


@contextlib.contextmanager
def _heartbeat(title: str, task: Task, total: int) -> Iterator[None]:
    """Says now and then how far a task is, also while one item takes long."""
    over = threading.Event()
    before, started = task.completed, time.monotonic()

    def beat() -> None:
        while not over.wait(HEARTBEAT):
            made, elapsed = task.completed - before, time.monotonic() - started
            left = f", about {_duration((total - task.completed) * elapsed / made)} left" if made else ""
            rate = f", {task.fields['rate']}" if task.fields["rate"] else ""
            say(f"{title}: {task.completed:.0f} of {total} after {_duration(elapsed)}{rate}{left}")

    threading.Thread(target=beat, name="heartbeat", daemon=True).start()
    try:
        yield
    finally:
        over.set()


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
