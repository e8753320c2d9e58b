"""SHA-256 digests of files and of JSON content. Files are read side by side, and on many processes each reads its share."""

import concurrent.futures
import hashlib
import json
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from sami_jax.ground import hosts
from sami_jax.ground.disk import hidden

THREADS = min(8, os.cpu_count() or 1)  # that hash at once: hashlib lets them
SETTLED = 2.0  # seconds since a file's last change from which on another would show in its times, on any file system


def json_digest(content) -> str:
    """Of canonical JSON: sorted keys, no spaces, UTF-8."""
    canonical = json.dumps(content, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def file_digest(file: Path) -> str:
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def file_digests(files: Iterable[Path], root: Path) -> dict[str, str]:
    """Digest of each file, and of each file below a folder but for hidden ones, by its path from `root`, in order."""
    found = files_below(files)
    return dict(zip((file.relative_to(root).as_posix() for file in found), _in_threads(found), strict=True))


def files_below(files: Iterable[Path]) -> list[Path]:
    """The files, and those below folders but for hidden ones, in order."""
    found: list[Path] = []
    for file in files:
        below = (f for f in file.rglob("*") if not hidden(f.relative_to(file))) if file.is_dir() else [file]
        found += [f for f in below if f.is_file()]
    return sorted(found)


def shared_digests(files: Iterable[Path], root: Path, meeting: str | None = None) -> dict[str, str]:
    """`file_digests` where all processes call this: each reads its share. What lies there is what the first sees.

    Args:
      meeting: see `hosts.shared`.
    """

    def names() -> list[str]:
        return [file.relative_to(root).as_posix() for file in files_below(files)]

    def digests(share: Sequence[str]) -> dict[str, str]:
        return dict(zip(share, _in_threads([root / name for name in share]), strict=True))

    return hosts.shared(names, digests, meeting)


def remembered_digests(files: Iterable[Path], root: Path, memory: Path) -> dict[str, str]:
    """`file_digests` of files that nobody is expected to change, read once: whoever finds size, times and inode of a file as they
    were takes its digest from `memory`, a JSON file. To be called by one process.

    It tells a file that was written to or replaced, as ctime cannot be set; not one whose disk has changed it.
    """
    try:
        known = json.loads(memory.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = {}
    known = known if isinstance(known, dict) else {}
    found, kept = {}, {}
    listed = files_below(files)
    marks = {file: _mark(file) for file in listed}
    unknown = [file for file in listed if not _is_known(known.get(str(file.absolute())), marks[file])]
    digests = dict(zip(unknown, _in_threads(unknown), strict=True))
    for file in listed:
        digest = digests.get(file) or known[str(file.absolute())]["sha256"]
        found[file.relative_to(root).as_posix()] = digest
        settled = time.time_ns() - max(marks[file][1:3]) > SETTLED * 1e9
        if settled and marks[file] == _mark(file):
            kept[str(file.absolute())] = {"mark": marks[file], "sha256": digest}
    if kept != known:
        partial = memory.with_name(f"{memory.name}.partial")
        partial.write_text(json.dumps(kept, indent=1), encoding="utf-8")
        partial.replace(memory)
    return found


def _mark(file: Path) -> list[int]:
    found = file.stat()
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]


def _is_known(entry: object, mark: list[int]) -> bool:
    return isinstance(entry, Mapping) and entry.get("mark") == mark and isinstance(entry.get("sha256"), str)


def _in_threads(files: Sequence[Path]) -> list[str]:
    if len(files) < 2:
        return [file_digest(file) for file in files]
    with concurrent.futures.ThreadPoolExecutor(THREADS, "hash") as pool:
        return list(pool.map(file_digest, files))
