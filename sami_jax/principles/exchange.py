"""Principles from and to other people's files: the paper's authors' two JSON formats, and CSV for spreadsheets.

definitions      one JSON file, {"concise": {"definition": "...", "antithesis": "..."}, ...}
constitutions    a folder of JSON files, each two numbered lists, "positive" and "negative", with "identifiers" that
                 tell for each line which principle it states ("pos concise") or whose antithesis ("neg concise")
csv              one row a wording: id, version, principle, antithesis, tags, notes, check (as JSON); read as any table of rows
                 is (data/rows.py)

Only the last can hold checks; those of a folder stay there, whatever is imported into it.
"""

import csv
import dataclasses
import io
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sami_jax.data.cells import from_cell, to_cell
from sami_jax.data.fields import BadRow, texts_in
from sami_jax.data.jsonl import read_json, write_json, write_text
from sami_jax.data.rows import read_file
from sami_jax.errors import UserError
from sami_jax.ground.disk import hidden
from sami_jax.ground.lock import alone_in
from sami_jax.principles.checks.check import Checks
from sami_jax.principles.checks.conditions import canonical
from sami_jax.principles.constitutions import numbered, statements
from sami_jax.principles.files import ID, file_of, principle_files, read_principle, write_principle
from sami_jax.principles.principle import Principle, Source, current, edited

FORMATS = ("csv", "definitions", "constitutions")
COLUMNS = ("id", "version", "principle", "antithesis", "tags", "notes", "check")
# A constitutions folder holds every order and every set of antitheses: of more principles it would be thousands of files.
MOST_IN_CONSTITUTIONS = 3


def import_principles(source: Path) -> list[Principle]:
    """Reads any of the three formats, tables in any form of rows; a folder is one of constitutions.

    Raises:
      UserError: not one of them; names the file and what is wrong.
    """
    content = read_json(source, "mend the file") if source.suffix.lower() == ".json" and source.is_file() else None
    if source.is_dir():
        files = sorted(file for file in source.iterdir() if file.suffix.lower() == ".json")
        principles = _read_constitutions([file for file in files if not hidden(file.relative_to(source))], source)
    elif isinstance(content, dict) and "identifiers" in content:
        principles = _read_constitutions([source], source)
    elif content is None or _are_rows(content):
        principles = _read_rows(source)
    else:
        principles = _read_definitions(source, content)
    for principle in principles:
        if not ID.fullmatch(principle.id):
            raise UserError(f"{source}: {principle.id!r} cannot be an id; use letters, digits, '_', '.' and '-'")
    return [dataclasses.replace(p, source=Source("imported", source.name)) for p in principles]


def merge(folder: Path, incoming: Sequence[Principle]) -> dict[str, list[str]]:
    """Writes imported principles into a folder of principle files, and loses nothing that was there.

    A text that is there already is left alone. A changed one replaces a text that nobody approved; beside an approved
    one it becomes the next version. A check replaces the one that was there; approvals stay, for they are of the text.

    Returns:
      names of principles by what became of them: "new", "changed", "next version", "unchanged".
    """
    folder.mkdir(parents=True, exist_ok=True)
    outcome: dict[str, list[str]] = {"new": [], "changed": [], "next version": [], "unchanged": []}
    for principle in incoming:
        with alone_in(folder):
            kind, name = _merge_one(folder, principle)
        outcome[kind].append(name)
    return outcome


def _merge_one(folder: Path, principle: Principle) -> tuple[str, str]:
    """What became of it, and its name."""
    there = [p for p in map(read_principle, principle_files(folder)) if p.id == principle.id]
    same = [p for p in there if p.phrasings == principle.phrasings]
    if not there:
        kind, written = "new", principle
    elif same:
        check = principle.check or same[-1].check
        kind = "unchanged" if check == same[-1].check else "changed"
        written = dataclasses.replace(same[-1], check=check)
    else:
        latest = max(there, key=lambda p: p.version)
        written = edited(latest, principle.phrasings)
        written = dataclasses.replace(written, check=principle.check or latest.check)
        kind = "changed" if written.version == latest.version else "next version"
    if kind != "unchanged":
        write_principle(file_of(folder, written), written)
    return kind, written.name


def export_principles(principles: Sequence[Principle], target: Path, form: str) -> None:
    """Writes current principles as one of FORMATS; CSV keeps all versions.

    Raises:
      UserError: what the format cannot hold.
    """
    if form == "csv":
        write_text(target, _csv(principles))
    elif form == "definitions":
        chosen = _single_wording(current(principles), form)
        write_json(target, {p.id: {"definition": p.phrasings[0][0], "antithesis": p.phrasings[0][1]} for p in chosen})
    else:
        _write_constitutions(_single_wording(current(principles), form), target)


def _single_wording(principles: Sequence[Principle], form: str) -> Sequence[Principle]:
    if several := next((p for p in principles if len(p.phrasings) > 1), None):
        raise UserError(f"{several.name}: has {len(several.phrasings)} wordings, {form} files hold one; export as csv")
    return principles


def _are_rows(content) -> bool:
    return isinstance(content, list) and all(isinstance(row, dict) for row in content)


