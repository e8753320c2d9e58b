"""What this process may have of the machine: control groups, of either version or both, and its own limits.

A limit holds for all below it, so the smallest from a process's group up to the top is the one that counts. Where these groups
are seen: proc(5), cgroups(7); files of version 1: kernel documentation, cgroup-v1/memory.rst; of version 2: cgroup-v2.rst.
"""

import contextlib
import dataclasses
import os
import re
import resource
from collections.abc import Iterator
from pathlib import Path, PurePosixPath


@dataclasses.dataclass(frozen=True)
class Limits:
    """None where there is none."""

    memory: int | None  # bytes
    free: int | None  # bytes left, where least is left
    cores: float | None  # of CPU time


def limits(root: Path = Path("/")) -> Limits:
    """The limits of the groups of this process.

    Args:
      root: below which /proc and the groups are looked for.
    """
    memory, free, cores = [], [], []
    for group in _groups(root, "memory"):
        limit = _number(group / "memory.max", group / "memory.limit_in_bytes")
        if limit is None:
            continue
        memory.append(limit)
        used = _number(group / "memory.current", group / "memory.usage_in_bytes") or 0
        free.append(max(0, limit - max(0, used - _given_back(group))))
    for group in _groups(root, "cpu"):
        words = (_read(group / "cpu.max") or "").split()
        if not words:
            words = [_read(group / name) or "" for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us")]
        with contextlib.suppress(ValueError, ZeroDivisionError):  # "max": none
            if (share := int(words[0]) / int(words[1])) > 0:
                cores.append(share)
    return Limits(*(min(found, default=None) for found in (memory, free, cores)))


def own_memory() -> int | None:
    """Bytes of memory that `ulimit` leaves the process; None for any."""
    soft = [resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA)]
    return min((limit for limit in soft if limit != resource.RLIM_INFINITY), default=None)


def own_cores() -> int:
    """Cores that the process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """The folders of all groups that hold this process, its own first, in each hierarchy that may limit what is asked for."""
    held = {}  # controller, or "" for version 2 -> the process's group
    for line in (_read(root / "proc/self/cgroup") or "").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        held |= dict.fromkeys(controllers.split(","), group)
    for line in (_read(root / "proc/self/mountinfo") or "").splitlines():
        before, _, after = line.partition(" - ")
        places, kinds = before.split(), after.split()
        if len(places) < 5 or len(kinds) < 3:
            continue
        version_2 = kinds[0] == "cgroup2"
        if not version_2 and (kinds[0] != "cgroup" or controller not in kinds[2].split(",")):
            continue
        group = held.get("" if version_2 else controller)
        if group is not None:
            yield from _upwards(root, _unescaped(places[4]), _unescaped(places[3]), group)


def _upwards(root: Path, mount: str, mounted: str, group: str) -> Iterator[Path]:
    """From the group's folder to the one that is mounted. In a container, a group may be told by a path that is not seen from
    there: then what is mounted is the container's own."""
    top = root / mount.lstrip("/")
    below = PurePosixPath(group)
    own = top
    if below.is_relative_to(mounted) and ".." not in below.parts:
        own = top / below.relative_to(mounted)
    yield from (folder for folder in (own if own.is_dir() else top, *own.parents) if folder.is_relative_to(top))


def _given_back(group: Path) -> int:
    """Bytes that are counted as used, and that the system takes back as soon as they are wanted: files read before."""
    for line in (_read(group / "memory.stat") or "").splitlines():
        name, _, value = line.partition(" ")
        if name in ("inactive_file", "total_inactive_file") and value.isdigit():
            return int(value)
    return 0


def _number(*files: Path) -> int | None:
    """What the first file that is there says; None for "max", or where none is there."""
    said = next((text for file in files if (text := _read(file)) is not None), "").strip()
    return int(said) if said.isdigit() else None


def _read(file: Path) -> str | None:
    try:
        return file.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return None


def _unescaped(field: str) -> str:
    """A path as mountinfo has it: white space and backslashes as octal numbers."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), field)
