"""Disks that are full, read-only, or not ours, limits on files, and storage or a network that does not answer: known before a large
write where that can be, and said in one line."""

import errno
import os
import shutil
import socket
from pathlib import Path

from sami_jax.errors import TryAgain, UserError
from sami_jax.ground import hosts

_MARGIN = 1.05  # of what a large write needs: file systems keep books of their own
_ADVICE = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space",
    errno.EROFS: "use a folder that can be written to",
    errno.EACCES: "use files and folders that you may read and write",
    errno.EPERM: "use files and folders that you may read and write",
    errno.EFBIG: "allow larger files (ulimit -f)",
    errno.EMFILE: "allow a process more open files (ulimit -n)",
    errno.ENFILE: "allow the machine more open files (sysctl fs.file-max)",
}
# What resolvers say (glibc's gai_strerror), within an error of a library above them.
_NAMES = ("Name or service not known", "Temporary failure in name resolution", "No address associated with hostname")
# Of a network, or of storage behind one (NFS, gcsfuse), and of disks that fail: they may be well at the next start.
_PASSING = (
    *(errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ESHUTDOWN, errno.EREMOTEIO, errno.EAGAIN, errno.ETIMEDOUT),
    *(errno.ECONNREFUSED, errno.ECONNRESET, errno.ECONNABORTED, errno.EHOSTUNREACH, errno.EHOSTDOWN),
    *(errno.ENETUNREACH, errno.ENETDOWN, errno.ENETRESET),
)


def check_space(folder: Path, nbytes: int, what: str) -> None:
    """Raises UserError where the disk of `folder` has no room for `nbytes` more."""
    free = hosts.once(lambda: shutil.disk_usage(folder).free)
    if free < nbytes * _MARGIN:
        raise UserError(
            f"{folder}: {what} needs {_size(nbytes)}, {_size(free)} are free; free some space, the same command continues"
        )


def disk_fault(error: BaseException | None, folder: Path) -> UserError | None:
    """What to tell the user of an error that comes of the disk, or of a network; None where it does not. `TryAgain` where the user has
    nothing to change.

    Libraries that write from native code raise errors of their own, which hold the system's text.

    Args:
      folder: where the command writes, for errors that name no file.
    """
    while error is not None:
        where = getattr(error, "filename", None) or folder
        for number, advice in _ADVICE.items():
            if _is(error, number):
                return UserError(f"{where}: {os.strerror(number)}; {advice}, the same command continues")
        for number in _PASSING:
            if _is(error, number):
                return TryAgain(
                    f"{where}: {os.strerror(number)}; look after disk and network, the same command continues"
                )
        if _of_network(error):
            said = " ".join(str(error).split())[:200] or "no answer"
            return TryAgain(f"{where}: {said}; look after the network, the same command continues")
        error = error.__cause__ or error.__context__
    return None


def _of_network(error: BaseException) -> bool:
    """Of a connection, an answer that did not come, or a name that is not known: libraries raise these without a number."""
    if isinstance(error, ConnectionError | TimeoutError | socket.gaierror) and not isinstance(error, BrokenPipeError):
        return True
    return isinstance(error, OSError) and any(text in str(error) for text in _NAMES)


def _is(error: BaseException, number: int) -> bool:
    return getattr(error, "errno", None) == number or os.strerror(number) in str(error)


def _size(nbytes: float) -> str:
    unit, name = (2**30, "GiB") if nbytes >= 2**30 else (2**20, "MiB")
    return f"{nbytes / unit:.1f} {name}"


def hidden(path: Path) -> bool:
    """Whether a path, from the folder that is looked through, is of what file managers and downloads leave there."""
    return any(part.startswith(".") for part in path.parts)
