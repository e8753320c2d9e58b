"""Reading principles and deciding about them, in the terminal."""

import dataclasses
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
from sami_jax.principles.files import read_principle, read_principles, write_principle
from sami_jax.principles.principle import Principle, content_hash, find, own_status, status
from sami_jax.principles.reviewing import Changed, change, decide, remark, remarks

CHOICES = {"a": "approve", "r": "reject", "e": "edit", "c": "comment", "s": "skip", "q": "quit"}


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
    """Shows one principle until it is decided or left; returns how. One that was changed meanwhile is shown again."""
    while True:
        principles = read_principles(folder)
        print_principle(principle, principles)
        choice = _ask_choice()
        try:
            if choice == "edit":
                principle = _edit(folder, principle)
            elif choice == "comment":
                if comment := _ask("comment: "):
                    principle = remark(folder, principle, reviewer, comment)
            elif choice in ("approve", "reject"):
                comment = _ask("comment (enter for none): ")
                decision = {"approve": "approved", "reject": "rejected"}[choice]
                name = decide(folder, principle, reviewer, decision, comment)
                style = "green" if choice == "approve" else "red"
                show(f"{name}: {choice.removesuffix('e')}ed by {reviewer}", style=style)
                return choice
            else:
                return choice
        except Changed as error:
            show(str(error), style="red")
            principle = find(read_principles(folder), principle.name, folder)
        except UserError as error:
            show(str(error), style="red")


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
    for note in remarks(principle, all_versions):
        show(f"  {note}", style="yellow")


def _edit(folder: Path, principle: Principle) -> Principle:
    """In $VISUAL or $EDITOR where there is one, else text by text. An approved text stays, beside its next version."""
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR")
    if editor and sys.stdin.isatty():
        wanted = _edit_in(editor, principle)
    else:
        wanted = dataclasses.replace(principle, phrasings=tuple(map(_edit_line, principle.phrasings)))
    if (wanted.phrasings, wanted.check) == (principle.phrasings, principle.check):
        show("unchanged")
        return principle
    return change(folder, principle, wanted.phrasings, wanted.check)


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
