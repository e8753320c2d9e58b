"""Reading principles and deciding about them, in the terminal."""

import dataclasses
import datetime
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from sami_jax.errors import UserError
from sami_jax.ground.terminal import cell, results, say, show, show_table
from sami_jax.principles.checks.conditions import canonical
from sami_jax.principles.differences import differences
from sami_jax.principles.files import add_review, file_of, read_principle, read_principles, write_principle
from sami_jax.principles.lint import closest, text_errors
from sami_jax.principles.principle import (
    Principle,
    Review,
    approved_otherwise,
    content_hash,
    edited,
    find,
    own_status,
    status,
)

CHOICES = {"a": "approve", "r": "reject", "e": "edit", "c": "comment", "s": "skip", "q": "quit"}
NEARBY = 0.6  # similarity from which the nearest other principle is mentioned


def review(folder: Path, names: Sequence[str], reviewer: str) -> None:
    """Walks through principles one by one. Each answer is written at once: leaving at any point loses nothing."""
    principles = read_principles(folder)
    waiting = [find(principles, name, folder) for name in names] or [
        p for p in principles if own_status(p) in ("draft", "in review")
    ]
    if not waiting:
        show(f"{folder}: nothing waits for a decision")
        return
    counts = dict.fromkeys(CHOICES.values(), 0)
    for number, principle in enumerate(waiting, start=1):
        show(f"{number} of {len(waiting)}", style="dim")
        choice = _walk_one(folder, principle, reviewer)
        counts[choice] += 1
        if choice == "quit":
            break
    left = len(waiting) - counts["approve"] - counts["reject"]
    show(f"{counts['approve']} approved, {counts['reject']} rejected, {left} left for later")


def _walk_one(folder: Path, principle: Principle, reviewer: str) -> str:
    """Shows one principle until it is decided or left; returns how."""
    while True:
        principles = read_principles(folder)
        print_principle(principle, principles)
        choice = _ask_choice()
        if choice == "edit":
            principle = _edit(folder, principle, principles)
        elif choice == "comment":
            if comment := _ask("comment: "):
                principle = add_review(folder, principle, _review(principle, reviewer, "comment", comment))
        elif choice in ("approve", "reject"):
            comment = _ask("comment (enter for none): ")
            try:
                name = decide(
                    folder, principle, reviewer, {"approve": "approved", "reject": "rejected"}[choice], comment
                )
            except UserError as error:
                show(str(error), style="red")
                continue
            show(f"{name}: {choice.removesuffix('e')}ed by {reviewer}", style="green" if choice == "approve" else "red")
            return choice
        else:
            return choice


def decide(folder: Path, principle: Principle, reviewer: str, decision: str, comment: str) -> str:
    """Writes an approval or a rejection of the present text; returns the principle's name after it.

    A text that differs from what was approved under its version number becomes the next version with its approval, so
    that a name always stands for one text.

    Raises:
      UserError: a text that cannot be approved; says why.
    """
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


def print_principle(principle: Principle, all_versions: Sequence[Principle]) -> None:
    """The text, what it came from, what was said about it, and what to look at."""
    table = Table(box=None, show_header=False, padding=(0, 1))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for number, (text, antithesis) in enumerate(principle.phrasings):
        if number:
            table.add_row("", "")
        table.add_row("principle" if not number else "or", cell(text))
        table.add_row("antithesis", cell(antithesis))
    source = principle.source
    facts = {
        "source": f"{source.kind} {source.name}".strip(),
        **{
            f"check, {side}": canonical(given)
            for side, given in (principle.check.sides if principle.check else {}).items()
        },
        "tags": ", ".join(principle.tags),
        "notes": principle.notes,
    }
    for label, fact in facts.items():
        if fact:
            table.add_row(Text(label, "dim"), cell(fact, "dim"))
    for said in principle.reviews:
        about = "" if said.content == content_hash(principle) else " another text"
        line = f"{said.date[:10]} {said.reviewer}: {said.decision}{about}" + (
            f", {said.comment}" if said.comment else ""
        )
        table.add_row(Text("review", "dim"), cell(line, "dim"))
    now = status(principle, all_versions)
    title = Text(f"{principle.name}: {now}")
    show_table(Panel(table, title=title, title_align="left", box=box.ROUNDED, expand=results.is_terminal))
    for note in _notes(principle, all_versions):
        show(f"  {note}", style="yellow")


def _notes(principle: Principle, all_versions: Sequence[Principle]) -> list[str]:
    notes = text_errors(principle)
    same, other = closest(principle.phrasings[0][0], [p for p in all_versions if p.id != principle.id])
    if same >= NEARBY:
        notes.append(f"nearest other principle: {other} ({same:.0%} alike)")
    earlier = [p for p in all_versions if p.id == principle.id and p.version < principle.version]
    if earlier:
        notes += differences(max(earlier, key=lambda p: p.version), principle)
    return notes


def _edit(folder: Path, principle: Principle, principles: Sequence[Principle]) -> Principle:
    """In $VISUAL or $EDITOR where there is one, else text by text. An approved text stays, beside its next version."""
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR")
    if editor and sys.stdin.isatty():
        wanted = _edit_in(editor, principle)
    else:
        wanted = dataclasses.replace(principle, phrasings=tuple(map(_edit_line, principle.phrasings)))
    if (wanted.phrasings, wanted.check) == (principle.phrasings, principle.check):
        show("unchanged")
        return principle
    if wanted.phrasings == principle.phrasings:  # another check of the same text, whose reviews stay
        changed = dataclasses.replace(principle, check=wanted.check)
    else:
        changed = dataclasses.replace(edited(principle, wanted.phrasings), check=wanted.check)
    taken = [p.version for p in principles if p.id == principle.id]
    if changed.version != principle.version and changed.version in taken:
        changed = dataclasses.replace(changed, version=max(taken) + 1)
    write_principle(file_of(folder, changed), changed)
    return changed


def _edit_line(wording: tuple[str, str]) -> tuple[str, str]:
    text = _ask("principle (enter keeps it): ") or wording[0]
    return text, _ask("antithesis (enter keeps it): ") or wording[1]


def _edit_in(editor: str, principle: Principle) -> Principle:
    """The principle with what came out of the editor as its texts and check; as it was where that is none."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"{principle.id}.yaml"
        write_principle(file, dataclasses.replace(principle, reviews=()))
        try:
            subprocess.run([*shlex.split(editor), str(file)], check=True)
            written = read_principle(file)
            return dataclasses.replace(principle, phrasings=written.phrasings, check=written.check)
        except (OSError, ValueError, subprocess.CalledProcessError, UserError) as error:
            say(f"not changed: {error}")
            return principle


def _ask_choice() -> str:
    words = ", ".join(f"[{key}]{word[1:]}" for key, word in CHOICES.items())
    while True:
        answer = _ask(f"{words}: ").lower()
        if answer in CHOICES:
            return CHOICES[answer]
        if answer in CHOICES.values():
            return answer


def _ask(question: str) -> str:
    """One line from the user; the end of input quits."""
    try:
        return input(question).strip()
    except EOFError:
        print()
        return "quit" if question.startswith("[") else ""


def _review(principle: Principle, reviewer: str, decision: str, comment: str) -> Review:
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return Review(reviewer, now, decision, content_hash(principle), comment)
