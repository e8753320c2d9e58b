"""JSON and JSON Lines files: read with errors that name the place, written whole or not at all."""

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from sami_jax.errors import UserError
from sami_jax.ground import hosts
from sami_jax.ground.terminal import say

T = TypeVar("T")
Line = TypeVar("Line")
DEEPEST = 100  # levels of nesting that are read


class BadRow(Exception):
    """A row that cannot be used: the reason, under which such rows are counted, and the particulars with what to do."""

    def __init__(self, reason: str, particulars: str):
        super().__init__(reason + particulars)
        self.reason = reason


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
    file: Path, required: tuple[str, ...], read: Callable[[dict], T], skipped: Skipped | None = None
) -> list[tuple[int, T]]:
    """Reads one object a line; blank lines are passed over.

    Args:
      required: keys that every object must have.
      read: makes of a row what is wanted; raises BadRow.
      skipped: takes the bad rows; None: the first of them is an error.
    Returns:
      what `read` gave, each with its line's number, from 1.
    Raises:
      UserError: a missing file, a bad row, or no good one; names file and line.
    """
    return usable(file, numbered_lines(file), lambda line: read(row_of(line, required)), skipped)


def read_jsonl(file: Path, required: tuple[str, ...] = ()) -> list[dict]:
    """The objects of a file, one a line; raises UserError as `read_rows` does."""
    return [row for _, row in read_rows(file, required, lambda row: row)]


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


def numbered_lines(file: Path) -> list[tuple[int, bytes]]:
    """The lines that are not blank, each with its number, from 1.

    Raises:
      UserError: a file that cannot be read.
    """
    return lines_of(read_bytes(file, "give the path of a JSONL file"))


def lines_of(content: bytes) -> list[tuple[int, bytes]]:
    """The lines that are not blank, each with its number, from 1."""
    return [(number, line) for number, line in enumerate(content.split(b"\n"), start=1) if line.strip()]


def row_of(line: bytes, required: tuple[str, ...]) -> dict:
    """A line's object.

    Raises:
      BadRow: not JSON, no object, or a key is missing.
    """
    try:
        row = parse(line)
    except ValueError as error:
        raise BadRow("not valid JSON", f" ({error}); mend or remove the line") from None
    if not isinstance(row, dict):
        raise BadRow("not a JSON object", '; each line must look like {"id": ..., ...}')
    if missing := [key for key in required if key not in row]:
        raise BadRow(f"key {missing[0]!r} is missing", "; add it to the line")
    return row


def id_of(row: dict, key: str = "id") -> str:
    """The row's id as a text.

    Raises:
      BadRow: it is neither a text nor a whole number.
    """
    id = row[key]
    if not isinstance(id, str | int) or isinstance(id, bool):
        raise BadRow(f"{key} is neither a text nor a whole number", f" but {id!r:.60}; mend the line")
    return str(id)


def tags_of(row: dict) -> tuple[str, ...]:
    """The row's "tags", if there are any.

    Raises:
      BadRow: they are no list of texts.
    """
    tags = row.get("tags") or []
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise BadRow("tags must be a list of texts", "; mend the line")
    return tuple(tags)


def parse(content: bytes):
    """What a JSON text says, where it says one thing only, and that in Unicode and in finite numbers.

    Raises:
      ValueError: says why not.
    """
    return _parsed(content, object_pairs_hook=_object, parse_constant=_no_number, parse_float=_finite)


def parse_measured(content: bytes):
    """Like `parse`, of what was measured and written by us: a number may be NaN."""
    return _parsed(content)


def _parsed(content: bytes, **hooks):
    try:
        text = content.decode("utf-8-sig")
        value = json.loads(text, **hooks)
    except RecursionError:
        raise ValueError("nested too deep") from None
    if text.count("[") + text.count("{") > DEEPEST and _depth(value) > DEEPEST:
        raise ValueError("nested too deep")
    if "\\u" in text:  # an escape can spell half a character, which no file can hold
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise ValueError("an escape spells half a character, a lone surrogate") from None
    return value


def _depth(value) -> int:
    depth, level = 0, [value]
    while level := [below for one in level for below in _below(one)]:
        depth += 1
    return depth


def _below(value) -> Iterable:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def read_json(file: Path, advice: str, parse: Callable[[bytes], Any] = parse) -> Any:
    """What a JSON file says.

    Args:
      advice: what to do where it cannot be read.
      parse: `parse` or `parse_measured`.
    Raises:
      UserError: it cannot be read, or is no JSON.
    """
    try:
        return parse(read_bytes(file, advice))
    except ValueError as error:
        raise UserError(f"{file}: not readable JSON ({error}); {advice}") from None


def read_bytes(file: Path, advice: str) -> bytes:
    """
    Raises:
      UserError: the file cannot be read.
    """
    try:
        return file.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a path with a zero byte
        raise UserError(f"{file}: {getattr(error, 'strerror', None) or error}; {advice}") from None


def read_appended(file: Path) -> list[dict]:
    """The whole lines of a file of our own that may have been stopped in mid-write: a torn last line is left out.

    Raises:
      UserError: a whole line is no object; names it.
    """
    if not file.exists():
        return []
    *lines, _torn = read_bytes(file, "restore it").split(b"\n")
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(parse_measured(line))
        except ValueError:
            rows.append(None)
        if not isinstance(rows[-1], dict):
            raise UserError(f"{file}:{number}: not a JSON object; restore the file")
    return rows


def write_jsonl(file: Path, rows: Iterable[dict]) -> None:
    write_text(file, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def write_json(file: Path, content) -> None:
    write_text(file, json.dumps(content, ensure_ascii=False, indent=2) + "\n")


def write_text(file: Path, text: str) -> None:
    """`replace_text`, of many processes by the first; all must call this."""
    hosts.once(lambda: replace_text(file, text))


def replace_text(file: Path, text: str) -> None:
    """Writes beside, then renames: readers see the old file or the new one, never half of it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.parent / f"{file.name}.partial"
    with open(partial, "w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(file)


def _object(pairs: list[tuple[str, object]]) -> dict:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen = Counter(key for key, _ in pairs)
        raise ValueError(f"key {seen.most_common(1)[0][0]!r} stands twice")
    return found


def _no_number(name: str):
    raise ValueError(f"{name} is no number")


def _finite(digits: str) -> float:
    if (value := float(digits)) in (float("inf"), float("-inf")):
        raise ValueError(f"{digits[:20]} is too large a number")
    return value
