"""One run a folder: two at once would write over each other and break the audit log's chain. One writer at a time elsewhere.

Not every file system of a cluster knows flock: Lustre without -o flock says ENOSYS, NFS without statd ENOLCK, Cray's DVS 524. Some know
POSIX's locks all the same.
"""

import contextlib
import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from sami_jax.errors import UserError
from sami_jax.ground import hosts

_NO_LOCKS = (
    errno.ENOLCK,
    errno.ENOSYS,
    errno.EOPNOTSUPP,
    errno.ENOTSUP,
    errno.EINVAL,
    524,
)  # 524: the kernel's own ENOTSUPP
LOCK = "run.lock"  # tells who holds it; the system lets go of it when the process ends, however it does: none is ever stale


@contextlib.contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Makes the folder this process's own until the block is left; of many processes, the first's. Where the file system has no
    locks, as some that are shared over a network, that is said, and the work goes on.

    Raises:
      UserError: another process holds it; names its number and host.
    """
    with contextlib.ExitStack() as held:
        hosts.once(lambda: _take(folder, held))
        yield


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Lets in one writer at a time, of this process's threads and of other processes, which wait; for what takes milliseconds. It leaves
    no file. Where the file system has no locks, all are let in."""
    place = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(place, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in (*_NO_LOCKS, errno.EBADF):  # the last is of NFS, which locks files alone
                raise
        yield
    finally:
        os.close(place)


def _take(folder: Path, held: contextlib.ExitStack) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    stream = held.enter_context((folder / LOCK).open("a+", encoding="utf-8"))
    try:
        why_not = _lock(stream)
    except BlockingIOError:
        stream.seek(0)
        holder = stream.read().strip() or "another process"
        raise UserError(f"{folder}: in use by {holder}; wait until it ends, or use another folder") from None
    if why_not:
        from sami_jax.ground.terminal import say  # a start, which imports this, does without

        say(f"WARNING: {folder}: this file system has no locks ({why_not}); start no other command in this folder")
    stream.truncate(0)
    stream.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    stream.flush()


def _lock(stream: IO) -> str | None:
    """Takes the lock of an open file, of whichever kind the file system has; where it has none, what it says.

    Raises:
      BlockingIOError: another process has it.
    """
    for kind in (fcntl.flock, fcntl.lockf):
        try:
            return kind(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if (
                kind is fcntl.lockf and error.errno == errno.EACCES
            ):  # POSIX leaves it to the system which of the two it says
                raise BlockingIOError(*error.args) from None
            if error.errno not in _NO_LOCKS:
                raise
            said = error.strerror or f"error {error.errno}"
    return said
