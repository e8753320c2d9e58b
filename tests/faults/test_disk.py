"""A disk that fills up in every kind of write, and one that cannot be written to: one line, status 2, and the run goes on once
there is room, to the same bits."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from support.short_run import DISTURBED, assert_same, finish, sami

# Bytes left free, run after run in one folder: too little for the lock, then for ever later writes, the second model at last.
FREE = [0, 8_192, 40_960, 131_072, 1_048_576, 6_437_184, 9_000_000, 14_680_064]
# The command line without its look at the free space before a checkpoint: others may fill the disk after it.
BLIND = """
import collections, sys
from sami_jax.ground import disk
disk.shutil.disk_usage = lambda _: collections.namedtuple("Usage", "free")(10**15)
from sami_jax.cli import main
sys.exit(main())
"""
CODES = {"looking": ("-m", "sami_jax.cli"), "blind": ("-c", BLIND)}


@pytest.fixture
def disk(tmp_path):
    """A file system of 64 MiB of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("needs to mount a small file system: run as root")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def leave(disk: Path, free: int) -> None:
    """Fills the disk but for so many bytes."""
    filler = disk / "filler"
    filler.unlink(missing_ok=True)
    filler.write_bytes(bytes(max(0, shutil.disk_usage(disk).free - free)))


def assert_one_line(process: subprocess.Popen, words: str) -> str:
    _, err = process.communicate()
    assert process.returncode == 2, err
    assert "Traceback" not in err
    line = err.splitlines()[-1]
    assert line.startswith("sami: ") and words in line and "the same command continues" in line, err
    return line


@pytest.mark.faults
@pytest.mark.parametrize("code", CODES)
def test_a_full_disk_ends_a_run_in_one_line_and_it_goes_on(disk, warm, code):
    workdir, reached = disk / "run", []
    for free in FREE:
        leave(disk, free)
        words = "free some space" if code == "looking" else "No space left on device"
        line = assert_one_line(sami(workdir, options=DISTURBED, wrapper=CODES[code]), words)
        files = [file for file in workdir.rglob("*") if file.is_file()]
        newest = max(files, key=lambda file: file.stat().st_mtime_ns, default=workdir)
        reached.append(f"{free}: {newest.relative_to(workdir)}: {line}")
    print(*reached, sep="\n")
    (disk / "filler").unlink()
    finish(sami(workdir, options=DISTURBED))
    assert_same(workdir, warm.workdir)


@pytest.mark.slow
def test_a_full_disk_is_said_in_one_line(disk):
    leave(disk, 0)
    assert_one_line(sami(disk / "run"), f"{disk}/run: No space left on device; free some space")
    leave(disk, 300_000)
    assert_one_line(sami(disk / "run", "--config.canaries.action=off"), "checkpoints: a checkpoint needs 9.4 MiB, ")


def test_a_folder_that_cannot_be_written_to_is_said_in_one_line(disk):
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    process = sami(disk / "run")
    _, err = process.communicate()
    assert process.returncode == 2
    assert len(err.splitlines()) == 1
    assert f"argument --workdir: {disk} may not be written to; give another place" in err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_of_somebody_else_is_said_in_one_line(tmp_path):
    tmp_path.chmod(0o500)
    assert_one_line(sami(tmp_path / "run"), "Permission denied; use files and folders that you may read and write")
