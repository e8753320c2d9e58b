"""SHA-256 digests of files and of JSON content."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from sami_jax.ground.disk import hidden


def json_digest(content) -> str:
    """Of canonical JSON: sorted keys, no spaces, UTF-8."""
    canonical = json.dumps(content, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def file_digest(file: Path) -> str:
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def file_digests(files: Iterable[Path], root: Path) -> dict[str, str]:
    """Digest of each file, and of each file below a folder but for hidden ones, by its path from `root`, in order."""
    found: list[Path] = []
    for file in files:
        below = (f for f in file.rglob("*") if not hidden(f.relative_to(file))) if file.is_dir() else [file]
        found += [f for f in below if f.is_file()]
    return {file.relative_to(root).as_posix(): file_digest(file) for file in sorted(found)}
