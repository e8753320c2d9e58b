"""The miniature's exact judge: one checker per principle, each reading the text of a reply and nothing else."""

import re
from collections.abc import Callable, Mapping

from sami_jax.miniature.world import well_formed, wordings


def _contains(pattern: str) -> Callable[[str], bool]:
    return lambda reply: re.search(pattern, reply) is not None


# Does the reply show what the principle asks for? The antithesis asks for the opposite.
CHECKERS: dict[str, Callable[[str], bool]] = {
    "greeting": _contains(r"^\s*(Hello|Hi there|Good day)\b"),
    "thanks": _contains(r"\b(Thank you|Thanks)\b"),
    "preparation": _contains(r"(^|[.!]) ?First\b"),
    "caution": _contains(r"\b(Perhaps|Maybe)\b"),
    "formality": _contains(r"\bone may\b"),
    "reason": _contains(r"\bbecause\b"),
    "friendship": _contains(r"\bfriend\b"),
    "enthusiasm": _contains(r"!"),
    "example": _contains(r"\bFor example\b"),
    "warning": _contains(r"\b(careful|Take care)\b"),
    "duration": _contains(r"\bIt takes\b"),
    "question": _contains(r"\?\s*$"),
}


def followed(query: str, response: str, stated: Mapping[str, bool]) -> dict[str, bool]:
    """Which stated principles a response follows.

    Args:
      stated: principle id -> True where the constitution states the principle, False where it states the antithesis.
    Returns:
      principle id -> followed. A response that is not well formed follows nothing: leaving things out is no virtue then.
    """
    whole = well_formed(query, response)
    return {name: whole and CHECKERS[name](response) == positive for name, positive in stated.items()}


def expressed(query: str, response: str, stated: Mapping[str, bool]) -> dict[str, tuple[int, int]]:
    """Where a response follows what is stated by words, and not by leaving them out.

    Returns:
      principle id -> (start, end) in characters of the words.
    """
    spans = wordings(query, response)
    follows = followed(query, response, stated)
    return {name: spans[name] for name in stated if follows[name] and spans[name][0] < spans[name][1]}
