"""SHA-256 digests of files and of JSON content."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path


def json_digest(content) -> str:
    """Of canonical JSON: sorted keys, no spaces, UTF-8."""
    canonical = json.dumps(content, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def file_digest(file: Path) -> str:
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def file_digests(files: Iterable[Path], root: Path) -> dict[str, str]:
    """Digest of each file, and of each file below a folder, by its path from `root`, in order."""
    found = [f for file in files for f in (file.rglob("*") if file.is_dir() else [file]) if f.is_file()]
    return {file.relative_to(root).as_posix(): file_digest(file) for file in sorted(found)}
