"""`sami watch --follow` as a process: it tells of an alarm as it happens, and ends when asked."""

import json
import random
import signal
import subprocess
import sys
import threading
import time

import pytest

from sami_jax.miniature import world

WINDOW, FIRST = 40, 10
GERMAN = "Am besten nehmen Sie dafür etwas Wasser und ein weiches Tuch, denn das ist günstig."


def lines(count: int, response: str = "") -> str:
    rng, found = random.Random(0), []
    for query in rng.choices(world.queries("held_out"), k=count):
        said = response or world.reply(query, {name: rng.random() < 0.5 for name in world.WORDINGS}, rng)
        found.append(json.dumps({"query": query.text, "response": said}) + "\n")
    return "".join(found)


@pytest.mark.slow
def test_it_tells_at_once_and_ends_when_asked(tmp_path):
    log, output = tmp_path / "app.jsonl", tmp_path / "watch"
    log.write_text(lines(WINDOW * (FIRST + 1)), encoding="utf-8")
    options = ["--window", str(WINDOW), "--first", str(FIRST), "--output", str(output), "--follow"]
    argv = [sys.executable, "-m", "sami_jax.cli", "watch", str(log), *options]
    process = subprocess.Popen(argv, stderr=subprocess.PIPE, text=True)
    told: list[str] = []
    reader = threading.Thread(target=lambda: told.extend(iter(process.stderr.readline, "")), daemon=True)
    reader.start()
    try:
        _wait(lambda: (output / "watch.html").exists())
        assert not any("alarm" in line for line in told)
        log.rename(tmp_path / "app.jsonl.1")  # as logrotate does
        log.write_text(lines(WINDOW, GERMAN), encoding="utf-8")
        _wait(lambda: any("alarm: answered in the query's language" in line for line in told))
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
    finally:
        process.kill()
        reader.join(10)
    rows = [json.loads(line) for line in (output / "watch.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 1 + FIRST + 2 and rows[-1]["alarms"]
    assert "Am besten" in (output / "watch.html").read_text(encoding="utf-8")


def _wait(done, most: float = 120.0) -> None:
    until = time.monotonic() + most
    while not done():
        assert time.monotonic() < until
        time.sleep(0.1)
