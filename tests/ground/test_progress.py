"""Progress: bars on a terminal, lines in a pipe, in CI and in notebooks, silence where none is wanted."""

import io
import os
import pty
import subprocess
import sys
import time

import pytest
from rich.console import Console

from sami_jax.ground import display, terminal
from sami_jax.ground.display import doing
from sami_jax.ground.progress import track
from sami_jax.ground.terminal import say
from sami_jax.ground.work import Work

CODE = (
    "import time\n"
    "from sami_jax.ground.progress import track\n"
    "from sami_jax.ground.terminal import say, show\n"
    "for n in track(range(5), 'updates', 5, tokens=lambda n: 100):\n"
    "    say(f'news {n} ' + 'x' * 150)\n"
    "    time.sleep(0.02)\n"
    "show('done')\n"
)


def in_a_terminal(columns: int, code: str = CODE, **variables: str) -> str:
    """All that the code writes to a terminal."""
    leader, follower = pty.openpty()
    environment = {k: v for k, v in os.environ.items() if k not in display._NO_BARS}
    environment |= {"TERM": "xterm-256color", "COLUMNS": str(columns)} | variables
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=follower, stdout=follower, stderr=follower, env=environment
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


def spoken(capsys, words: str) -> list[str]:
    """What was said, once a line with these words is among it."""
    lines: list[str] = []
    while not any(words in line for line in lines):
        time.sleep(0.01)
        lines += capsys.readouterr().err.splitlines()
    return lines


@pytest.fixture
def hasty(monkeypatch):
    """A heart that beats as soon as it can."""
    monkeypatch.setattr(display, "FIRST", 0.02)
    monkeypatch.setattr(display, "HEARTBEAT", 0.02)


def test_a_heart_beats_while_no_bar_is_drawn(capsys, hasty):
    for n in track(range(3), "updates", 3, tokens=lambda n: 10):
        if n == 1:
            lines = spoken(capsys, "updates: 1 of 3 after ")
    beat = lines[-1]
    assert "33% of the work, 10 tokens, " in beat and " tokens/s, about " in beat and beat.endswith(" left")
    assert capsys.readouterr().err.splitlines()[-1].startswith("updates: 3 in ")
    time.sleep(0.1)
    assert capsys.readouterr().err == ""


def test_what_goes_on_within_is_told_with_it(capsys, hasty):
    with doing("scoring"):
        for n in track(range(2), "queries", 2):
            if n == 1:
                lines = spoken(capsys, "queries: 1 of 2")
    assert lines[-1].startswith("scoring: ") and " so far; queries: 1 of 2 after " in lines[-1]
    assert not any("queries: 2 in " in line for line in capsys.readouterr().err.splitlines())


def test_what_lasts_says_so_and_how_long_it_took(capsys, hasty):
    with doing("loading runs/base"):
        lines = spoken(capsys, "loading")
    lines += capsys.readouterr().err.splitlines()
    assert lines[0] == "loading runs/base: 0 s so far" and lines[-1] == "loading runs/base: 0 s"


def test_what_is_over_soon_leaves_no_line(capsys):
    with doing("loading"):
        pass
    assert capsys.readouterr().err == ""


def test_what_goes_on_is_gone_from_a_terminal_when_it_is_over():
    code = (
        "import time\n"
        "from sami_jax.ground.display import doing\n"
        "with doing('loading runs/base'):\n"
        "    time.sleep(0.3)\n"
        "print('done')\n"
    )
    shown = in_a_terminal(80, code)
    drawn, _, after = shown.rpartition("loading runs/base")
    assert drawn and "\x1b[2K" in after and after.endswith("done\r\n")


@pytest.mark.parametrize("columns", [30, 60, 80, 100, 200])
def test_a_bar_is_one_line_that_begins_with_what_matters(columns, monkeypatch):
    console = Console(width=columns, file=io.StringIO(), force_terminal=True, color_system=None)
    monkeypatch.setattr(display, "console", console)
    one = Work("sampling", 384)
    monkeypatch.setattr(display, "_going_on", [one, Work("loading " + "a/very/long/path" * 20)])
    one.tell(16, 0.17, 123456, 2 * 3600.0, True)
    console.print(display._drawn())
    first, second = console.file.getvalue().splitlines()
    assert len(first) <= columns and len(second) <= columns
    assert "sampling ━" in first and "16/384" in first
    assert ("at most 2 h 0 min left" in first) == (columns >= 60) and ("123,456 tokens" in first) == (columns >= 100)
    assert "  loading a/very" in second


def test_one_that_is_quiet_draws_and_says_nothing(capsys, monkeypatch, hasty):
    monkeypatch.setattr(terminal.console, "quiet", True)
    with doing("loading"):
        for _ in track(range(3), "updates", 3):
            say("news")
            time.sleep(0.03)
            assert display.current() is None
    assert capsys.readouterr().err == ""
