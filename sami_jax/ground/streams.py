"""The standard streams of a process that is ours: what is shown cannot be what ends the work."""

import io
import os
import sys
from typing import BinaryIO, TextIO

from sami_jax.errors import UserError


class _Stream(io.TextIOWrapper):
    """stdout or stderr: characters that its encoding lacks are escaped.

    Once it cannot be written to, what follows is dropped: its reader has gone, as `head` does, or the terminal was closed. A
    stream of results on a disk that cannot hold them raises UserError, once; one of news says nothing.
    """

    def __init__(self, buffer: BinaryIO, results: bool, encoding: str, line_buffering: bool, write_through: bool):
        super().__init__(buffer, encoding, "backslashreplace", None, line_buffering, write_through)
        self._results = results

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError as error:
            self._give_up(error)
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())
        os.close(nowhere)
        if self._results and not isinstance(error, BrokenPipeError):
            raise UserError(f"standard output: {error.strerror}; have the results go elsewhere") from None


def take_streams() -> None:
    """Makes stdout and stderr such streams, and opens those that are closed onto nothing: else the next file that is opened would
    be taken for one."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    sys.stdout, sys.stderr = _taken(sys.stdout, 1, results=True), _taken(sys.stderr, 2, results=False)
    if isinstance(sys.stdin, io.TextIOWrapper) and sys.stdin.encoding.lower() == "ascii":
        sys.stdin.reconfigure(encoding="utf-8", errors="replace")  # of which ASCII is a part


def _taken(stream: TextIO | None, number: int, results: bool) -> TextIO | None:
    if stream is None:  # was closed
        nowhere = open(number, "wb", closefd=False)  # noqa: SIM115 (open as long as the process)
        return _Stream(nowhere, results, "utf-8", line_buffering=False, write_through=False)
    if isinstance(stream, io.TextIOWrapper):
        return _Stream(stream.buffer, results, stream.encoding, stream.line_buffering, stream.write_through)
    return stream
