"""Servers that a run starts: gone with it, however it ends, and with all that they started."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sami_jax.errors import TryAgain, UserError
from sami_jax.serving.process import ServerProcess, wait_until_ready

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
# A server that starts another, as vLLM does, and does not mind being asked to end.
STUBBORN = "import signal, subprocess, sys; [signal.signal(n, signal.SIG_IGN) for n in (1, 2, 15)]; print(subprocess.Popen(['sleep', '600']).pid, flush=True); signal.pause()"
WILLING = "import subprocess; print(subprocess.Popen(['sleep', '600']).pid, flush=True); import signal; signal.pause()"


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def gone(*pids: int) -> bool:
    for _ in range(600):
        if not any(map(running, pids)):
            return True
        time.sleep(0.05)
    return False


def pids_of(server: ServerProcess, log: Path) -> tuple[int, int]:
    while not log.read_text().strip():
        time.sleep(0.02)
    return server.pid, int(log.read_text().split()[0])


def test_it_ends_with_what_it_started(tmp_path):
    server = ServerProcess([sys.executable, "-c", WILLING], tmp_path / "log")
    both = pids_of(server, tmp_path / "log")
    assert server.runs and all(map(running, both))
    server.end()
    assert not any(map(running, both)) and not server.runs


@pytest.mark.slow
def test_one_that_does_not_end_when_asked_is_killed(tmp_path):
    server = ServerProcess([sys.executable, "-c", STUBBORN], tmp_path / "log")
    both = pids_of(server, tmp_path / "log")
    server.end()
    assert not any(map(running, both))


def test_it_is_gone_where_its_guard_was_killed(tmp_path):
    server = ServerProcess([sys.executable, "-c", WILLING], tmp_path / "log")
    both = pids_of(server, tmp_path / "log")
    server._guard.kill()
    server.end()
    assert gone(*both)


def test_it_is_gone_where_the_run_was_killed(tmp_path):
    code = (
        "import os, signal, sys; from pathlib import Path; from sami_jax.serving.process import ServerProcess\n"
        f"ServerProcess([sys.executable, '-c', {WILLING!r}], Path(sys.argv[1]))\n"
        "while not Path(sys.argv[1]).read_text().strip(): pass\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "log")], check=False)
    assert gone(int((tmp_path / "log").read_text().split()[0]))


def test_the_terminals_signals_are_the_runs(tmp_path):
    server = ServerProcess([sys.executable, "-c", WILLING], tmp_path / "log")
    pids_of(server, tmp_path / "log")
    assert len({os.getsid(pid) for pid in (os.getpid(), server._guard.pid, server.pid)}) == 3
    os.kill(
        server._guard.pid, signal.SIGTERM
    )  # of somebody who ends everything of a user: the guard has not ended before its server
    time.sleep(0.1)
    assert server.runs
    server.end()


def test_no_such_program_in_one_line(tmp_path):
    with pytest.raises(UserError, match=r"config.server.command: /none: No such file or directory; mend it"):
        ServerProcess(["/none"], tmp_path / "log")


def test_one_that_ends_while_it_is_waited_for_is_quoted(tmp_path):
    (tmp_path / "log").write_text("of an earlier server\n")
    code = "print('loading'); print('\\x1b[31mout of memory\\x1b[0m\\n'); raise SystemExit(7)"
    server = ServerProcess([sys.executable, "-c", code], tmp_path / "log")

    def probe():
        raise TryAgain("no connection")

    with pytest.raises(UserError, match=r'ended with status 7: "out of memory"; all that it said is in .*log'):
        wait_until_ready(server, probe, 60, "starting")
    server.end()


def test_one_that_never_answers(tmp_path):
    server = ServerProcess([sys.executable, "-c", WILLING], tmp_path / "log")

    def probe():
        raise TryAgain("no connection")

    with pytest.raises(UserError, match=r"no answer within config.server.start_within=0.1 s \(no connection\)"):
        wait_until_ready(server, probe, 0.1, "starting")
    server.end()
