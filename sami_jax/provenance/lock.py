"""One run a folder: two at once would write over each other and break the audit log's chain."""

import fcntl
import os
import socket
from pathlib import Path
from typing import IO

from sami_jax.errors import UserError

LOCK = "run.lock"  # tells who holds it; the system lets go of it with the process, however that ends, so none is ever stale


def lock_folder(folder: Path) -> IO[str]:
    """Takes the folder for this process, until the returned file is closed or the process ends.

    Raises:
      UserError: another process holds it; names its number and host.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stream = open(folder / LOCK, "a+", encoding="utf-8")  # noqa: SIM115 the caller keeps it open
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        stream.seek(0)
        holder = stream.read().strip() or "another process"
        stream.close()
        raise UserError(f"{folder}: in use by {holder}; wait until it ends, or use another folder") from None
    stream.truncate(0)
    stream.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    stream.flush()
    return stream
