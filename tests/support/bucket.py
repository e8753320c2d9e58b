"""A bucket as gcsfuse shows it, with the habits that its own page docs/semantics.md tells (version 3), as a FUSE file system:

    python bucket.py OBJECTS MOUNT [--flat] [--ttl SECONDS] [--negative_ttl SECONDS]

- What is written is staged on the host, and an object once the file is closed: until then no other host sees it, and a host that is lost
  takes it along. `fsync` brings what is added to an object to the bucket, but not what is new.
- Nothing is changed in place: to add a line to an object is to write it anew, at most once a second. Whoever has it open for reading is told
  ESTALE, and so is the second of two hosts that write it.
- A folder is renamed at once in a bucket with a hierarchical namespace; in a flat one, object by object. With files in it that are not
  objects yet, it is not renamed at all.
- Locks are the host's own. There are no hard links, no permissions and no extended attributes.
- Metadata, and that a name is not there, may be remembered.

OBJECTS stands for the bucket: each host has this file system over the same one. Wants mfusepy, and Debian's libfuse2 or libfuse3-3.
"""

import argparse
import dataclasses
import errno
import itertools
import os
import shutil
import stat
import tempfile
import time
from pathlib import Path

try:
    import mfusepy
except (ImportError, OSError):  # the latter where there is no libfuse
    mfusepy = None

CHANGES = 1.0  # seconds between two changes of one object
_STEP = 0.02  # seconds to copy and delete an object of a flat bucket
_SHOWN = ("st_nlink", "st_size", "st_atime_ns", "st_mtime_ns", "st_ctime_ns")


def can_be_mounted() -> bool:
    return mfusepy is not None and os.access("/dev/fuse", os.R_OK | os.W_OK) and os.geteuid() == 0


@dataclasses.dataclass
class _Staged:
    """A file that is being written here."""

    descriptor: int
    source: tuple | None  # the object's generation that it was made of; None is of a file that is no object yet
    handles: int = 0
    dirty: bool = True


@dataclasses.dataclass
class _Reading:
    descriptor: int
    source: tuple


