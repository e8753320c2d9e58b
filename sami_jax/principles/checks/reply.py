"""A response taken apart: its words, sentences, paragraphs and the marks in it, as the words of checks count them."""

import functools
import re
import unicodedata

from sami_jax.errors import UserError
from sami_jax.principles.checks.scripts import UNSPACED, script_of

PIECE = 2_000  # characters of a line that are cut into sentences at once: the time for it grows with their square
LONGEST = 50_000  # characters of a response, some 12,000 tokens; every search ends within about a second

CODE = re.compile(r"^[ \t]*(```|~~~).*?(?:^[ \t]*\1[^\n]*$|\Z)", re.DOTALL | re.MULTILINE)
# "3.5 litres" is no item: only a mark of full width needs no space behind it.
NUMBERED = re.compile(r"^\s*(?:\*\*|__)?(?:\(?(?:\d{1,3}[.)]|[a-zA-Z]\))(?:\*\*|__)?\s+|\d{1,3}[、．]\s*)(?=\S)")
BULLETED = re.compile(r"^\s*(?:[-*+•‣▪●◦–]\s+|・\s*)(?=\S)")
HEADING = re.compile(r"^\s{0,3}#{1,6}\s+(?=\S)")
QUOTE = re.compile(r"^\s*>\s?")
WORD = re.compile(r"[^\W_]+(?:(?:['’-]|(?<=\d)[.,:](?=\d))[^\W_]+)*")
MARKS = re.compile(r"[?!？！؟‼⁉⁇‽]+(?![^\W_]|[=&/\[])|[？！]+")
QUESTION, EXCLAMATION = frozenset("?？؟⁉⁇‽"), frozenset("!！‼⁉‽")
STRAIGHT = str.maketrans({"’": "'", "‘": "'", "“": '"', "”": '"', "\u00a0": " "})


class Reply:
    """
    Attributes:
      text: as it came, without the white space around it.
      prompt: what was asked, or "".
    """

    def __init__(self, text: str, prompt: str = ""):
        """
        Raises:
          UserError: it is longer than LONGEST.
        """
        if len(text) > LONGEST:
            raise UserError(f"a response of {len(text)} characters; checks read {LONGEST} at most")
        # Half a character is none: what takes texts apart wants them whole.
        self.text = unicodedata.normalize("NFC", text.encode("utf-8", "replace").decode("utf-8")).strip()
        self.prompt = prompt

    @functools.cached_property
    def plain(self) -> str:
        """As texts are compared: letter case and curled quotation marks aside."""
        return plain(self.text)

    @functools.cached_property
    def prose(self) -> str:
        """Without blocks of code."""
        return CODE.sub("", self.text)

    @functools.cached_property
    def lines(self) -> list[str]:
        """Those that are not empty."""
        return [line for line in self.text.splitlines() if line.strip()]

    @functools.cached_property
    def words(self) -> list[str]:
        return words_of(self.text)

    @functools.cached_property
    def sentences(self) -> list[str]:
        """A line break ends one; so each item of a list and each heading is one at least. Code has none."""
        from sentencex import segment  # pyright: ignore[reportAttributeAccessIssue]

        lines = [unmarked(line) for line in self.prose.splitlines()]
        pieces = [line[start : start + PIECE] for line in lines for start in range(0, len(line), PIECE)]
        found = [sentence.strip() for piece in pieces for sentence in segment("en", piece)]
        return [sentence for sentence in found if words_of(sentence)]

    @functools.cached_property
    def paragraphs(self) -> list[str]:
        """Parts with an empty line between them."""
        return [part.strip() for part in re.split(r"\n[^\S\n]*\n", self.text) if words_of(part)]

    @functools.cached_property
    def numbered_items(self) -> int:
        return sum(NUMBERED.match(line) is not None for line in self.prose.splitlines())

    @functools.cached_property
    def bulleted_items(self) -> int:
        return sum(BULLETED.match(line) is not None for line in self.prose.splitlines())

    @functools.cached_property
    def questions(self) -> int:
        return sum(not QUESTION.isdisjoint(run) for run in MARKS.findall(self.prose))

    @functools.cached_property
    def exclamations(self) -> int:
        return sum(not EXCLAMATION.isdisjoint(run) for run in MARKS.findall(self.prose))


def plain(text: str) -> str:
    """A text as texts are compared: letter case, curled quotation marks and kinds of white space aside."""
    return " ".join(unicodedata.normalize("NFC", text).translate(STRAIGHT).casefold().split())


def words_of(text: str) -> list[str]:
    """Runs of letters and digits; where a script has no spaces between words, each character is one."""
    if not text.isascii():
        # Marks over and beside letters, as vowels in Devanagari, are parts of words; Python's \w leaves them out.
        text = "".join(
            f" {c} " if script_of(c) in UNSPACED else c
            for c in text
            if unicodedata.category(c) not in ("Mn", "Mc", "Me")
        )
    return WORD.findall(text)


def unmarked(line: str) -> str:
    """A line without the mark of a list's item, a heading or a quotation in front of it."""
    line = QUOTE.sub("", line)
    for mark in (HEADING, BULLETED, NUMBERED):
        line = mark.sub("", line)
    return line
