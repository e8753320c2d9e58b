"""One run a folder: two at once would write over each other and break the audit log's chain."""

import contextlib
import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from sami_jax.errors import UserError

LOCK = "run.lock"  # tells who holds it; the system lets go of it when the process ends, however it does: none is ever stale


@contextlib.contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Makes the folder this process's own until the block is left.

    Raises:
      UserError: another process holds it; names its number and host.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / LOCK, "a+", encoding="utf-8") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            stream.seek(0)
            holder = stream.read().strip() or "another process"
            raise UserError(f"{folder}: in use by {holder}; wait until it ends, or use another folder") from None
        stream.truncate(0)
        stream.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        stream.flush()
        yield
