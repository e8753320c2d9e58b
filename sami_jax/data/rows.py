"""Rows of files as people's tools write them: JSON Lines, JSON arrays, CSV, Parquet, packed or not, known by what they hold.

Each row has its number: of its line, or in JSON arrays and Parquet of the row, from 1. Of a row only the columns that are
read are there, and are checked; what is null is None.
"""

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import TypeVar

from sami_jax.data.content import PARQUET, kind_of, unpacked
from sami_jax.data.fields import NO_TEXT, BadRow, require, sound
from sami_jax.data.objects import read_objects
from sami_jax.data.parquet import read_parquet
from sami_jax.data.tables import NOT_UTF8, TABBED, Rows, read_table
from sami_jax.errors import UserError
from sami_jax.ground.terminal import say

T = TypeVar("T")
Line = TypeVar("Line")
TABLES = (".csv", *TABBED)
OBJECTS = (".jsonl", ".json", ".ndjson")
_OBJECTS = re.compile(rb"\s*(\{|\[\s*[{\]])")  # how files of objects begin


class Skipped:
    """Told to the readers of rows, it lets them pass over bad ones; it keeps how many, by file and reason."""

    def __init__(self) -> None:
        self.counts: dict[str, dict[str, int]] = {}

    def add(self, file: Path | str, reasons: Counter, rows: int) -> None:
        """Keeps the reasons of a file of `rows` rows, and says them."""
        self.counts[str(file)] = dict(reasons.most_common())
        listed = "".join(f"; {count}: {reason}" for reason, count in self.counts[str(file)].items())
        say(f"{file}: {reasons.total()} of {rows} rows passed over{listed}")


def read_rows(
    file: Path,
    columns: Collection[str],
    required: tuple[str, ...],
    read: Callable[[dict], T],
    skipped: Skipped | None = None,
) -> list[tuple[int, T]]:
    """Reads a file of rows.

    Args:
      columns: those that are read.
      required: those of them that every row must have.
      read: makes of a row what is wanted; raises BadRow.
      skipped: takes the bad rows; None: the first of them is an error.
    Returns:
      what `read` gave, each with its row's number.
    Raises:
      UserError: a missing file, a bad row, or no good one; names file and row.
    """

    def checked(row: dict | BadRow) -> T:
        row = good(row)
        require(row, *required)
        return read(row)

    return usable(file, read_file(file, str(file), columns)[0], checked, skipped)


def good(row: dict | BadRow) -> dict:
    """
    Raises:
      BadRow: it is one.
    """
    if isinstance(row, BadRow):
        raise row
    return row


def usable(
    file: Path | str, lines: Iterable[tuple[int, Line]], read: Callable[[Line], T], skipped: Skipped | None
) -> list[tuple[int, T]]:
    """What `read` makes of numbered lines; bad ones are refused or passed over, as in `read_rows`."""
    rows, reasons = [], Counter()
    for number, line in lines:
        try:
            rows.append((number, read(line)))
        except BadRow as bad:
            if skipped is None:
                raise UserError(f"{file}:{number}: {bad}") from None
            reasons[bad.reason] += 1
    if skipped is not None and reasons:
        skipped.add(file, reasons, reasons.total() + len(rows))
    if not rows:
        raise UserError(f"{file}: no lines that can be used; give a file with at least one good row")
    return rows


def read_file(
    file: Path, name: str, columns: Collection[str], short: bool = False
) -> tuple[Rows, tuple[str, ...] | None]:
    """All rows of a file; those that are none come as the reason why.

    Args:
      name: what messages call the file.
      columns: those that are read; a dot leads into an object.
      short: whether a row of a text table may lack its last cells, as Excel leaves empty ones out.
    Returns:
      the rows, and the names of all columns of a table, None for JSON, where each row has its own.
    Raises:
      UserError: the file as a whole cannot be read.
    """
    content = unpacked(file, name)
    kind = kind_of(file.name)
    objects = bool(_OBJECTS.match(content))
    names: tuple[str, ...] | None = None
    if content.startswith(PARQUET) or (kind == ".parquet" and not objects):
        rows, names = read_parquet(content, name, columns)
    elif kind in OBJECTS or objects:
        rows = read_objects(content, name, columns)
    else:
        rows, names = read_table(content, name, columns, kind, short)
        known = {one.lower() for one in names} & {column.lower() for column in columns}
        if kind not in TABLES and not known:
            raise UserError(f'{name}: neither JSON nor a table of known columns; write {{"id": ..., ...}} a line')
        return rows, names
    return [(number, row if isinstance(row, BadRow) else _reduced(row, columns)) for number, row in rows], names


def _reduced(row: dict, columns: Collection[str]) -> dict | BadRow:
    try:
        return _read_of(row, columns)
    except ValueError as error:
        if str(error) == NO_TEXT:
            return NOT_UTF8
        return BadRow("not valid JSON", f" ({error}); mend or remove the line")


def _read_of(row: dict, columns: Iterable[str]) -> dict:
    """What is read of a row, all of it sound."""
    found = {}
    for column in columns:
        if column in row:
            found[column] = sound(row[column])
        elif "." in column:
            outer, _, inner = column.partition(".")
            if isinstance(row.get(outer), dict):
                found[outer] = found.get(outer, {}) | _read_of(row[outer], (inner,))
    return found
