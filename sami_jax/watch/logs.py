"""The lines of logs: files, packed or not, in the order of their times, standard input, and what is still being written."""

import dataclasses
import gzip
import io
import os
import sys
import time
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from sami_jax.data.fields import BadRow
from sami_jax.errors import UserError
from sami_jax.watch.lines import read_line

LONGEST = 4 << 20  # bytes of a line
STDIN = "-"
PAUSE = 0.5  # seconds between looks at a file that is still written
TRIED = 50  # lines of a file, in which a time is looked for
_GZIP = b"\x1f\x8b"


@dataclasses.dataclass(frozen=True, slots=True)
class Line:
    """
    Attributes:
      content: without its end; None: the line was too long, or the file damaged from here on, by `fault`.
    """

    file: str
    number: int  # from 1
    content: bytes | None
    fault: str = ""


def check_files(files: Sequence[str], follow: bool) -> None:
    """
    Raises:
      UserError: one of them cannot be read, or cannot be followed.
    """
    if STDIN in files and len(files) > 1:
        raise UserError("- is standard input, and stands alone; give it the files by `cat`")
    for name in files:
        if name == STDIN:
            continue
        try:
            with open(name, "rb") as stream:
                packed = not stream.seekable() or stream.read(2) == _GZIP
        except (OSError, ValueError) as error:
            raise UserError(f"{name}: {getattr(error, 'strerror', None) or error}; give the path of a log") from None
        if follow and packed and len(files) == 1:
            raise UserError(
                f"{name}: a packed file, or a pipe, is not followed; leave out --follow, or give - for a pipe"
            )


def in_order(files: Sequence[str]) -> list[str]:
    """By the first time that each tells, whatever rotation has called them; those that tell none keep their place at the end."""
    first = {name: _first_time(name) for name in files if name != STDIN}
    return sorted(files, key=lambda name: first.get(name, 0.0))


def _first_time(name: str) -> float:
    for line in lines_of(name):
        if line.number > TRIED:
            break
        try:
            if line.content and (told := read_line(line.content, float("inf")).time) is not None:
                return told
        except BadRow:
            continue
    return float("inf")


def lines(files: Sequence[str], follow: bool) -> Iterator[Line | None]:
    """Every line that is not blank, file after file; None where nothing new is there yet."""
    for name in files[:-1]:
        yield from lines_of(name)
    if follow and files[-1] != STDIN:
        yield from _followed(files[-1])
    else:
        yield from lines_of(files[-1])


def lines_of(name: str) -> Iterator[Line]:
    """Every line of one file that is not blank."""
    with _opened(name) as stream:
        number = 0
        try:
            while content := stream.readline(LONGEST):
                number += 1
                if len(content) == LONGEST and not content.endswith(b"\n"):
                    while (rest := stream.readline(LONGEST)) and not rest.endswith(b"\n"):
                        pass
                    yield Line(name, number, None, f"longer than {LONGEST >> 20} MiB")
                elif not content.isspace():
                    yield Line(name, number, content)
        except (EOFError, gzip.BadGzipFile, zlib.error):
            yield Line(name, number + 1, None, "a packed file that ends too early or is damaged")


def _opened(name: str) -> BinaryIO:
    if name == STDIN:
        return sys.stdin.buffer
    stream = open(name, "rb")  # noqa: SIM115 (the caller closes it)
    if stream.peek(2)[:2] == _GZIP:
        return io.BufferedReader(gzip.GzipFile(fileobj=stream), 1 << 20)  # pyright: ignore[reportArgumentType]
    return stream


def _followed(name: str) -> Iterator[Line | None]:
    """A file that is written on. Where rotation puts another in its place, or empties it, that one is read from its beginning."""
    number, pending, leaving = 0, b"", False
    stream = open(name, "rb")  # noqa: SIM115 (replaced by rotation)
    try:
        while True:
            content = stream.readline(LONGEST)
            if content:
                pending = pending + content if len(pending) < LONGEST else pending
                if not content.endswith(b"\n"):
                    continue
                number += 1
                if len(pending) >= LONGEST:
                    yield Line(name, number, None, f"longer than {LONGEST >> 20} MiB")
                elif not pending.isspace():
                    yield Line(name, number, pending)
                pending = b""
            elif not leaving and _replaced(name, stream):
                leaving = True  # once more to its end: between the last look and now something may have been written
            elif leaving:
                if pending:
                    yield Line(name, number + 1, pending)
                stream.close()
                stream = open(name, "rb")  # noqa: SIM115
                number, pending, leaving = 0, b"", False
            else:
                yield None
                time.sleep(PAUSE)
    finally:
        stream.close()


def _replaced(name: str, stream: BinaryIO) -> bool:
    """Whether another file is there now, or the same one with less in it. Between two files there may be none."""
    try:
        there = Path(name).stat()
    except OSError:
        return False
    here = os.fstat(stream.fileno())
    return (there.st_dev, there.st_ino) != (here.st_dev, here.st_ino) or there.st_size < stream.tell()


class PassedOver:
    """Lines that told of no answer, by reason, and where the first of each stood."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.first: dict[str, str] = {}

    def add(self, reason: str, file: str, number: int) -> None:
        self.counts[reason] += 1
        self.first.setdefault(reason, f"{file}:{number}")

    def told(self) -> str:
        """In one line."""
        listed = (f"{count}: {reason} ({self.first[reason]} first)" for reason, count in self.counts.most_common())
        return "; ".join(listed)
