"""SIGINT and SIGTERM in a terminal, at moments drawn by chance: the status as documented, the terminal as it was, and the same
command goes on to the same bits."""

import contextlib
import os
import pty
import random
import select
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
from support.flags import environment
from support.short_run import DISTURBED, assert_same, finish, sami

STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143}
MOMENTS = 20


class Terminal:
    """A run in a pseudo-terminal of its own."""

    def __init__(self, workdir: Path):
        self.ours, theirs = pty.openpty()
        self.before = termios.tcgetattr(theirs)
        self.theirs = theirs
        argv = [sys.executable, "-m", "sami_jax.cli", "run", *DISTURBED, "--workdir", str(workdir)]
        streams = dict.fromkeys(("stdin", "stdout", "stderr"), theirs)
        self.process = subprocess.Popen(argv, env=environment(TERM="xterm"), start_new_session=True, **streams)
        self.text = b""

    def read(self, seconds: float) -> bool:
        """Reads for so long, or until the process ends; whether it has."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and self.process.poll() is None:
            self._take()
        if self.process.poll() is not None:
            while self._take():
                pass
        return self.process.poll() is not None

    def listens(self) -> bool:
        """Whether the process has a handler of its own for SIGTERM."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        [caught] = [line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:")]
        return bool(int(caught, 16) >> signal.SIGTERM - 1 & 1)

    def _take(self) -> bytes:
        taken = b""
        if select.select([self.ours], [], [], 0.05)[0]:
            with contextlib.suppress(OSError):
                taken = os.read(self.ours, 65536)
        self.text += taken
        return taken

    def assert_clean(self) -> None:
        assert termios.tcgetattr(self.theirs) == self.before
        assert self.text.rfind(b"\x1b[?25l") <= self.text.rfind(b"\x1b[?25h"), "the cursor is hidden"
        os.close(self.ours)
        os.close(self.theirs)


def stop_at(workdir: Path, seconds: float, number: signal.Signals) -> bool:
    """Stops a run so many seconds after it began to listen, and checks how it ends; whether it had not ended before."""
    terminal = Terminal(workdir)
    # Before, Python itself is starting, and ends by the signal as any process does.
    while not terminal.listens() and not terminal.read(0.02):
        pass
    if terminal.read(seconds):
        assert terminal.process.returncode == 0, terminal.text.decode()
        terminal.assert_clean()
        return False
    terminal.process.send_signal(number)
    assert terminal.read(600), "it does not end"
    said = terminal.text.decode()
    assert "Traceback" not in said and "Exception" not in said, said
    if terminal.process.returncode == -number:  # all was done, and Python itself was ending
        assert "Report:" in said
    elif terminal.process.returncode != 0:  # else it was done before it looked
        assert terminal.process.returncode == STATUS[number], said
        assert f"sami: stopped by {number.name}; the same command continues" in said
    terminal.assert_clean()
    return True


@pytest.mark.faults
@pytest.mark.parametrize("seed", range(4))
def test_runs_stopped_at_random_go_on_to_the_same_bits(tmp_path, warm, seed):
    chance = random.Random(seed)
    stops, runs = 0, 0
    workdir = tmp_path / "0"
    while stops < MOMENTS // 4:
        number = chance.choice(list(STATUS))
        if stop_at(workdir, chance.uniform(0, warm.seconds), number):
            stops += 1
            continue
        assert_same(workdir, warm.workdir)
        runs += 1
        workdir = tmp_path / str(runs)
    finish(sami(workdir, options=DISTURBED))
    assert_same(workdir, warm.workdir)
