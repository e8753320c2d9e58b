"""Objects of JSON files as people's tools write them: one a line, in one array, behind each other over many lines, or in an object."""

from collections.abc import Collection

from sami_jax.data.fields import BadRow
from sami_jax.data.jsonl import LOOSE, decoded, lines_of, loose
from sami_jax.data.tables import Rows
from sami_jax.errors import UserError

_NO_OBJECT = BadRow("not a JSON object", '; each line must look like {"id": ..., ...}')


def read_objects(content: bytes, name: str, columns: Collection[str]) -> Rows:
    """All objects, each with the number of its line, or where they do not stand one a line, with its own, from 1.

    Args:
      columns: those that are read, by which rows are known.
    Raises:
      UserError: one document that cannot be read, or that holds columns in place of rows.
    """
    lines = lines_of(content)
    if not lines:
        return []
    first = _parsed(lines[0][1])
    if isinstance(first, dict) and len(lines) > 1:
        return [(number, _object(line)) for number, line in lines]
    try:
        documents = _documents(content)
    except ValueError as error:
        if lines[0][1].lstrip().startswith(b"[") and not any(isinstance(_parsed(line), dict) for _, line in lines[1:3]):
            raise UserError(f"{name}: not readable as one JSON array ({error}); mend it") from None
        return [(number, _object(line)) for number, line in lines]
    if len(documents) == 1 and isinstance(documents[0], dict):
        documents = [_rows_in(documents[0], name, columns)]
    elif len(lines) == len(documents) > 1 and not any(isinstance(one, list) and one for one in documents):
        return [(number, _object(line)) for number, line in lines]
    rows = [row for one in documents for row in (one if isinstance(one, list) else [one])]
    return [(number, row if isinstance(row, dict) else _NO_OBJECT) for number, row in enumerate(rows, start=1)]


def _rows_in(document: dict, name: str, columns: Collection[str]) -> list:
    """The rows of a file that holds one object: that object, or those of the one list in it that has such rows."""
    known = {column.partition(".")[0] for column in columns}

    def shared(one) -> int:
        return len(known & one.keys()) if isinstance(one, dict) else 0

    lists = [one for one in document.values() if isinstance(one, list) and one and shared(one[0]) > shared(document)]
    if len(lists) == 1:
        return lists[0]
    values = [value for key, value in document.items() if key in known]
    if {"columns", "index", "data"} <= document.keys() or (values and all(map(_is_column, values))):
        raise UserError(f"{name}: one JSON object of columns; write rows: to_json(orient='records', lines=True)")
    return [document]


def _is_column(value) -> bool:
    """Whether a value is one of many rows, by their numbers or in their order."""
    if isinstance(value, dict):
        return bool(value) and all(key.isdecimal() for key in value)
    return isinstance(value, list) and bool(value) and not any(isinstance(one, dict) for one in value)


def _documents(content: bytes) -> list:
    """The values of a text of JSON, which may stand one behind the other.

    Raises:
      ValueError: it is none; says where.
    """
    text = content.decode("utf-8", "surrogateescape").strip("\ufeff \t\r\n")
    found, place = [], 0
    while place < len(text):
        value, place = decoded(text, place, LOOSE)
        found.append(value)
        while place < len(text) and text[place] in "\ufeff \t\r\n":
            place += 1
    return found


def _parsed(line: bytes):
    try:
        return loose(line)
    except ValueError:
        return None


def _object(line: bytes) -> dict | BadRow:
    try:
        row = loose(line)
    except ValueError as error:
        return BadRow("not valid JSON", f" ({error}); mend or remove the line")
    return row if isinstance(row, dict) else _NO_OBJECT
