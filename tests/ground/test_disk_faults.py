"""Errors of a disk or a network: what the user must change has status 2, what may pass has one that launchers try again."""

import errno
import os
import socket
from pathlib import Path
from unittest import mock

import jax
import pytest

from sami_jax import cli
from sami_jax.data.jsonl import read_bytes
from sami_jax.errors import BAD_INPUT, TRY_AGAIN, TryAgain
from sami_jax.ground import hosts
from sami_jax.ground.disk import disk_fault
from sami_jax.principles.files import read_principles

PASSING = ("EIO", "ESTALE", "ENOTCONN", "ETIMEDOUT", "ECONNREFUSED", "ECONNRESET", "EAGAIN", "EHOSTUNREACH")
FOR_THE_USER = ("ENOSPC", "EDQUOT", "EROFS", "EACCES", "EMFILE")


@pytest.mark.parametrize(
    ("name", "status"), [*((name, TRY_AGAIN) for name in PASSING), *((name, BAD_INPUT) for name in FOR_THE_USER)]
)
def test_status_of_an_error(name, status):
    number = getattr(errno, name)
    own = disk_fault(OSError(number, os.strerror(number), "x/y"), Path("z"))
    assert own is not None and own.status == status and str(own).startswith(f"x/y: {os.strerror(number)}; ")
    native = ValueError(f"INTERNAL: write failed: {os.strerror(number)}")  # as tensorstore has them
    wrapped = RuntimeError("not saved")
    wrapped.__cause__ = native
    told = disk_fault(wrapped, Path("z"))
    assert told is not None and told.status == status and str(told).startswith("z: ")


def test_other_errors_are_no_faults_of_a_disk():
    assert disk_fault(FileNotFoundError(errno.ENOENT, "No such file or directory", "x"), Path("z")) is None
    assert disk_fault(ValueError("wrong"), Path("z")) is None


@pytest.mark.parametrize(
    "error",
    [
        socket.gaierror(socket.EAI_NONAME, "Name or service not known"),
        TimeoutError("timed out"),
        ConnectionError("connection lost"),
        OSError("HTTPConnectionPool(host='metadata.google.internal', port=80): [Errno -2] Name or service not known"),
    ],
)
def test_a_network_that_does_not_answer(error):
    told = disk_fault(error, Path("z"))
    assert told is not None and told.status == TRY_AGAIN and "look after the network" in str(told)


@pytest.mark.parametrize(
    "read", [lambda file: read_bytes(file, "give another"), lambda file: read_principles(file.parent)]
)
def test_a_file_that_does_not_answer_is_no_bad_input(read, tmp_path, monkeypatch):
    (tmp_path / "one.yaml").write_text("id: x")

    def stale(*_, **__):
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), "one.yaml")

    monkeypatch.setattr(Path, "read_bytes", stale)
    monkeypatch.setattr(Path, "read_text", stale)
    with pytest.raises(TryAgain, match="Stale file handle; look after disk and network"):
        read(tmp_path / "one.yaml")


@pytest.mark.parametrize("name", ["ESTALE", "ENOTCONN"])
def test_a_mount_that_has_gone_is_no_bad_input(name, tmp_path, monkeypatch, capsys):
    """Already while the options are read."""
    number, look = getattr(errno, name), Path.lstat

    def lstat(path: Path):
        if path.name == "gone":
            raise OSError(number, os.strerror(number), str(path))
        return look(path)

    monkeypatch.setattr(Path, "lstat", lstat)
    assert cli.main(["run", "--config=tiny", f"--workdir={tmp_path / 'gone'}"]) == TRY_AGAIN
    [line] = capsys.readouterr().err.splitlines()
    assert os.strerror(number) in line and "the same command continues" in line


@pytest.mark.parametrize(
    ("error", "waits"),
    [
        (jax.errors.JaxRuntimeError("INTERNAL: Gloo all-reduce failed: Connection reset by peer"), True),
        (OSError(errno.ECONNRESET, os.strerror(errno.ECONNRESET), "x/y"), False),
        (jax.errors.JaxRuntimeError("INTERNAL: write: No space left on device"), False),
    ],
)
def test_where_a_connection_between_processes_breaks_one_is_lost(monkeypatch, capsys, error, waits):
    """This one is then ended as the others are: by the runtime, while it waits."""
    slept = []
    monkeypatch.setattr(hosts, "_world", hosts._World(1, 2, mock.Mock(), 60))
    monkeypatch.setattr(hosts.time, "sleep", slept.append)
    monkeypatch.setattr(hosts, "end", lambda status: None)
    monkeypatch.setattr(cli, "_answer", mock.Mock(side_effect=error))
    assert cli.main(["verify", "x"]) == (BAD_INPUT if "space" in str(error) else TRY_AGAIN)
    assert slept == [60 + hosts.TOGETHER] * waits
