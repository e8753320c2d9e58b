"""`sami desk` as a command: what it refuses, in one line, and how it ends."""

import signal
import socket
import subprocess
import sys

import pytest
from support.desk import principles_in, ratings_in

from sami_jax.cli import main


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], "nothing to show; give --principles, --ratings or --runs"),
        (["--principles", "none"], "none: no such folder of principles"),
        (["--ratings", "p"], "ratings.csv: No such file or directory; give the folder that `sami rate export` wrote"),
        (["--runs", "none"], "none: no such folder of runs"),
        (["--principles", "p", "--verdicts", "v"], "--verdicts: give --ratings too"),
        (["--ratings", "r", "--model", "m"], "--model: give --principles too"),
        (["--principles", "p", "--port", "99999"], "127.0.0.1, port 99999:"),
        (["--principles", "p", "--port", "-1"], "127.0.0.1, port -1:"),
        (["--principles", "p", "--host", "192.0.2.1"], "192.0.2.1, port 8700:"),
    ],
)
def test_what_cannot_be_served_is_one_line(tmp_path, monkeypatch, capsys, argv, words):
    monkeypatch.chdir(tmp_path)
    principles_in(tmp_path / "p")
    ratings_in(tmp_path / "r")
    capsys.readouterr()
    assert main(["desk", *argv]) == 2
    said = capsys.readouterr()
    assert words in said.err and said.err.count("\n") == 1 and not said.out


def test_a_port_that_is_taken_is_said(tmp_path, capsys):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        principles_in(tmp_path)
        assert main(["desk", "--principles", str(tmp_path), "--port", str(port)]) == 2
    assert f"127.0.0.1, port {port}: Address already in use; give another --port" in capsys.readouterr().err


@pytest.mark.slow
def test_it_ends_when_asked(tmp_path):
    argv = [sys.executable, "-m", "sami_jax.cli", "desk", "--ratings", str(ratings_in(tmp_path)), "--port", "0"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        assert server.stdout and server.stdout.readline().startswith("http://127.0.0.1:")
        server.send_signal(signal.SIGINT)
        _, err = server.communicate(timeout=30)
    assert server.returncode == 130 and err == "sami: stopped by SIGINT; the same command continues\n"