class Bucket(mfusepy.Operations if mfusepy else object):  # pyright: ignore[reportGeneralTypeIssues]
    use_ns = True

    def __init__(self, objects: Path, flat: bool):
        self._objects, self._flat = objects, flat
        self._uploads = objects.with_name(objects.name + ".uploads")  # on the bucket's side, and not yet seen
        self._uploads.mkdir(exist_ok=True)
        self._staged: dict[str, _Staged] = {}
        self._open: dict[int, _Staged | _Reading] = {}
        self._numbers = itertools.count(1)
        self._changed: dict[str, float] = {}

    # Names

    def getattr(self, path, fh=None):
        if path in self._staged:
            found = os.fstat(self._staged[path].descriptor)
            return {"st_mode": stat.S_IFREG | 0o644, **_shown(found), "st_nlink": 1}
        found = os.lstat(self._object(path))
        mode = 0o755 if stat.S_ISDIR(found.st_mode) else 0o644
        return {"st_mode": stat.S_IFMT(found.st_mode) | mode, **_shown(found)}

    def readdir(self, path, fh):
        names = set(os.listdir(self._object(path)))
        names |= {os.path.basename(name) for name in self._staged if os.path.dirname(name) == path}
        return [".", "..", *sorted(names)]

    def mkdir(self, path, mode):
        os.mkdir(self._object(path))

    def rmdir(self, path):
        if self._local_below(path):
            raise OSError(errno.ENOTEMPTY, path)
        os.rmdir(self._object(path))

    def unlink(self, path):
        local = self._staged.pop(path, None)
        if not (local and local.source is None):
            os.unlink(self._object(path))

    def symlink(self, target, source):
        os.symlink(source, self._object(target))

    def readlink(self, path):
        return os.readlink(self._object(path))

    def link(self, target, source):
        raise OSError(errno.ENOSYS, target)

    def rename(self, old, new):
        if os.path.isdir(self._object(old)):
            if self._local_below(old):
                raise OSError(errno.ENOTSUP, old)
            self._rename_folder(self._object(old), self._object(new))
            return
        if (local := self._staged.pop(old, None)) and (local.dirty or local.source is None):
            self._upload(old, local)
        os.replace(self._object(old), self._object(new))
        self._staged.pop(new, None)

    def _rename_folder(self, old: Path, new: Path) -> None:
        if not self._flat:
            os.rename(old, new)
            return
        new.mkdir(exist_ok=True)
        if any(new.iterdir()):
            raise OSError(errno.ENOTEMPTY, str(new))
        for source in sorted(old.rglob("*")):
            time.sleep(_STEP)
            target = new / source.relative_to(old)
            if source.is_dir():
                target.mkdir()
            else:
                os.replace(source, target)
        shutil.rmtree(old)

    def _local_below(self, path: str) -> bool:
        return any(name.startswith(path + "/") and staged.source is None for name, staged in self._staged.items())

    # Contents

    def create(self, path, mode, flags):
        if not self._object(path).parent.is_dir():
            raise OSError(errno.ENOENT, path)
        self._staged[path] = _Staged(_temporary(), None)
        return self._handle(self._staged[path])

    def open(self, path, flags):
        if path in self._staged:
            return self._handle(self._staged[path])
        if flags & (os.O_WRONLY | os.O_RDWR):
            return self._handle(self._stage(path))
        descriptor = os.open(self._object(path), os.O_RDONLY)
        return self._handle(_Reading(descriptor, _generation(os.fstat(descriptor))))

    def read(self, path, size, offset, fh):
        file = self._open[fh]
        if isinstance(file, _Reading) and self._now(path) != file.source:
            raise OSError(errno.ESTALE, path)
        return os.pread(file.descriptor, size, offset)

    def write(self, path, data, offset, fh):
        file = self._open[fh]
        assert isinstance(file, _Staged)
        file.dirty = True
        return os.pwrite(file.descriptor, data, offset)

    def truncate(self, path, length, fh=None):
        file = self._staged.get(path) or self._stage(path)
        file.dirty = True
        os.ftruncate(file.descriptor, length)

    def fsync(self, path, datasync, fh):
        file = self._open[fh]
        if isinstance(file, _Staged) and file.dirty and file.source is not None:
            self._upload(path, file)

    def flush(self, path, fh):
        file = self._open[fh]
        if isinstance(file, _Staged) and file.dirty:
            self._upload(path, file)

    def release(self, path, fh):
        file = self._open.pop(fh)
        if isinstance(file, _Staged):
            file.handles -= 1
            if file.handles:
                return
            if self._staged.get(path) is file:
                del self._staged[path]
        os.close(file.descriptor)

    def utimens(self, path, times=None):
        now = time.time_ns()
        place = self._staged[path].descriptor if path in self._staged else self._object(path)
        os.utime(place, ns=times or (now, now))

    def chmod(self, path, mode):
        return 0

    def chown(self, path, uid, gid):
        return 0

    def statfs(self, path):
        found = os.statvfs(self._objects)
        names = ("f_bsize", "f_frsize", "f_blocks", "f_bfree", "f_bavail", "f_files", "f_ffree", "f_namemax")
        return {name: getattr(found, name) for name in names}

    def _object(self, path: str) -> Path:
        return self._objects / path.lstrip("/")

    def _now(self, path: str) -> tuple | None:
        try:
            return _generation(os.stat(self._object(path)))
        except FileNotFoundError:
            return None

    def _handle(self, file: _Staged | _Reading) -> int:
        number = next(self._numbers)
        self._open[number] = file
        if isinstance(file, _Staged):
            file.handles += 1
        return number

    def _stage(self, path: str) -> _Staged:
        """The whole of an object, to be written to."""
        with open(self._object(path), "rb") as content:
            staged = _Staged(_temporary(), _generation(os.fstat(content.fileno())), dirty=False)
            with os.fdopen(os.dup(staged.descriptor), "wb") as copy:
                shutil.copyfileobj(content, copy)
        self._staged[path] = staged
        return staged

    def _upload(self, path: str, file: _Staged) -> None:
        if self._now(path) != file.source:
            raise OSError(errno.ESTALE, path)
        time.sleep(max(0.0, self._changed.get(path, 0.0) + CHANGES - time.monotonic()))
        upload = self._uploads / f"{os.getpid()}.{next(self._numbers)}"
        with open(upload, "wb") as copy:
            size = os.fstat(file.descriptor).st_size
            while copy.tell() < size:
                copy.write(os.pread(file.descriptor, 2**20, copy.tell()))
        os.utime(upload, ns=(time.time_ns(), os.fstat(file.descriptor).st_mtime_ns))
        os.replace(upload, self._object(path))
        file.source, file.dirty = self._now(path), False
        self._changed[path] = time.monotonic()


def _temporary() -> int:
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _generation(found: os.stat_result) -> tuple:
    return found.st_ino, found.st_mtime_ns, found.st_size


def _shown(found: os.stat_result) -> dict[str, int]:
    """A file's or folder's numbers; it is ours, whoever made it."""
    numbers = {name.removesuffix("_ns"): getattr(found, name) for name in _SHOWN}
    return {**numbers, "st_uid": os.getuid(), "st_gid": os.getgid()}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("objects", type=Path)
    parser.add_argument("mount")
    parser.add_argument("--flat", action="store_true")
    parser.add_argument("--ttl", type=float, default=0.0)
    parser.add_argument("--negative_ttl", type=float, default=0.0)
    given = parser.parse_args()
    assert mfusepy is not None, "mfusepy and libfuse are not installed"
    # Alone in a thread: what two hosts do at once is what is looked at, not what one does.
    mfusepy.FUSE(
        Bucket(given.objects, given.flat),
        given.mount,
        foreground=True,
        nothreads=True,
        hard_remove=True,
        attr_timeout=given.ttl,
        entry_timeout=given.ttl,
        negative_timeout=given.negative_ttl,
    )


if __name__ == "__main__":
    main()
