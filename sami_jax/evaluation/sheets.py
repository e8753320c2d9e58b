"""The sheet that people rate in, ratings.csv, and what each rater makes of it: one file a rater, in the same form.

`sami rate export` writes the sheet. Whoever fills it in a spreadsheet saves it under another name; the desk calls a rater's
ratings.NAME-DIGEST.csv. `sami rate import` takes them all.
"""

import csv
import dataclasses
import hashlib
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from sami_jax.data.cells import from_cell, to_cell
from sami_jax.data.jsonl import read_bytes, write_text
from sami_jax.errors import UserError

SHEET = "ratings.csv"
SHOWN = ("item", "query", "constitution", "response_1", "response_2")
COLUMNS: tuple[str, ...] = (*SHOWN, "better", "rater", "reason")
BETTER = ("1", "2", "tie")
CANNOT_SAY = "cannot say"  # a rater has looked, and has no rating to give
LONGEST_CELL = 2**24  # characters


@dataclasses.dataclass(frozen=True)
class Rating:
    """What a rater said of an item."""

    better: str  # one of BETTER, or CANNOT_SAY
    reason: str = ""


def sheet(rows: Sequence[Mapping[str, str]]) -> str:
    """The text of a sheet; cells that are not given are empty."""
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, COLUMNS, restval="")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def read_sheet(file: Path) -> list[dict[str, str]]:
    """The cells of a sheet as `sheet` wrote them, a row an item.

    Raises:
      UserError: it is none.
    """
    advice = "give the folder that `sami rate export` wrote"
    csv.field_size_limit(LONGEST_CELL)
    try:
        text = read_bytes(file, advice).decode("utf-8-sig")
        reader = csv.DictReader(io.StringIO(text, newline=""), restval="", strict=True)
        missing = set(COLUMNS) - {"reason"} - set(reader.fieldnames or ())  # sheets of earlier versions have no reasons
        rows = [{name: row.get(name) or "" for name in COLUMNS} for row in reader]
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{file}: not a sheet as it was exported ({error}); {advice}") from None
    if missing or not rows or len({row["item"] for row in rows}) < len(rows):
        raise UserError(f"{file}: not a sheet as it was exported; {advice}")
    return rows


def texts(row: Mapping[str, str]) -> dict[str, str]:
    """What a rater is shown of a row."""
    return {name: from_cell(row[name]) for name in SHOWN}


def sheet_of(folder: Path, rater: str) -> Path:
    """Where a rater's sheet lies, one for each name."""
    safe = re.sub(r"[^\w-]+", "_", rater)[:40]
    return folder / f"ratings.{safe}-{hashlib.sha256(rater.encode()).hexdigest()[:8]}.csv"


def read_ratings(folder: Path, rater: str) -> dict[str, Rating]:
    """A rater's ratings so far, by item.

    Raises:
      UserError: the file is no sheet.
    """
    file = sheet_of(folder, rater)
    rows = read_sheet(file) if file.exists() else []
    return {row["item"]: Rating(row["better"], from_cell(row["reason"])) for row in rows if row["better"]}


def write_ratings(folder: Path, rater: str, ratings: Mapping[str, Rating]) -> None:
    """Writes a rater's sheet, whole or not at all: the exported one, with these ratings in it.

    Raises:
      UserError: there is no sheet.
    """
    rows = read_sheet(folder / SHEET)
    for row in rows:
        given = ratings.get(row["item"])
        cells = (given.better, to_cell(rater), to_cell(given.reason)) if given else ("", "", "")
        row.update(zip(("better", "rater", "reason"), cells, strict=True))
    write_text(sheet_of(folder, rater), sheet(rows))
