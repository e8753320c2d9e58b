"""JSON Lines files: read with errors that name the line, written whole or not at all."""

import json
import os
from collections.abc import Iterable
from pathlib import Path

from sami_jax import hosts
from sami_jax.errors import UserError


def read_jsonl(file: Path, required: tuple[str, ...] = ()) -> list[dict]:
    """Reads one object a line; blank lines are passed over.

    Args:
      required: keys that every object must have.
    Raises:
      UserError: a missing file, or a line that is not an object with the required keys; names file and line.
    """
    return [row for _, row in read_numbered(file, required)]


def read_numbered(file: Path, required: tuple[str, ...] = ()) -> list[tuple[int, dict]]:
    """Like `read_jsonl`, with each object's line number, from 1."""
    try:
        lines = file.read_bytes().split(b"\n")
    except OSError as error:
        raise UserError(f"{file}: {error.strerror or error}; give the path of a JSONL file") from None
    rows = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line.decode("utf-8-sig"))
        except ValueError as error:
            raise UserError(f"{file}:{number}: not valid JSON ({error}); mend or remove the line") from None
        if not isinstance(row, dict):
            raise UserError(f'{file}:{number}: not a JSON object; each line must look like {{"id": ..., ...}}')
        if missing := [key for key in required if key not in row]:
            raise UserError(f"{file}:{number}: key {missing[0]!r} is missing; add it to the line")
        rows.append((number, row))
    if not rows:
        raise UserError(f"{file}: no lines; give a JSONL file with at least one object")
    return rows


def read_appended(file: Path) -> list[dict]:
    """The whole lines of a file of our own that may have been stopped in mid-write: a torn last line is left out."""
    if not file.exists():
        return []
    *lines, _torn = file.read_bytes().split(b"\n")
    return [json.loads(line) for line in lines]


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
    partial = file.with_name(file.name + ".partial")
    with open(partial, "w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(file)
