"""Progress: bars on a terminal, lines in a pipe, in CI and in notebooks, silence where none is wanted."""

import os
import pty
import subprocess
import sys
import time

import pytest

from sami_jax.ground import terminal
from sami_jax.ground.terminal import say, track

CODE = (
    "import time\n"
    "from sami_jax.ground.terminal import say, show, track\n"
    "for n in track(range(5), 'updates', 5, tokens=lambda n: 100):\n"
    "    say(f'news {n} ' + 'x' * 150)\n"
    "    time.sleep(0.02)\n"
    "show('done')\n"
)


def in_a_terminal(columns: int, **variables: str) -> str:
    """All that CODE writes to a terminal."""
    leader, follower = pty.openpty()
    environment = {k: v for k, v in os.environ.items() if k not in terminal._NO_BARS}
    environment |= {"TERM": "xterm-256color", "COLUMNS": str(columns)} | variables
    process = subprocess.Popen(
        [sys.executable, "-c", CODE], stdin=follower, stdout=follower, stderr=follower, env=environment
    )
    os.close(follower)
    shown = b""
    while True:
        try:
            read = os.read(leader, 65536)
        except OSError:  # the process has ended
            break
        if not read:
            break
        shown += read
    assert process.wait() == 0
    return shown.decode()


@pytest.mark.parametrize("columns", [40, 200])
def test_a_bar_moves_and_no_line_is_lost(columns):
    shown = in_a_terminal(columns)
    assert "\x1b[2K" in shown and "━" in shown
    for n in range(5):
        assert f"news {n} {'x' * 150}" in shown
    assert shown.endswith("\r\n") and "done" in shown and "\x1b[?25h" in shown  # the cursor is back


@pytest.mark.parametrize("variables", [{"CI": "true"}, {"JPY_PARENT_PID": "7"}, {"TERM": "dumb"}])
def test_no_bar_where_what_was_drawn_stays(variables):
    shown = in_a_terminal(80, **variables)
    assert "\x1b[2K" not in shown and "━" not in shown
    assert "updates: 5 in " in shown and shown.count("news") == 5


def test_a_pipe_has_lines_alone(capfd):
    environment = os.environ | {"TERM": "xterm-256color"}
    subprocess.run([sys.executable, "-c", CODE], env=environment, check=True)
    out, err = capfd.readouterr()
    lines = err.splitlines()
    assert out == "done\n" and "\x1b" not in err and "\r" not in err
    assert lines[:5] == [f"news {n} {'x' * 150}" for n in range(5)] and lines[5].startswith("updates: 5 in ")


def test_a_heart_beats_while_no_bar_is_drawn(capsys, monkeypatch):
    monkeypatch.setattr(terminal, "HEARTBEAT", 0.05)
    for n in track(range(3), "updates", 3, tokens=lambda n: 10):
        if n == 1:
            time.sleep(0.5)
    lines = capsys.readouterr().err.splitlines()
    beats = [line for line in lines if line.startswith("updates: 1 of 3 after ")]
    assert beats and "tokens/s" in beats[0] and " left" in beats[-1]
    assert lines[-1].startswith("updates: 3 in ")
    time.sleep(0.15)
    assert capsys.readouterr().err == ""


def test_one_that_is_quiet_draws_and_says_nothing(capsys, monkeypatch):
    monkeypatch.setattr(terminal, "HEARTBEAT", 0.01)
    monkeypatch.setattr(terminal.console, "quiet", True)
    for _ in track(range(3), "updates", 3):
        say("news")
        time.sleep(0.03)
    assert capsys.readouterr().err == ""


def test_durations_read_as_people_say_them():
    assert [terminal._duration(s) for s in (0.4, 59, 61, 3725)] == ["0 s", "59 s", "1 min 1 s", "1 h 2 min"]
