"""The report: it tells what the run's files say, in two languages, and nothing in them can do harm or leak."""

import html
import os
import re
import shutil
import string
import subprocess
import sys
from xml.etree import ElementTree

import pytest
from support.fabricated_run import (
    ALARM,
    QUERY,
    SETS,
    THANKFUL,
    answers,
    fabricate,
    predicate,
    principle,
    write,
)
from support.quick import others_slow

from sami_jax.cli import main
from sami_jax.provenance.manifest import RunRecord
from sami_jax.report import results
from sami_jax.report.data import compare, gather
from sami_jax.report.summary import as_json, print_summary
from sami_jax.report.texts import LANGUAGES, TEXTS, Words
from sami_jax.report.write import render, write_report

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.fixture
def folder(tmp_path):
    return fabricate(tmp_path / "run")


def page(folder, language: str = "en") -> str:
    return write_report(folder, None, language).read_text(encoding="utf-8")


def sentence(folder, language: str = "en") -> str:
    return html.unescape(re.search(r'<p class="sentence">(.*?)</p>', page(folder, language))[1])


def fields(text: str) -> set:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


def test_every_text_says_the_same_in_each_language():
    for key, texts in TEXTS.items():
        assert len(texts) == len(LANGUAGES) and all(texts), key
        assert len({frozenset(fields(text)) for text in texts}) == 1, key


@pytest.mark.parametrize(
    ("language", "words"), [("en", "The aligned model is better"), ("ja", "学習後のモデルの方が優れています")]
)
def test_tells_the_verdict_and_every_section(folder, language, words):
    text = page(folder, language)
    assert f'<html lang="{language}">' in text and words in text
    sections = re.findall(r'<section id="(\w+)">', text)
    assert sections == ["curves", "matrix", "slices", "examples", "principles", "cost", "record"]
    # Of the matrices: each response under the other constitution, less the same under its own.
    for shown in ("thanks@1", "Say no thanks.", "Aiko Tanaka", "sami verify", "-0.300", "-0.500"):
        assert shown in text, shown
    assert "{" not in re.sub(r"<style>.*?</style>", "", text, flags=re.S)


@pytest.mark.parametrize(
    ("win", "words"),
    [
        ((0.8, 0.7, 0.9), "The aligned model is better: on held-out queries it wins 80.0 %"),
        ((0.55, 0.45, 0.65), "No difference shown"),
        ((0.3, 0.2, 0.4), "The aligned model is worse"),
    ],
)
def test_the_verdict_follows_the_interval(tmp_path, win, words):
    said = sentence(fabricate(tmp_path, win=win))
    assert words in said and f"{100 * win[1]:.1f} % to {100 * win[2]:.1f} %" in said
    assert "follows 90.0 % of the stated principles, against 50.0 % before" in said


def test_principles_are_judged_one_by_one(folder):
    run, words = gather(folder), Words("en")
    [row] = results.principle_slices(run, words, {name: compare(run, name) for name in run.sets[:1]})
    # Thanks are given always: wherever they are asked for, which the base never does, and where they are not.
    assert (row["name"], row["responses"], row["before"], row["after"]) == ("thanks", 8, "50.0 %", "50.0 %")
    assert row["win"].startswith("50.0 %") and row["direction"] == "same"
    assert [one.outcome for one in compare(run, "trained")[:2]] == [1.0, 0.0]


def test_a_wording_of_two_principles_is_not_judged(tmp_path):
    twice = [principle(id, "trained", ("Say thank you.", "Say no thanks.")) for id in ("thanks", "question")]
    run = gather(fabricate(tmp_path, principles=twice))
    assert {one.outcome for one in compare(run, "trained")} == {None}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"judge": "none"}, "Not judged"),
        ({"trained": 0}, "Nothing to compare yet"),
        ({"trained": 0, "measure_base": False}, "Nothing to compare yet"),
        ({"stopped": {"last_good": 0}}, "none was kept"),
        ({"trained": 2, "stopped": {"last_good": 0}}, "The aligned model is better"),
        ({"stopped": {"last_good": 2}}, "The model of update 2, the last good one"),
        ({"review": predicate()["review"] | {"unapproved": ["thanks@1"]}}, "nobody had approved were used: thanks@1"),
    ],
)
@pytest.mark.parametrize("language", others_slow(LANGUAGES, "en"))
def test_what_is_missing_or_wrong_is_said(tmp_path, options, words, language):
    text = page(fabricate(tmp_path, **options), language)
    assert words in text or language != "en"
    if "stopped" in options:
        assert html.escape(ALARM) in text


def test_an_unfinished_run(tmp_path):
    RunRecord(tmp_path, predicate(), {"kind": "cpu", "count": 1})
    assert "has not finished" in page(tmp_path)


