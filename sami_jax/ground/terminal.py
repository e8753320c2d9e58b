"""What people see on the terminal: news, results and tables. What a program reads goes to files."""

import contextlib
import re
from collections.abc import Iterator

from rich.console import Console, RenderableType
from rich.text import Text

from sami_jax.ground.redaction import redact

# Control characters but for tab and line end, marks that turn the direction of text or cannot be seen, and halves of
# characters. Joiners stay: they are part of words in some scripts, and of emoji.
_CONTROL = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    r"\U000e0000-\U000e007f\ud800-\udfff]"
)

PIPE_WIDTH = 1000  # characters


class _Console(Console):
    """Knows the encoding of the stream it writes to, also of one that came later: lines of tables are in ASCII where need be."""

    @property
    def encoding(self) -> str:
        return (getattr(self.file, "encoding", None) or "utf-8").lower()


console = _Console(stderr=True, highlight=False)  # progress and news
results = _Console(highlight=False)  # what the user asked for


def say(line: str) -> None:
    """One line of news."""
    console.print(visible(redact(line)), markup=False, soft_wrap=True)


def show(line: str = "", style: str | None = None) -> None:
    """One line of results."""
    results.print(visible(redact(line)), style=style, markup=False, soft_wrap=True)


@contextlib.contextmanager
def results_withheld() -> Iterator[None]:
    """Within, results are not shown: of a part, where those of the whole follow."""
    kept, results.quiet = results.quiet, True
    try:
        yield
    finally:
        results.quiet = kept


def show_table(table: RenderableType) -> None:
    """A table or panel of results. Where no terminal sets the width, as in a pipe, nothing is cut or wrapped."""
    wide = _Console(width=PIPE_WIDTH, highlight=False, quiet=results.quiet)
    (results if results.file.isatty() else wide).print(table)


def cell(text: str, style: str = "") -> Text:
    """A text of others for a table, as `show` shows it."""
    return Text(visible(redact(text)), style)


def visible(text: str) -> str:
    """The text with control characters spelt out: what a model or a file says must not steer the terminal."""
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)
