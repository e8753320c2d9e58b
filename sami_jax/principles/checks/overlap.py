"""Where a check does not tell its two sides apart: texts that follow both, and texts that follow neither.

Both are tried, on ordinary texts and on those that the check itself names; where both sides count the same, their bounds tell.
"""

import dataclasses
import json
import math
from collections.abc import Iterator, Sequence

from sami_jax.principles.checks.check import Checks
from sami_jax.principles.checks.conditions import Condition, Node, Not, leaves
from sami_jax.principles.checks.samples import ORDINARY
from sami_jax.principles.checks.vocabulary import SHARES

MANY = 0.5  # share of ordinary texts that follow neither side, from which that is said
OPPOSITE = {"contains_any": "contains_none", "contains_none": "contains_any"}
JOINED = 6  # texts of each side that are put together
ALWAYS = ("sentences", "words", "paragraphs", "lines", "characters")  # of these a response has one at least
NAMED = 40  # texts of the check itself that are tried


@dataclasses.dataclass(frozen=True)
class Overlap:
    text: str  # what was found, and what to do
    both: bool  # a text follows both sides; else the sides leave a gap


def overlaps(check: Checks) -> list[Overlap]:
    """What was found, one of a kind at most."""
    one, other = check.node(True), check.node(False)
    found = [
        Overlap(f"{leaf.word} {leaf.given} holds for every response; give it a bound", True)
        for leaf in (*leaves(one), *leaves(other))
        if leaf.bounds and leaf.bounds[0] <= 0 and leaf.bounds[1] == math.inf
    ][:1]
    if _opposite(one, other):
        return found
    counted = [(side.word, side.bounds) for side in (one, other) if isinstance(side, Condition) and side.bounds]
    if len(counted) == 2 and counted[0][0] == counted[1][0]:
        (word, bounds), (_, others) = counted
        return found + _shared(word, bounds, others) + _gap(word, bounds, others)
    return found + _both(check) + _neither(check)


def _opposite(one: Node, other: Node) -> bool:
    """Whether one side is the other's opposite by how they are written: exactly one of them is followed."""
    if Not(one) == other or Not(other) == one:
        return True
    if not isinstance(one, Condition) or not isinstance(other, Condition) or OPPOSITE.get(one.word) != other.word:
        return False
    return sorted(json.loads(one.given)) == sorted(json.loads(other.given))


def _shared(word: str, one: tuple[float, float], other: tuple[float, float]) -> list[Overlap]:
    """What lies within the bounds of both sides."""
    low, high = max(one[0], other[0]), min(one[1], other[1])
    if low > high:
        return []
    span = f"{low:g}" if low == high else f"{low:g} or more" if high == math.inf else f"{low:g} to {high:g}"
    return [Overlap(f"responses with {span} {word} follow both sides; let one of them exclude the other", True)]


def _gap(word: str, one: tuple[float, float], other: tuple[float, float]) -> list[Overlap]:
    """What lies below, between and above the bounds of two sides that count the same."""
    (low, end), (start, high) = sorted((one, other))
    high = max(end, high)
    missing = [f"fewer than {low:g}"] if low > (word in ALWAYS) else []
    if word in SHARES:
        missing += [f"between {end:g} and {start:g}"] if start > end else []
    else:
        if start - 1 >= end + 1:
            missing.append(f"{end + 1:g}" if start - 1 == end + 1 else f"{end + 1:g} to {start - 1:g}")
        missing += [f"more than {high:g}"] if high != math.inf else []
    if not missing:
        return []
    return [Overlap(f"responses with {' or '.join(missing)} {word} follow neither side", False)]


def _both(check: Checks) -> list[Overlap]:
    for text in _texts(check):
        if check.follows(text, True) and check.follows(text, False):
            return [
                Overlap(
                    f"a response can follow both sides, for example {_shown(text)}; let one of them exclude the other",
                    True,
                )
            ]
    return []


def _neither(check: Checks) -> list[Overlap]:
    left = [text for text in ORDINARY if not check.follows(text, True) and not check.follows(text, False)]
    if len(left) < MANY * len(ORDINARY):
        return []
    some = f"{len(left)} of {len(ORDINARY)} ordinary texts follow neither side, for example {_shown(left[0])}"
    return [Overlap(f"{some}; 'not:' around the other side leaves no gap", False)]


def _texts(check: Checks) -> Iterator[str]:
    yield from ORDINARY
    named = _named(check)
    yield from named
    texts = (*ORDINARY, *named)
    ours = [text for text in texts if check.follows(text, True)][-JOINED:]
    theirs = [text for text in texts if check.follows(text, False)][-JOINED:]
    for one in ours:
        for other in theirs:
            yield from (f"{one}\n\n{other}", f"{other}\n\n{one}", f"{one} {other}")


def _named(check: Checks) -> Sequence[str]:
    """Ordinary texts with the check's own words in front and behind."""
    words = [
        text
        for side in (True, False)
        for leaf in leaves(check.node(side))
        if leaf.word in ("begins_with", "ends_with", "contains_any", "contains_all", "contains_none")
        for text in json.loads(leaf.given)
    ]
    return [text for word in words[:NAMED] for text in (f"{word} {ORDINARY[3]}", f"{ORDINARY[3]} {word}")]


def _shown(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "...")
