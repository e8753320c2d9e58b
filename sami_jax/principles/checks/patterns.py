"""Patterns in time linear in the text (RE2): whatever a pattern says, it ends. RE2 has no look-around and no back-references."""

import functools

from sami_jax.errors import UserError

LONGEST = 1_000  # characters of a pattern
MEMORY = 1 << 20  # bytes for what RE2 makes of a pattern


def find(pattern: str, text: str) -> bool:
    """Whether the pattern, letter case aside, is found anywhere in a text."""
    return _compiled(pattern).search(text) is not None


def replaced(pattern: str, text: str, by: str) -> str:
    """The text with all that the pattern finds in it replaced by a plain text.

    Raises:
      UserError: RE2 does not take the pattern; says why.
    """
    return _compiled(pattern).sub(lambda _: by, text)


def size(pattern: str) -> int:
    """Steps of a pattern's program: a search takes at most so many times the text's length.

    Raises:
      UserError: RE2 does not take the pattern; says why.
    """
    return _compiled(pattern).programsize


@functools.lru_cache(maxsize=256)
def _compiled(pattern: str):
    import re2

    if len(pattern) > LONGEST:
        raise UserError(f"a pattern of {len(pattern)} characters; {LONGEST} at most")
    options = re2.Options()
    options.case_sensitive, options.log_errors, options.max_mem = False, False, MEMORY
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        told = error.args[0].decode("utf-8", "replace") if error.args and isinstance(error.args[0], bytes) else error
        known = "look-around and back-references are not known, https://github.com/google/re2/wiki/Syntax"
        raise UserError(f"pattern {pattern!r:.60} cannot be used ({told!s:.80}); mend it ({known})") from None
