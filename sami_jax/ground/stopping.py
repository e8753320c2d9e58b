"""Stopping when asked: SIGINT (Ctrl-C), SIGTERM (as preempted machines and schedulers send it), SIGHUP (a lost terminal).

Work that is kept as it goes asks `check` at its own good moments: between two responses, after an update. What does not come to
one within GRACE seconds, as a compilation, is ended where it is: what is on disk is whole at any moment. Only training holds
the end back, while updates are in memory alone: it saves them first. A second signal ends at once, whatever goes on.

Exit status: 128 + the signal's number: 130, 143, 129.
"""

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from typing import NoReturn

from sami_jax.errors import Stopped
from sami_jax.ground import hosts

GRACE = 5.0  # seconds; Kubernetes and preempted machines give 30
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_SHOW_CURSOR = "\x1b[?25h"  # a progress bar hides it

_asked: signal.Signals | None = None  # the signal that came
_held = False  # whether updates are in memory alone


@contextlib.contextmanager
def gracefully() -> Iterator[None]:
    """From here on until the block is left, the work inside decides when it ends. Without it, a signal is an exception at once.

    Where the process is not ours (signals are handled by its main thread alone), nothing changes.
    """
    global _asked
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _asked = None
    # A Python handler runs only once native code has returned, which compiles for minutes. A thread does not wait.
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    before = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(ours,), name="signals", daemon=True).start()
    with _handled(_note):
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)
            theirs.close()


def at_once() -> contextlib.AbstractContextManager[None]:
    """Until the block is left, a signal raises Stopped wherever the process is; from a thread that is not the main one, nothing
    changes."""
    return _handled(_raise)


def check() -> None:
    """A good moment to end.

    Raises:
      Stopped: if somebody asked, and no update is in memory alone.
    """
    if _asked and not _held:
        raise _stopped(_asked)


def end() -> NoReturn:
    """Raises Stopped: `anywhere` says that it is time."""
    raise _stopped(_asked or signal.SIGTERM)


def hold() -> None:
    """Updates are in memory alone: they are to be saved before the process ends."""
    global _held
    _held = True


def release() -> None:
    global _held
    _held = False


def anywhere() -> bool:
    """Whether a process of the run was asked: all of them get the same answer, and must call this."""
    return hosts.anywhere(_asked is not None)


@contextlib.contextmanager
def _handled(handler) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # Python lets no other set handlers
        yield
        return
    # One that is ignored, as by nohup, stays so.
    before = {number: signal.getsignal(number) for number in SIGNALS}
    chosen = [number for number, found in before.items() if found is not signal.SIG_IGN]
    for number in chosen:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number in chosen:
            signal.signal(number, before[number])


def _note(number: int, _frame) -> None:
    global _asked
    _asked = _asked or signal.Signals(number)


def _raise(number: int, _frame) -> None:
    raise _stopped(signal.Signals(number))


def _watch(signals: socket.socket) -> None:
    """Sees the first signal, and ends the process if the work does not, or at the second."""
    while signalled := signals.recv(1):  # also by others, which are not our business
        if signalled[0] in SIGNALS:
            break
    else:
        return
    _note(signalled[0], None)
    _tell(f"\n{signal.Signals(signalled[0]).name}: ending; once more ends at once")
    signals.settimeout(GRACE)
    while True:
        try:
            signalled = signals.recv(1)
        except TimeoutError:
            if not _held:
                _end()
            continue
        if not signalled:
            return
        if signalled[0] in SIGNALS:
            _end()


def _end() -> None:
    stopped = _stopped(_asked or signal.SIGTERM)
    _tell(f"{_SHOW_CURSOR if sys.stderr.isatty() else ''}sami: {stopped}")
    os._exit(stopped.status)


def _stopped(number: signal.Signals) -> Stopped:
    return Stopped(128 + number, f"stopped by {number.name}; the same command continues")


def _tell(line: str) -> None:
    """Without the locks of the streams, which the main thread may hold."""
    with contextlib.suppress(OSError, ValueError):
        os.write(sys.stderr.fileno(), f"{line}\n".encode())
