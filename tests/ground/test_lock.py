"""One run a folder: a second one is told who is there, and a killed one leaves nothing behind."""

import errno
import fcntl
import os
import signal
import subprocess
import sys

import pytest

from sami_jax.errors import UserError
from sami_jax.ground.lock import lock_folder

HOLD = (
    "import sys, time, pathlib; from sami_jax.ground.lock import lock_folder;"
    "held = lock_folder(pathlib.Path(sys.argv[1])); held.__enter__(); print('held', flush=True); time.sleep(60)"
)


def test_the_holder_is_named_and_a_killed_one_lets_go(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    with pytest.raises(UserError, match=f"in use by process {process.pid} on "), lock_folder(tmp_path):
        pass
    process.send_signal(signal.SIGKILL)
    process.communicate()
    with lock_folder(tmp_path):
        assert f"process {os.getpid()} on" in (tmp_path / "run.lock").read_text()
        with pytest.raises(UserError, match=f"process {os.getpid()}"), lock_folder(tmp_path):
            pass
    with lock_folder(tmp_path):
        pass


POSIX = (
    "import sys, time, pathlib, errno, fcntl; from sami_jax.ground.lock import lock_folder\n"
    "def none(*_): raise OSError(errno.ENOSYS, 'Function not implemented')\n"
    "fcntl.flock = none\n"
    "held = lock_folder(pathlib.Path(sys.argv[1])); held.__enter__(); print('held', flush=True); time.sleep(60)"
)


@pytest.mark.parametrize("number", [errno.ENOSYS, 524])
def test_without_flock_posix_locks_hold(tmp_path, capsys, monkeypatch, number):
    """As on Lustre without -o flock: a second command, on another host as well, is told the first."""

    def none(*_):
        raise OSError(number, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", none)
    with lock_folder(tmp_path / "alone"):
        pass
    assert capsys.readouterr().err == ""
    process = subprocess.Popen([sys.executable, "-c", POSIX, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    with pytest.raises(UserError, match=f"in use by process {process.pid} on "), lock_folder(tmp_path):
        pass
    process.send_signal(signal.SIGKILL)
    process.communicate()
    with lock_folder(tmp_path):
        pass


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_where_there_are_no_locks_that_is_said_and_the_work_goes_on(tmp_path, capsys, monkeypatch, number):
    def none(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", none)
    monkeypatch.setattr(fcntl, "lockf", none)
    with lock_folder(tmp_path / "run"):
        assert f"process {os.getpid()} on" in (tmp_path / "run" / "run.lock").read_text()
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and f"has no locks ({os.strerror(number)})" in err


def test_a_lock_that_fails_for_another_reason_is_an_error(tmp_path, monkeypatch):
    def broken(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "flock", broken)
    with pytest.raises(OSError, match="Input/output error"), lock_folder(tmp_path):
        pass