def _read_definitions(file: Path, content) -> list[Principle]:
    try:
        pairs = {id: (entry["definition"].strip(), entry["antithesis"].strip()) for id, entry in content.items()}
    except (KeyError, TypeError, AttributeError):
        raise UserError(
            f'{file}: must look like {{"NAME": {{"definition": "...", "antithesis": "..."}}, ...}}; mend the file'
        ) from None
    if empty := next((id for id, texts in pairs.items() if not all(texts)), None):
        raise UserError(f"{file}: {empty!r} has an empty text; write it")
    return [Principle(id, (texts,)) for id, texts in pairs.items()]


def _read_constitutions(files: Sequence[Path], source: Path) -> list[Principle]:
    """Each file shows some principles on their positive and some on their negative side; a principle is whole once both
    of its sides were seen."""
    if not files:
        raise UserError(f"{source}: no constitution files (*.json) here; give a folder that holds some")
    sides: dict[str, dict[str, str]] = {}
    for file in files:
        content = read_json(file, "mend the file")
        try:
            for column in ("positive", "negative"):
                shown = [text.strip() for text in statements(content[column])]
                for identifier, text in zip(content["identifiers"][column], shown, strict=True):
                    side, name = identifier.split(" ", 1)
                    known = sides.setdefault(name, {}).setdefault(side, text)
                    if known != text:
                        raise UserError(
                            f"{file}: {identifier!r} is worded otherwise in an earlier file; keep one wording"
                        )
        except (ValueError, KeyError, TypeError, AttributeError):
            raise UserError(
                f"{file}: not a constitution file; it needs numbered lists 'positive' and 'negative', and their 'identifiers'"
            ) from None
    for name, texts in sides.items():
        if set(texts) != {"pos", "neg"}:
            raise UserError(f"{source}: principle {name!r} is never shown on both sides; add its antithesis")
    return [Principle(name, ((texts["pos"], texts["neg"]),)) for name, texts in sides.items()]


def _write_constitutions(principles: Sequence[Principle], folder: Path) -> None:
    if len(principles) > MOST_IN_CONSTITUTIONS:
        raise UserError(
            f"{len(principles)} principles: constitution files list every combination, so at most {MOST_IN_CONSTITUTIONS}; export as definitions or csv"
        )
    number = 0
    for order in itertools.permutations(principles):
        flips = sorted(itertools.product((False, True), repeat=len(order)), key=lambda f: (sum(f), [not x for x in f]))
        for flipped in flips[1:]:
            columns = {"positive": (False,) * len(order), "negative": flipped}
            content: dict[str, Any] = {
                name: numbered([p.phrasings[0][side] for p, side in zip(order, sides, strict=True)])
                for name, sides in columns.items()
            }
            content["identifiers"] = {
                name: [f"{'neg' if side else 'pos'} {p.id}" for p, side in zip(order, sides, strict=True)]
                for name, sides in columns.items()
            }
            write_json(folder / f"{number}.json", content)
            number += 1


def _read_rows(file: Path) -> list[Principle]:
    """Principles of a table, a wording a row, whatever a spreadsheet or pandas made of it."""
    rows, _ = read_file(file, str(file), COLUMNS, short=True)
    if not rows:
        raise UserError(f"{file}: no rows; the first line names the columns {', '.join(COLUMNS)}")
    principles: dict[tuple[str, int], Principle] = {}
    for number, row in rows:
        if isinstance(row, BadRow):
            raise UserError(f"{file}: row {number}: {row}")
        cells = {column: from_cell(_as_text(row.get(column))) for column in COLUMNS}
        if missing := next((column for column in ("id", "principle", "antithesis") if not cells[column]), None):
            raise UserError(f"{file}: row {number}: {missing} is empty or has no column; fill it in")
        version = cells["version"].removesuffix(".0") or "1"
        if not version.isdecimal():
            raise UserError(f"{file}: row {number}: version is {version!r:.40}; write a whole number from 1")
        key = cells["id"], int(version)
        wording = (cells["principle"], cells["antithesis"])
        tags = texts_in(row.get("tags"))
        known = principles.get(key) or Principle(
            cells["id"],
            (),
            key[1],
            tags=tuple(cells["tags"].split() if tags is None else tags),
            notes=cells["notes"],
            check=_check(row.get("check"), f"{file}: row {number}"),
        )
        principles[key] = dataclasses.replace(known, phrasings=(*known.phrasings, wording))
    return list(principles.values())


def _check(cell, where: str) -> Checks | None:
    """What a column holds: JSON in a text, or what that says."""
    try:
        content = json.loads(from_cell(cell)) if isinstance(cell, str) and cell.strip() else cell
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: check is no JSON ({error}); mend it") from None
    return None if content is None or content == "" else Checks.parse(content, where)


def _as_text(value) -> str:
    """What a column of Parquet or JSON holds, as a cell would: "" for null, 1 for 1.0."""
    whole = isinstance(value, float) and value.is_integer()
    return "" if value is None else str(int(value) if whole else value)


def _csv(principles: Sequence[Principle]) -> str:
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, COLUMNS)
    writer.writeheader()
    for p in principles:
        for text, antithesis in p.phrasings:
            check = canonical(p.check.sides) if p.check else ""
            cells = (p.id, str(p.version), text, antithesis, " ".join(p.tags), p.notes, check)
            writer.writerow(dict(zip(COLUMNS, map(to_cell, cells), strict=True)))
    return stream.getvalue()