@pytest.mark.parametrize("file", ["audit.jsonl", "iteration_1/evaluation.json", "iteration_1/metrics.jsonl"])
def test_a_change_since_the_run_is_said(folder, file):
    (folder / file).write_bytes((folder / file).read_bytes().replace(b"0.", b"1.", 1).replace(b"cpu", b"tpu", 1))
    text = page(folder)
    assert "is not what the run recorded" in text and f"{file}:" in text


EVIL = "<script>alert(1)</script><img src=\"https://example.com/x\" onerror='alert(2)'>"


def test_texts_stay_texts(tmp_path):
    cruel = [principle(EVIL, EVIL, (EVIL, EVIL), status=EVIL) | {"approved_by": [EVIL], "hash": EVIL}]
    folder = fabricate(tmp_path / "<script>alert(3)", principles=[*predicate()["principles"], *cruel])
    rows = answers(EVIL + "\x1b[31m\u202e{{ 7 * 7 }}")
    write(folder / "iteration_1" / "evaluation" / "trained.jsonl", *[row | {"query": EVIL} for row in rows])
    write(folder / "iteration_0" / "evaluation" / "trained.jsonl", *[row | {"query": EVIL} for row in rows])
    tokens = [{"text": EVIL[:9], "pmi": 0.5}, {"text": " " + EVIL[9:], "pmi": -0.5}]
    explained = {"id": "a", "query": EVIL, "constitution": EVIL, "response": EVIL, "tokens": tokens}
    write(
        folder / "iteration_1" / "explain.jsonl", explained | {"principles": [{"id": None, "text": EVIL, "share": 0.3}]}
    )
    for language in LANGUAGES:
        text = page(folder, language)
        assert "<script" not in text and "<img" not in text and "onerror='" not in text
        assert html.escape(EVIL).replace("&#x27;", "&#39;").replace("&quot;", "&#34;") in text
        assert r"\x1b[31m\x202e{{ 7 * 7 }}" in text and "\x1b" not in text and "\u202e" not in text


def test_asks_nothing_of_the_network(folder):
    text = page(folder)
    assert "default-src &#39;none&#39;" in text or "default-src 'none'" in text
    assert not re.search(r"<(script|iframe|object|embed|form|base)\b|@import|\son\w+=", text)
    places = re.findall(r"""\b(?:src|href|action)\s*=\s*["']([^"']*)|url\(([^)]*)\)""", text)
    assert all(place.startswith(("#", "data:,")) for pair in places for place in pair if place)


def test_secrets_are_not_shown(folder, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "correct horse battery")
    rows = answers("The key is correct horse battery, or sk-abcdefghijklmnopqrst.")
    write(folder / "iteration_1" / "evaluation" / "trained.jsonl", *rows)
    tokens = [{"text": text, "pmi": 0.1} for text in (" correct", " horse", " battery", " sk-abcdefgh", "ijklmnopqrst")]
    explained = {"id": "a", "query": QUERY, "constitution": "1. A", "response": "", "tokens": tokens, "principles": []}
    write(folder / "iteration_1" / "explain.jsonl", explained)
    text = page(folder)
    assert "The key is ***, or ***." in text
    for part in ("horse", "battery", "sk-", "ijklmnop"):
        assert part not in text


def test_thinking_costs_but_is_not_shown(folder):
    rows = [{**row, "thinking": "Let me think.", "sampled_tokens": 12345} for row in answers(THANKFUL)]
    write(folder / "iteration_1/evaluation/trained.jsonl", *rows)
    text = page(folder)
    assert f"{len(rows) * 12345 + 9 * len(rows) * (len(SETS) - 1):,}" in text and "Let me think." not in text


def test_words_are_coloured_by_what_caused_them(folder):
    tokens = [{"text": text, "pmi": pmi} for text, pmi in ((" Tha", 0.5), ("nks", 0.3), (" a", 0.0), (" lot", -0.4))]
    shares = [{"id": "thanks", "text": "Say thank you.", "share": 1.5}]
    explained = {
        "id": "a",
        "query": QUERY,
        "constitution": "1. A",
        "response": "",
        "tokens": tokens,
        "principles": shares,
    }
    write(folder / "iteration_1" / "explain.jsonl", explained)
    text = page(folder)
    assert '<span class="up" style="--h: 1.000" title="+0.80">Thanks</span>' in text
    assert '<span title="+0.00">a</span>' in text
    assert '<span class="down" style="--h: 0.500" title="-0.40">lot</span>' in text
    assert 'style="width: 100.0%"' in text


def test_the_same_run_gives_the_same_bytes(folder):
    first = page(folder)
    assert page(folder) == first
    code = (
        "import pathlib, sys; from sami_jax.report.write import write_report; write_report(pathlib.Path(sys.argv[1]))"
    )
    subprocess.run([sys.executable, "-c", code, folder], check=True, env=os.environ | {"PYTHONHASHSEED": "7"})
    assert (folder / "report.html").read_text(encoding="utf-8") == first


