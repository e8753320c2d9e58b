"""What stands in a row, whatever tool wrote it: ids, lists of texts, numbers. Null is absent."""

import ast
import json
import math
import re
import uuid
from decimal import Decimal
from typing import Any

DEEPEST = 100  # levels of nesting that are read
EXACT = 2**53  # whole numbers from here on are not told apart by a float
NO_TEXT = "not UTF-8 text"
_NUMBER = re.compile(r"[+-]?(\d+|\d*[.,]\d+|\d+[.,])([eE][+-]?\d+)?")


class BadRow(Exception):
    """A row that cannot be used: the reason, under which such rows are counted, and the particulars with what to do."""

    def __init__(self, reason: str, particulars: str):
        super().__init__(reason + particulars)
        self.reason = reason


class Cell(str):
    """A cell of a text table: it may stand for a number or a list where one is wanted, and for null where it is empty."""


class Unreadable:
    """Stands for a value that cannot be read, which matters only where it is."""

    def __init__(self, reason: str):
        self.reason = reason


def sound(value, nan: float | None = None, depth: int = 0):
    """The value as it can be used and written again; bytes as the text they hold.

    Args:
      nan: what NaN becomes: null, which pandas means by it, unless it was measured.
    Raises:
      ValueError: a part of it cannot be read; says why.
    """
    if isinstance(value, str):
        return value if value.isascii() else _unicode(value)
    if value is None or isinstance(value, bool | int):
        return value
    if depth > DEEPEST:
        raise ValueError("nested too deep")
    if isinstance(value, dict):
        return {sound(key): sound(one, nan, depth + 1) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [sound(one, nan, depth + 1) for one in value]
    if isinstance(value, float):
        return nan if math.isnan(value) else value
    if isinstance(value, bytes):
        return _unicode(value.decode("utf-8", "surrogateescape"))
    if isinstance(value, Unreadable):
        raise ValueError(value.reason)
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    return str(value) if isinstance(value, uuid.UUID) else value


def _unicode(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        # Bytes that are no UTF-8 were decoded to just these halves.
        bytes_ = "\udc80" <= text[error.start] <= "\udcff"
        raise ValueError(NO_TEXT if bytes_ else "an escape spells half a character, a lone surrogate") from None
    return text


def absent(value) -> bool:
    return value is None or (isinstance(value, Cell) and not value.strip())


def require(row: dict, *keys: str) -> None:
    """
    Raises:
      BadRow: one of the keys is missing, or null.
    """
    if missing := next((key for key in keys if absent(row.get(key))), None):
        raise BadRow(f"key {missing!r} is missing", "; add it to the line")


def plain_id(row: dict, key: str = "id") -> str | int:
    """The row's id: a text, or a whole number, which pandas may have made 1.0.

    Raises:
      BadRow: it is missing, or neither.
    """
    require(row, key)
    id = row[key]
    if isinstance(id, float) and id.is_integer() and abs(id) < EXACT:
        return int(id)
    if not isinstance(id, str | int) or isinstance(id, bool):
        raise BadRow(f"{key} is neither a text nor a whole number", f" but {id!r:.60}; mend the line")
    return id


def id_of(row: dict, key: str = "id") -> str:
    """`plain_id` as a text."""
    return str(plain_id(row, key))


def list_in(value):
    """The list that a text holds, as JSON or as Python writes it; any other value as it is."""
    if isinstance(value, str) and (text := value.strip()).startswith("[") and text.endswith("]"):
        for read in (json.loads, ast.literal_eval):
            try:
                found = read(text)
            except (ValueError, SyntaxError, RecursionError, MemoryError):
                continue
            return sound(found) if isinstance(found, list) else value
    return value


def texts_in(value) -> list[str] | None:
    """A list of texts, or one that a text holds; None: it is none. Nulls in it are absent."""
    value = list_in(value)
    if not isinstance(value, list) or not all(isinstance(one, str | None) for one in value):
        return None
    return [one for one in value if one is not None]


def tags_of(row: dict) -> tuple[str, ...]:
    """The row's "tags", if there are any.

    Raises:
      BadRow: they are no list of texts.
    """
    tags = row.get("tags")
    found = [] if absent(tags) or tags == {} else texts_in(tags)
    if found is None:
        raise BadRow("tags must be a list of texts", "; mend the line")
    return tuple(found)


def number_in(value) -> Any:
    """The number a cell holds, also with a decimal comma; any other value as it is, an empty cell as null."""
    if not isinstance(value, Cell):
        return value
    text = value.strip()
    # A comma before three digits may as well part thousands.
    if _NUMBER.fullmatch(text) and not re.search(r",\d{3}(?!\d)", text):
        return float(text.replace(",", "."))
    return text or None


def truth_in(value) -> Any:
    """True or False of a cell; any other value as it is, an empty cell as null."""
    if not isinstance(value, Cell):
        return value
    return {"true": True, "false": False, "": None}.get(value.strip().lower(), value)
