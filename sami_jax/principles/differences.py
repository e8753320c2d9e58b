"""What differs between two texts of a principle, or between two folders of principles."""

import difflib
from collections.abc import Iterator, Sequence

from sami_jax.principles.checks.conditions import canonical
from sami_jax.principles.principle import Principle, content_hash, current


def lines(principle: Principle) -> list[str]:
    """The normative text, one labelled line a text line, and the check."""
    shown = []
    for number, (text, antithesis) in enumerate(principle.phrasings):
        suffix = f" ({number + 1})" if number else ""
        for label, words in (("principle", text), ("antithesis", antithesis)):
            shown += [f"{label}{suffix}: {line}" for line in words.split("\n")]
    for side, conditions in (principle.check.sides if principle.check else {}).items():
        shown.append(f"check of the {side}: {canonical(conditions)}")
    return shown


def differences(before: Principle | None, after: Principle | None) -> Iterator[str]:
    """A unified diff, without context lines; nothing where texts and checks are equal."""
    if before and after and (content_hash(before), before.check) == (content_hash(after), after.check):
        return
    names = (before.name if before else "(none)", after.name if after else "(none)")
    one, other = lines(before) if before else [], lines(after) if after else []
    yield from difflib.unified_diff(one, other, *names, lineterm="", n=0)


def folder_differences(before: Sequence[Principle], after: Sequence[Principle]) -> Iterator[str]:
    """The diffs of every principle that was added, removed or changed, by id; current versions are compared."""
    old, new = ({p.id: p for p in current(side)} for side in (before, after))
    for id in sorted(old.keys() | new.keys()):
        yield from differences(old.get(id), new.get(id))
