"""One run a folder: a second one is told who is there, and a killed one leaves nothing behind."""

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
