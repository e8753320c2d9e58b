"""A server that was started for a run, behind its guard."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from sami_jax.errors import TryAgain, UserError
from sami_jax.ground import stopping
from sami_jax.ground.display import doing
from sami_jax.ground.redaction import redact
from sami_jax.serving import guard

T = TypeVar("T")

LOOK = 0.25  # seconds between two questions whether it answers
_LONGEST = 200  # characters of its last words that are shown


class ServerProcess:
    """A command that runs until `end`; all that it prints is in a file."""

    def __init__(self, command: Sequence[str], log: Path):
        """
        Raises:
          UserError: no such program.
        """
        self.command, self._log = tuple(command), log
        log.parent.mkdir(parents=True, exist_ok=True)
        self._begun = log.stat().st_size if log.exists() else 0
        # Isolated: nothing of the run's folder or environment is imported. A session of its own: the terminal's signals are the run's.
        argv = [sys.executable, "-I", guard.__file__, str(log), *command]
        pipe = subprocess.PIPE
        self._guard = subprocess.Popen(argv, stdin=pipe, stdout=pipe, text=True, start_new_session=True)
        told = self._guard.stdout.readline().strip() if self._guard.stdout else ""
        if not told.isdecimal():
            self._guard.wait()
            raise UserError(f"config.server.command: {command[0]}: {told[1:] or 'did not start'}; mend it")
        self.pid = int(told)

    @property
    def runs(self) -> bool:
        return self._guard.poll() is None

    def last_words(self) -> str:
        """The last line of what it printed that says something."""
        with open(self._log, "rb") as stream:
            stream.seek(max(self._begun, self._log.stat().st_size - 2**16))
            lines = re.sub(r"\x1b\[[\d;]*m", "", stream.read().decode("utf-8", "replace")).splitlines()
        return redact(next((line.strip() for line in reversed(lines) if line.strip()), ""))[:_LONGEST]

    def gone(self) -> UserError:
        """What to raise where it has ended by itself."""
        words = self.last_words()
        said = f': "{words}"' if words else ""
        return UserError(
            f"config.server.command: {self.command[0]} ended with status {self._guard.wait()}{said}; all that it said is in {self._log}"
        )

    def end(self) -> None:
        """Returns once the server is gone, and what it started."""
        if self._guard.stdin:
            with contextlib.suppress(BrokenPipeError):
                self._guard.stdin.close()
        try:
            self._guard.wait(2 * guard.PATIENCE)
        except subprocess.TimeoutExpired:
            self._guard.kill()
            self._guard.wait()
        with contextlib.suppress(ProcessLookupError):  # where the guard was killed
            os.killpg(self.pid, signal.SIGKILL)


def wait_until_ready(process: ServerProcess, probe: Callable[[], T], within: float, title: str) -> T:
    """What `probe` returns, which raises TryAgain as long as the server does not answer.

    Raises:
      UserError: it ended, refuses what a run asks, or does not answer in time.
      Stopped: somebody asked.
    """
    begun = time.monotonic()
    with doing(title):
        while True:
            try:
                return probe()
            except TryAgain as not_yet:
                stopping.check()
                if not process.runs:
                    raise process.gone() from None
                if time.monotonic() - begun > within:
                    raise UserError(
                        f"{process.command[0]}: no answer within config.server.start_within={within:g} s ({not_yet})"
                    ) from None
            except UserError:
                if not process.runs:
                    raise process.gone() from None
                raise
            time.sleep(LOOK)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]
