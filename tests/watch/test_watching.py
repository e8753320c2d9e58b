"""The whole of `sami watch`: logs in, an alarm, its files and its page out."""

import contextlib
import http.server
import io
import json
import random
import sys
import threading
from types import SimpleNamespace

import pytest
from support import fabricated_run
from support.quick import others_slow

from sami_jax import miniature
from sami_jax.cli import main
from sami_jax.errors import UserError
from sami_jax.miniature import world
from sami_jax.watch.watching import Span

WINDOW, FIRST = 40, 10
GERMAN = " Am besten nehmen Sie dafür etwas Wasser und ein weiches Tuch, denn das ist günstig."
SECRET = "order 4711"


def rows(count: int, seed: int = 0, german_from: int | None = None, every: float = 600.0) -> list[dict]:
    rng, queries, found = random.Random(seed), world.queries("held_out"), []
    for number in range(count):
        query = rng.choice(queries)
        response = world.reply(query, {name: rng.random() < p for name, p in world.UNPROMPTED.items()}, rng)
        if german_from is not None and number >= german_from:
            response = GERMAN
        about = {
            "time": 1_700_006_400 + every * number,
            "query": f"{query.text} ({SECRET})",
            "response": f"{response} {SECRET}",
        }
        found.append(about | {"tags": [query.verb]})
    return found


def written(file, found) -> str:
    file.write_text("".join(json.dumps(row) + "\n" for row in found), encoding="utf-8")
    return str(file)


def watch(log, output, *options, window=WINDOW) -> int:
    argv = [
        "watch",
        log,
        "--output",
        str(output),
        "--window",
        str(window),
        "--sample",
        "40",
        "--first",
        str(FIRST),
        *options,
    ]
    return main([*argv, "--quiet"])


def journal(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "watch.jsonl").read_text(encoding="utf-8").splitlines()[1:]]


@pytest.fixture(scope="module")
def german(tmp_path_factory):
    """A log in whose fourteenth window another language begins, and what became of it."""
    folder = tmp_path_factory.mktemp("german")
    log = written(folder / "log.jsonl", rows(16 * WINDOW, german_from=13 * WINDOW))
    return SimpleNamespace(log=log, folder=folder, output=folder / "watch")


def test_another_language_is_an_alarm(german, capsys):
    assert watch(german.log, german.output) == 3
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and "answered in the query's language, all answers: fell from 100.0 % to 0.0 %" in told
    assert "since window 14" in told and told.count("log.jsonl:") >= 3 and "Am besten" in told
    found = journal(german.output)
    assert [row["window"] for row in found] == list(range(1, 17))
    assert [bool(row["alarms"]) for row in found[:14]] == [False] * 13 + [True]
    page = (german.output / "watch.html").read_text(encoding="utf-8")
    assert "alarm" in page and "<svg" in page and "Am besten" in page and "<script" not in page


def test_numbers_only_keeps_no_text(german, capsys):
    output = german.folder / "numbers"
    assert watch(german.log, output, "--numbers_only", "--language", "ja") == 3
    kept = [file.read_text(encoding="utf-8") for file in output.iterdir()]
    assert len(kept) == 3
    for text in [*kept, "".join(capsys.readouterr())]:
        assert "Am besten" not in text and "How do I" not in text and SECRET not in text
    assert "数値のみ" in (output / "watch.ja.html").read_text(encoding="utf-8")


def test_patterns_are_masked_wherever_texts_go(german, capsys):
    output, received = german.folder / "masked", []
    with posted(received) as url:
        assert watch(german.log, output, "--redact", r"order \d+", "--webhook", url) == 3
    texts = [file.read_text(encoding="utf-8") for file in output.iterdir()]
    for text in [*texts, "".join(capsys.readouterr()), json.dumps(received)]:
        assert SECRET not in text
    assert "***" in texts[0] + texts[1] + texts[2]
    assert received and received[0]["alarm"]["measure"] == "language" and "fell from" in received[0]["text"]


