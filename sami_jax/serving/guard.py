"""Holds a server, and ends it with all that it started when the run goes, however it goes: a killed run can end nobody.

A program of its own, which the run starts and whose standard input it holds open; it needs nothing but Python:

    guard.py LOG COMMAND [ARGUMENT ...]

It prints the server's process id, or "!" and why there is none. The server is the first of a process group of its own.
"""

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys

PATIENCE = 10.0  # seconds that a server has to end by itself
LOOK = 0.5  # seconds between two looks
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of Linux


def hold(log: str, command: list[str]) -> int:
    """Returns the server's exit status, once it is gone."""
    parent = os.getppid()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    with open(log, "ab") as stream:
        try:
            server = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                start_new_session=True,
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,
            )
        except OSError as error:
            print(f"!{error.strerror}", flush=True)
            return 127
    print(server.pid, flush=True)
    while server.poll() is None and os.getppid() == parent:
        if select.select([sys.stdin], [], [], LOOK)[0]:  # closed: nothing is ever written
            break
    return _end(server)


def _end(server: subprocess.Popen) -> int:
    with contextlib.suppress(subprocess.TimeoutExpired):
        if server.poll() is None:
            server.terminate()
            server.wait(PATIENCE)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)  # also what it left behind
    return server.wait()


def _die_with_parent() -> None:
    """For a guard that is itself killed."""
    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(hold(sys.argv[1], sys.argv[2:]))