def test_stays_small(tmp_path):
    many = [principle(f"p{n}", "trained", ("Do. " * 500, "Do not. " * 500)) for n in range(100)]
    folder = fabricate(tmp_path, principles=many)
    write(folder / "iteration_1" / "evaluation" / "trained.jsonl", *answers("A long reply. " * 20_000))
    scalars = [{"step": k, "loss": k % 7 / 7, "mi_posterior_bound": k % 5 / 5} for k in range(1, 20_001)]
    write(folder / "iteration_1" / "metrics.jsonl", *scalars)
    text = page(folder)
    assert len(text.encode()) < 3_000_000 and "more characters" in text


def test_curves_as_files_of_their_own(folder, tmp_path, capsys):
    """Each is a whole SVG that carries its colours and says what it shows; the numbers are the page's."""
    assert main(["report", str(folder), "--figures", str(tmp_path / "pictures"), "--language", "ja"]) == 0
    files = sorted((tmp_path / "pictures").glob("*.svg"))
    assert f"Figures: {len(files)} in" in capsys.readouterr().out
    assert {"run_following.svg", "run_loss.svg"} <= {file.name for file in files}
    for file in files:
        root = ElementTree.parse(file).getroot()
        text = file.read_text(encoding="utf-8")
        assert root.tag.endswith("svg") and root.find("{*}title").text in text.split("</title>")[1]
        assert set(re.findall(r"var\((--[\w]+)\)", text)) <= set(re.findall(r"(--[\w]+):", text))
        assert "prefers-color-scheme: dark" in text and 'href="http' not in text
    drawn = re.findall(r'd="(M[^"]*)"', (tmp_path / "pictures/run_following.svg").read_text(encoding="utf-8"))
    shown = page(folder, "ja")
    assert drawn and all(path in shown for path in drawn)


def test_figures_have_ids_of_their_own(folder):
    ids = re.findall(r'\bid="([^"]+)"', page(folder))
    assert len(ids) == len(set(ids)) > 20


def test_the_start_waits_for_no_drawing_library():
    code = "import sys, sami_jax.report.write; print({'matplotlib', 'jinja2', 'jax'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_the_verb(folder, tmp_path, capsys):
    target = tmp_path / "out" / "board.html"
    assert main(["report", str(folder), "--output", str(target), "--language", "ja"]) == 0
    assert str(target) in capsys.readouterr().out.replace("\n", "")
    assert target.read_text(encoding="utf-8") == render(gather(folder), Words("ja"))
    assert main(["report", str(folder)]) == 0 and (folder / "report.html").exists()


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("run.json", None, "give the folder of a run"),
        ("run.json", "{", "damaged manifest"),
        ("iteration_1/evaluation.json", "[", "not readable JSON"),
        ("iteration_1/evaluation.json", "[]", "the content is [], not an object"),
        ("iteration_1/metrics.jsonl", "{\n", "metrics.jsonl:1: not a JSON object"),
        ("iteration_1/metrics.jsonl", "[1]\n", "metrics.jsonl:1: not a JSON object"),
    ],
)
def test_a_bad_folder_is_one_line(folder, capsys, file, content, words):
    (folder / file).unlink() if content is None else (folder / file).write_text(content)
    assert main(["report", str(folder)]) == 2
    [line] = capsys.readouterr().err.strip().splitlines()
    assert file in line and words in line


def test_a_place_that_cannot_be_written_is_one_line(folder, capsys):
    with pytest.raises(SystemExit) as refused:
        main(["report", str(folder), "--output", str(folder / "run.json" / "report.html")])
    assert refused.value.code == 2 and "run.json is no folder; give another place" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_a_browser_shows_it_without_complaint(folder, tmp_path):
    file = write_report(folder)
    argv = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    argv += ["--enable-logging=stderr", "--dump-dom", file.as_uri()]
    shown = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert "The aligned model is better" in shown.stdout and shown.stdout.count("<svg") > 6
    assert "CONSOLE" not in shown.stderr


@pytest.mark.parametrize(("shares", "low"), [((1.01, 0.98), False), ((None, 0.02, 0.04), True), ((), False)])
def test_updates_that_were_rounded_away_are_told(folder, capsys, shares, low):
    """Of a skipped update nothing is known; of a run before this was measured neither."""
    rows = [{"step": n, "loss": 0.6, "effective_update": share} for n, share in enumerate(shares, start=1)]
    write(folder / "iteration_1" / "metrics.jsonl", *rows)
    text, folders = page(folder), [folder / f"iteration_{n}" for n in (0, 1)]
    print_summary(folders)
    out = capsys.readouterr().out
    assert ("only 3.0 % reached the weights" in text) == low
    assert ("WARNING: iteration 1: 3% of its updates reached the weights" in out) == low
    assert ("Share of updates that reached" in text) == bool(shares)
    told = as_json(folder)["iterations"]
    assert [row["effective_update"] for row in told] == [
        None,
        pytest.approx(0.03 if low else 0.995) if shares else None,
    ]
