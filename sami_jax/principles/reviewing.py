"""What reviewers do to the files of principles: decide, comment, change the words; and what they are to look at.

Each of these looks at the file again and writes it while no other writer is in the folder. A text that is not the one that was read
is not decided about, nor written over: so terminals and the desk may be at work in one folder at once.
"""

import dataclasses
import datetime
from collections.abc import Sequence
from pathlib import Path

from sami_jax.errors import UserError
from sami_jax.ground.lock import alone_in
from sami_jax.principles.checks.check import Checks
from sami_jax.principles.differences import differences
from sami_jax.principles.files import add_review, file_of, read_principles, write_principle
from sami_jax.principles.lint import closest, text_errors
from sami_jax.principles.principle import Principle, Review, approved_otherwise, content_hash, edited

NEARBY = 0.6  # similarity from which the nearest other principle is mentioned


class Changed(UserError):
    """Somebody changed the text between its reading and what was to be done with it."""


def decide(folder: Path, principle: Principle, reviewer: str, decision: str, comment: str) -> str:
    """Writes an approval or a rejection of the text that was read; returns the principle's name after it.

    A text that differs from what was approved under its version number becomes the next version with its approval, so
    that a name always stands for one text.

    Args:
      decision: approved | rejected.
    Raises:
      UserError: a text that cannot be approved; says why. Changed: it is another by now.
    """
    with alone_in(folder):
        principle = _as_read(folder, principle)
        if decision == "approved":
            if errors := text_errors(principle):
                raise UserError(f"{principle.name}: {errors[0]}; edit it first")
            if approved_otherwise(principle):
                file = file_of(folder, principle)
                latest = max(p.version for p in read_principles(folder) if p.id == principle.id)
                principle = dataclasses.replace(principle, version=latest + 1)
                write_principle(file, principle)
        add_review(folder, principle, _review(principle, reviewer, decision, comment))
        return principle.name


def remark(folder: Path, principle: Principle, reviewer: str, comment: str) -> Principle:
    """Writes a comment, which decides nothing; returns the principle with it.

    Raises:
      Changed: the text is another by now.
    """
    with alone_in(folder):
        principle = _as_read(folder, principle)
        return add_review(folder, principle, _review(principle, reviewer, "comment", comment))


def change(
    folder: Path, principle: Principle, phrasings: tuple[tuple[str, str], ...], check: Checks | None
) -> Principle:
    """Writes other words, or another check, and returns the principle with them; an approved text stays, beside its next version.

    Args:
      principle: as it was read.
    Raises:
      Changed: its text or check is another by now.
    """
    with alone_in(folder):
        now = _as_read(folder, principle)
        if now.check != principle.check:
            raise _changed(folder, principle)
        principle = now
        if (phrasings, check) == (principle.phrasings, principle.check):
            return principle
        if phrasings == principle.phrasings:  # another check of the same text, whose reviews stay
            changed = dataclasses.replace(principle, check=check)
        else:
            changed = dataclasses.replace(edited(principle, phrasings), check=check)
        taken = [p.version for p in read_principles(folder) if p.id == principle.id]
        if changed.version != principle.version and changed.version in taken:
            changed = dataclasses.replace(changed, version=max(taken) + 1)
        write_principle(file_of(folder, changed), changed)
        return changed


def remarks(principle: Principle, all_versions: Sequence[Principle]) -> list[str]:
    """What a reviewer is to look at: faults of the text, the nearest other principle, what the version before says."""
    found = text_errors(principle)
    if near := nearest(principle, all_versions):
        found.append(f"nearest other principle: {near[0]} ({near[1]:.0%} alike)")
    earlier = [p for p in all_versions if p.id == principle.id and p.version < principle.version]
    if earlier:
        found += differences(max(earlier, key=lambda p: p.version), principle)
    return found


def nearest(principle: Principle, all_versions: Sequence[Principle]) -> tuple[str, float] | None:
    """The other principle that says most nearly the same, and the share that is alike; None where none comes near."""
    same, other = closest(principle.phrasings[0][0], [p for p in all_versions if p.id != principle.id])
    return (other, same) if same >= NEARBY else None


def _as_read(folder: Path, principle: Principle) -> Principle:
    """The principle as it lies there now, with reviews that came meanwhile.

    Raises:
      Changed: it is gone, or says something else.
    """
    now = next((p for p in read_principles(folder) if p.name == principle.name), None)
    if now is None or content_hash(now) != content_hash(principle):
        raise _changed(folder, principle)
    return now


def _changed(folder: Path, principle: Principle) -> Changed:
    return Changed(f"{folder}: {principle.name} was changed meanwhile; read it again, and then decide")


def _review(principle: Principle, reviewer: str, decision: str, comment: str) -> Review:
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return Review(reviewer, now, decision, content_hash(principle), comment)
