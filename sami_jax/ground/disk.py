"""Disks that are full, read-only, or not ours, and limits on files: known before a large write where that can be, and said in one line."""

import errno
import os
import shutil
from pathlib import Path

from sami_jax.errors import UserError
from sami_jax.ground import hosts

_MARGIN = 1.05  # of what a large write needs: file systems keep books of their own
_ADVICE = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space",
    errno.EROFS: "use a folder that can be written to",
    errno.EACCES: "use files and folders that you may read and write",
    errno.EPERM: "use files and folders that you may read and write",
    errno.EIO: "look after the disk",
    errno.EFBIG: "allow larger files (ulimit -f)",
    errno.EMFILE: "allow a process more open files (ulimit -n)",
    errno.ENFILE: "allow the machine more open files (sysctl fs.file-max)",
}


def check_space(folder: Path, nbytes: int, what: str) -> None:
    """Raises UserError where the disk of `folder` has no room for `nbytes` more."""
    free = hosts.once(lambda: shutil.disk_usage(folder).free)
    if free < nbytes * _MARGIN:
        raise UserError(
            f"{folder}: {what} needs {_size(nbytes)}, {_size(free)} are free; free some space, the same command continues"
        )


def disk_fault(error: BaseException | None, folder: Path) -> str | None:
    """What to tell the user of an error that comes of the disk; None where it does not.

    Libraries that write from native code raise errors of their own, which hold the system's text.

    Args:
      folder: where the command writes, for errors that name no file.
    """
    while error is not None:
        for number, advice in _ADVICE.items():
            text = os.strerror(number)
            if getattr(error, "errno", None) == number or text in str(error):
                where = getattr(error, "filename", None) or folder
                return f"{where}: {text}; {advice}, the same command continues"
        error = error.__cause__ or error.__context__
    return None


def _size(nbytes: float) -> str:
    unit, name = (2**30, "GiB") if nbytes >= 2**30 else (2**20, "MiB")
    return f"{nbytes / unit:.1f} {name}"


def hidden(path: Path) -> bool:
    """Whether a path, from the folder that is looked through, is of what file managers and downloads leave there."""
    return any(part.startswith(".") for part in path.parts)
