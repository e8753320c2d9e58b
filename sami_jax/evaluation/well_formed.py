"""Whether a reply of real text is whole, whatever it says: docs/judging.md has the rules."""

import re

from sami_jax.evaluation.signs import repetition
from sami_jax.principles.checks.languages import LANGUAGES, scripts_for
from sami_jax.principles.checks.reply import words_of
from sami_jax.principles.checks.scripts import CHINESE, JAPANESE, scripts_of

LOOP = 0.5  # share of a reply's runs of four words that occurred before in it
SHORT = 16  # words; a shorter reply may say things twice
STUTTER = re.compile(r"([^\s\-=_*~.|#+]{1,8}?)\1{19,}")  # the same few characters twenty times over
# A replacement character stands for bytes that were no text; control characters and halves of characters are in no text.
BROKEN = re.compile("[\ufffd\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
STRAY = 0.05  # share of a reply's letters that may be of a script that nobody asked for


def well_formed(query: str, response: str, ended: bool | None, constitution: str = "") -> bool:
    """
    Args:
      ended: whether the reply ended by itself; None: not known.
      constitution: what stood in the prompt beside the query.
    """
    return (
        ended is not False
        and any(character.isalnum() for character in response)
        and not BROKEN.search(response)
        and not loops(response)
        and not strays(response, f"{query}\n{constitution}")
    )


def loops(response: str) -> bool:
    """Whether a reply says the same again and again."""
    words = [word.casefold() for word in words_of(response)]
    return (len(words) >= SHORT and repetition(words) > LOOP) or STUTTER.search(response) is not None


def strays(response: str, prompt: str) -> bool:
    """Whether a reply is in a script that the prompt neither has nor asks for by a language's English name; Latin always may be."""
    named = prompt.casefold()
    allowed = {"LATIN", *scripts_of(prompt)}
    for code, name in LANGUAGES.items():
        if name.casefold() in named:
            allowed |= scripts_for(code)
    if allowed & (JAPANESE | CHINESE):
        allowed |= JAPANESE | CHINESE  # a question in kanji alone may be Japanese
    letters = scripts_of(response)
    stray = sum(count for script, count in letters.items() if script not in allowed)
    return stray > STRAY * letters.total()
