"""Digests in threads, and those that are remembered: a file is read again wherever it may be another."""

import hashlib
import os
import shutil

import pytest

from sami_jax.ground import digests, hosts
from sami_jax.ground.digests import file_digests, remembered_digests, shared_digests


@pytest.fixture
def folder(tmp_path):
    """Files that were written long ago, as far as one can tell."""
    for number in range(5):
        file = tmp_path / "base" / ("deep" if number % 2 else "") / f"{number}.bin"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(bytes([number]) * (1 << 17))
    (tmp_path / "base" / ".hidden").touch()
    return tmp_path / "base"


@pytest.fixture
def read(monkeypatch):
    """The names of the files that were read."""
    names, digest = [], digests.file_digest
    monkeypatch.setattr(digests, "file_digest", lambda file: (names.append(file.name), digest(file))[1])
    monkeypatch.setattr(digests, "SETTLED", -3600.0)  # as if an hour had passed
    return names


def test_threads_tell_each_file_its_own(folder):
    found = file_digests([folder], folder)
    assert list(found) == ["0.bin", "2.bin", "4.bin", "deep/1.bin", "deep/3.bin"]
    assert found == {n: hashlib.sha256((folder / n).read_bytes()).hexdigest() for n in found}
    assert shared_digests([folder], folder) == found


def test_files_are_read_again_where_they_may_be_others(folder, tmp_path, read):
    memory, first = tmp_path / "memory.json", file_digests([folder], folder)
    read.clear()
    assert remembered_digests([folder], folder, memory) == first and len(read) == 5
    read.clear()
    assert remembered_digests([folder], folder, memory) == first and not read
    # Other bytes, and the times of before.
    file, before = folder / "2.bin", (folder / "2.bin").stat()
    file.write_bytes(b"\x09" * before.st_size)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    # Another file with the size and times of the one before.
    shutil.copy2(folder / "4.bin", folder / "new")
    (folder / "new").replace(folder / "4.bin")
    read.clear()
    changed = remembered_digests([folder], folder, memory)
    assert changed == first | {"2.bin": file_digests([file], folder)["2.bin"]} and set(read) == {"2.bin", "4.bin"}
    memory.write_text("[torn")
    assert remembered_digests([folder], folder, memory) == changed


def test_what_was_just_written_is_not_remembered(folder, tmp_path, read, monkeypatch):
    """It may be written once more within the same tick of the file system's clock."""
    monkeypatch.setattr(digests, "SETTLED", 2.0)
    for _ in range(2):
        remembered_digests([folder], folder, tmp_path / "memory.json")
    assert len(read) == 10


def test_patience_grows_with_what_is_written(monkeypatch):
    monkeypatch.setattr(hosts, "_patience", float(hosts.PATIENCE))
    hosts.expect(10)
    assert hosts.patience() == 3_600_000
    hosts.expect(847 * 10**9)  # a checkpoint of 70 billion weights
    hosts.expect(10)
    assert hosts.patience() == (3600 + 2 * 847e9 / 50e6) * 1000
