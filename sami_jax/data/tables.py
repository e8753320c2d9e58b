"""Text tables as spreadsheets write them: CSV, with semicolons or tabs too. Cells are texts as they stand."""

import csv
import io
import re
import sys
from collections.abc import Collection, Sequence

from sami_jax.data.fields import NO_TEXT, BadRow, Cell
from sami_jax.errors import UserError

Rows = list[tuple[int, dict | BadRow]]
NOT_UTF8 = BadRow(NO_TEXT, "; save the file as UTF-8 (in Excel 'CSV UTF-8')")
DELIMITERS = (",", ";", "\t", "|")
TABBED = (".tsv", ".tab")
_WHOLE = re.compile(r"-?\d+\.0")
_TOLD = re.compile(r'"?sep=(.)"?\r?\n')  # the delimiter, in a line of its own that Excel reads and writes


def read_table(
    content: bytes, name: str, columns: Collection[str], kind: str = ".csv", short: bool = False
) -> tuple[Rows, tuple[str, ...]]:
    """The rows of a table, each with the line it begins on, and the names of its columns.

    Rows without any text are passed over, like blank lines. Names are known in capitals and among spaces too.

    Args:
      columns: those that are read; no others are checked.
      kind: the suffix of the file's name.
      short: whether a row may lack its last cells, as Excel leaves empty ones out.
    Raises:
      UserError: the table as a whole cannot be read.
    """
    text = content.decode("utf-8", "surrogateescape")  # bytes that are no UTF-8 become halves of characters
    told = _TOLD.match(text)
    order = (told[1],) if told else ("\t", ",", ";", "|") if kind in TABBED else DELIMITERS
    text = text[told.end() :] if told else text
    delimiter = _delimiter(text, order, columns)
    csv.field_size_limit(sys.maxsize)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows: Rows = []
    header: tuple[str, ...] | None = None
    places: dict[str, int] = {}
    while True:
        number = reader.line_num + 1 + bool(told)
        try:
            cells = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            if str(error) == "unexpected end of data" or header is None:
                raise UserError(f"{name}:{number}: a quoted cell is never closed ({error}); mend the row") from None
            rows.append((number, BadRow("not a CSV row", f" ({error}); double the quotes inside a quoted cell")))
            continue
        if not any(cell.strip() for cell in cells):
            continue
        if header is None:
            header = tuple(cells)
            places = column_places(header, columns, name)
        else:
            rows.append((number, _record(header, places, cells, short)))
    if header is None:
        raise UserError(f"{name}: is empty; its first line must name the columns")
    for column in places:
        _whole_numbers(rows, column)
    return rows, tuple(filter(None, map(str.strip, header)))


def column_places(header: Sequence[str], columns: Collection[str], name: str) -> dict[str, int]:
    """Where the columns stand that are read: by their names, else by those in capitals or among spaces.

    Raises:
      UserError: two of them have one name.
    """
    places = {}
    for column in columns:
        for spelled in (str, lambda one: one.strip().lower()):
            found = [place for place, one in enumerate(header) if spelled(one) == spelled(column)]
            if len(found) > 1:
                raise UserError(f"{name}: two columns are called {header[found[0]]!r:.60}; rename one")
            if found:
                places[column] = found[0]
                break
    return places


def _delimiter(text: str, order: Sequence[str], columns: Collection[str]) -> str:
    """The first under which the header names a column that is read; failing that, the one that parts it most."""
    parts = {}
    for delimiter in order:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        try:
            header = next((cells for cells in reader if any(cell.strip() for cell in cells)), [])
        except csv.Error:
            continue
        if not header:  # nothing but blank rows
            return delimiter
        names = {cell.strip().lower() for cell in header}
        if not names.isdisjoint({column.lower() for column in columns}):
            return delimiter
        parts[delimiter] = len(header)
    return max(parts, key=lambda delimiter: parts[delimiter], default=order[0])


def _whole_numbers(rows: Rows, column: str) -> None:
    """Takes the ".0" from a column of nothing but whole numbers: pandas writes them so where one is missing."""
    records = [row for _, row in rows if isinstance(row, dict) and row[column].strip()]
    if all(_WHOLE.fullmatch(record[column].strip()) for record in records):
        for record in records:
            record[column] = Cell(record[column].strip().removesuffix(".0"))


def _record(header: tuple[str, ...], places: dict[str, int], cells: list[str], short: bool) -> dict | BadRow:
    named = max(place for place, one in enumerate(header) if one.strip()) + 1
    if (len(cells) < named and not short) or any(cell.strip() for cell in cells[len(header) :]):
        return BadRow("not as many cells as columns", f": {len(cells)}, not {len(header)}; mend the row")
    cells += [""] * (len(header) - len(cells))
    record = {column: Cell(cells[place]) for column, place in places.items()}
    try:
        "".join(record.values()).encode()
    except UnicodeEncodeError:
        return NOT_UTF8
    return record