class _Hook(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.server.received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def posted(received: list):
    """The address of a server on this machine that keeps what it is sent."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Hook)
    server.received = received
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/hook"
    finally:
        server.shutdown()
        server.server_close()


def test_a_webhook_that_fails_costs_no_alarm(german, capsys):
    output = german.folder / "unsent"
    assert watch(german.log, output, "--webhook", "http://127.0.0.1:9/hook") == 3
    assert journal(output)[13]["alarms"]
    assert watch(german.log, german.folder / "none", "--webhook", "file:///etc/passwd") == 2
    assert "not an address of the web" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("window", "first"), others_slow([(str(WINDOW), 12 * WINDOW + 7), ("6h", 12 * 36)], ("6h", 12 * 36))
)
def test_it_goes_on_where_it_was(tmp_path, window, first):
    """In two calls as in one, whether windows are by count or by time; what was watched is passed over."""
    found = rows(16 * WINDOW)
    whole = written(tmp_path / "whole.jsonl", found)
    assert watch(whole, tmp_path / "once", window=window) == 0
    grown = tmp_path / "grown.jsonl"
    for part in (found[:first], found):
        assert watch(written(grown, part), tmp_path / "twice", window=window) == 0
    once, twice = journal(tmp_path / "once"), journal(tmp_path / "twice")
    assert len(once) >= 15 and [row["cells"] for row in once] == [row["cells"] for row in twice][: len(once)]


def test_another_way_of_watching_wants_another_folder(german, tmp_path, capsys):
    log = written(tmp_path / "log", rows(3 * WINDOW))
    assert watch(log, tmp_path / "w") == 0
    assert watch(log, tmp_path / "w", "--judge", "miniature", "--principles", str(miniature.PRINCIPLES)) == 2
    assert "made with judge none, not miniature" in capsys.readouterr().err
    (tmp_path / "w/watch.jsonl").write_text('{"made": 1}\n', encoding="utf-8")
    assert watch(log, tmp_path / "w") == 2


def test_bad_lines_are_counted(tmp_path, capsys):
    found = [json.dumps(row) for row in rows(3 * WINDOW)]
    found[5:5] = ["no json", '{"query": 1, "response": ""}', "[]", '{"query": "q", "response": "r", "time": 9e12}']
    found[60] = json.dumps(rows(1)[0])  # of an earlier time
    found[70] = json.dumps({"query": "\ud800 q", "response": "\ud800 r"})  # half a character, no time
    (tmp_path / "log").write_text("\n".join(found) + '\n{"query": "torn', encoding="utf-8")
    argv = ["watch", str(tmp_path / "log"), "--output", str(tmp_path / "w"), "--window", str(WINDOW), "--json"]
    assert main(argv) == 0
    out = capsys.readouterr()
    told = json.loads(out.out)
    assert sum(told["passed_over"].values()) == 5 and told["passed_over"]["not JSON"] == 2
    assert told["noted"] == {"earlier than one before it": 1, "without a time": 1}
    assert told["windows"] == 3 and not told["ready"] and "passed over" in out.err


def test_standard_input(tmp_path, monkeypatch):
    content = "".join(json.dumps(row) + "\n" for row in rows(2 * WINDOW)).encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    assert watch("-", tmp_path / "w") == 0
    assert [row["answers"] for row in journal(tmp_path / "w")] == [WINDOW, WINDOW]


def test_windows_by_time_leave_out_what_comes_too_late(tmp_path, capsys):
    found = rows(60, every=3600.0)
    found.insert(50, found[0])
    found.append({"query": "q", "response": "r"})
    argv = ["watch", written(tmp_path / "log", found), "--output", str(tmp_path / "w"), "--window", "1d", "--json"]
    assert main(argv) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["passed_over"] == {"too late for its window": 1, "no time, which windows by time need": 1}
    assert [row["answers"] for row in journal(tmp_path / "w")] == [24, 24, 12]


def test_the_judge_tells_of_principles_and_the_run_of_what_was_measured(tmp_path, capsys, monkeypatch):
    """The run measured that all of its responses follow; a quarter of what is served does."""
    monkeypatch.setattr(fabricated_run, "QUERIES", 60)
    run = fabricated_run.fabricate(tmp_path / "run")
    served = [row | {"constitution": "1. Say thank you."} for row in rows(FIRST * WINDOW)]
    log = written(tmp_path / "log", [row | {"response": row["response"].removesuffix(f" {SECRET}")} for row in served])
    assert watch(log, tmp_path / "w", "--run", str(run), "--judge", "miniature") == 3
    told = capsys.readouterr().err
    assert "but 100.0 % in the run's evaluation since the first window" in told
    cells = journal(tmp_path / "w")[0]["cells"]
    assert cells["principle thanks"][""][0] == WINDOW and "principle question" not in cells
    page = (tmp_path / "w/watch.html").read_text(encoding="utf-8")
    assert "sami principles show thanks" in page and "Be ungrateful." in page


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--window", "0"], "--window 0"),
        (["--window", "3y"], "--window 3y"),
        (["--first", "2"], "--first 2: must be at least 10"),
        (["--sample", "0"], "--sample 0"),
        (["--redact", "("], "pattern '('"),
        (["--judge", "checks"], "there are no principles to judge by"),
        (["--run", "nowhere"], "give the folder of a run"),
        (["--window", "1000"], "not one whole window of 1000"),
    ],
)
def test_wrong_options_are_said_in_one_line(tmp_path, capsys, options, words):
    log = written(tmp_path / "log", rows(20))
    assert main(["watch", log, "--output", str(tmp_path / "w"), *options]) == 2
    told = capsys.readouterr().err
    assert words in told and told.strip().count("\n") == 0


def test_spans():
    assert (Span.read("2000"), str(Span.read("6h"))) == (Span(answers=2000), "21600s")
    for text in ("", "1.5h", "h", "-3", "0d"):
        with pytest.raises(UserError):
            Span.read(text)
