"""JSON and JSON Lines files: read with errors that name the place, written whole or not at all."""

import json
import math
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, Any

from sami_jax.data.fields import Unreadable, sound
from sami_jax.errors import TryAgain, UserError
from sami_jax.ground import hosts
from sami_jax.ground.disk import disk_fault

CLOSED_EVERY = (
    60.0  # seconds of lines that a machine that is lost takes with it, where storage gets files when they are closed
)
_BLANK = " \t\r\n"  # to JSON


def read_jsonl(file: Path) -> list[dict]:
    """The objects of a file that a run wrote, one a line; blank lines are passed over.

    Raises:
      UserError: a missing file, a line that is no object, or no line; names file and line.
    """
    rows = []
    for number, line in lines_of(read_bytes(file, "give the path of a JSONL file")):
        try:
            row = parse(line)
        except ValueError as error:
            raise UserError(f"{file}:{number}: not valid JSON ({error}); mend or remove the line") from None
        if not isinstance(row, dict):
            raise UserError(f'{file}:{number}: not a JSON object; each line must look like {{"id": ..., ...}}')
        rows.append(row)
    if not rows:
        raise UserError(f"{file}: no lines that can be used; give a file with at least one good row")
    return rows


def lines_of(content: bytes) -> list[tuple[int, bytes]]:
    """The lines that are not blank, each with its number, from 1; they end as Unix, Windows or old Macs have it."""
    end = b"\r" if b"\r" in content and b"\n" not in content else b"\n"
    return [(number, line) for number, line in enumerate(content.split(end), start=1) if line.strip()]


def parse(content: bytes) -> Any:
    """What a JSON text says, where it says one thing only, and that in Unicode and in finite numbers.

    Raises:
      ValueError: says why not.
    """
    return sound(whole(content.decode("utf-8-sig"), _STRICT))


def parse_measured(content: bytes) -> Any:
    """Like `parse`, of what was measured and written by us: a number may be NaN."""
    return sound(whole(content.decode("utf-8-sig"), _MEASURED), nan=math.nan)


def loose(content: bytes):
    """Like `parse`, of what is used in part: NaN is null, and what cannot be read is Unreadable, for `sound` to tell."""
    return whole(content.decode("utf-8-sig", "surrogateescape"), LOOSE)


def whole(text: str, decoder: json.JSONDecoder):
    """What a text says that is one JSON value.

    Raises:
      ValueError: it is none; says why.
    """
    value, end = decoded(text.strip(_BLANK), 0, decoder)
    if end < len(text.strip(_BLANK)):
        raise ValueError(f"Extra data: column {end + 1}")
    return value


def decoded(text: str, place: int, decoder: json.JSONDecoder) -> tuple[Any, int]:
    """The JSON value that begins at a place of a text, and where it ends.

    Raises:
      ValueError: none does; says why.
    """
    try:
        return decoder.raw_decode(text, place)
    except RecursionError:
        raise ValueError("nested too deep") from None


def read_json(file: Path, advice: str, parse: Callable[[bytes], Any] = parse) -> Any:
    """What a JSON file says.

    Args:
      advice: what to do where it cannot be read.
      parse: `parse`, or `parse_measured`.
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
        if isinstance(fault := disk_fault(error, file), TryAgain):
            raise fault from None
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


class Appended:
    """A file that lines are added to. A line is the system's once it is added, and survives this process. Storage behind gcsfuse
    gets a file when it is closed, and takes about one change of it a second; so it is closed once a minute. A context manager.
    """

    def __init__(self, file: Path | str):
        self._file = file
        self._stream: IO[str] | None = None
        self._opened = 0.0

    def __enter__(self) -> "Appended":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def add(self, row: dict) -> None:
        if self._stream is None:
            self._stream, self._opened = open(self._file, "a", encoding="utf-8"), time.monotonic()  # noqa: SIM115 (see close)
        self._stream.write(json.dumps(row, ensure_ascii=False) + "\n")
        self._stream.flush()
        if time.monotonic() - self._opened > CLOSED_EVERY:
            self.close()

    def close(self) -> None:
        """What was added is on the storage, whatever becomes of this machine; more may be added."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None


def _object(pairs: list[tuple[str, object]]) -> dict:
    found = dict(pairs)
    if len(found) < len(pairs):
        for key, count in Counter(key for key, _ in pairs).items():
            if count > 1:
                found[key] = Unreadable(f"key {key!r:.60} stands twice")
    return found


def _finite(digits: str) -> float | Unreadable:
    value = float(digits)
    return Unreadable(f"{digits[:20]} is too large a number") if value in (float("inf"), float("-inf")) else value


def _decoder(nan) -> json.JSONDecoder:
    def constant(name: str):
        return nan if name == "NaN" else Unreadable(f"{name} is no number")

    return json.JSONDecoder(object_pairs_hook=_object, parse_constant=constant, parse_float=_finite)


_STRICT, LOOSE, _MEASURED = _decoder(Unreadable("NaN is no number")), _decoder(None), json.JSONDecoder()
