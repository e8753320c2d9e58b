"""Verdict files: counts that add up, the paper's published tables to the last digit, bad lines by name."""

import json
import os
from pathlib import Path

import pytest

from sami_jax.cli import main
from sami_jax.errors import UserError
from sami_jax.evaluation.verdicts import Verdict, by_tag, read_verdicts, summarize

REFERENCE = pytest.mark.skipif("SAMI_REFERENCE" not in os.environ, reason="needs the public reference data")


def published(task: str, name: str) -> Path:
    folder = {"tldr": "tldr/verdicts/mistral-opus", "hh": "hh/verdicts/helpful"}[task]
    return Path(os.environ["SAMI_REFERENCE"]) / folder / f"{name}.jsonl"


def winrate(capsys, *argv: str) -> dict:
    assert main(["winrate", *argv, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@REFERENCE
@pytest.mark.parametrize(
    ("rival", "expected"),
    [("base", {1: 57.2, 2: 75.6, 3: 70.0}), ("instruct", {0: 25.2, 1: 42.0, 2: 53.6, 3: 44.0})],
)
def test_the_papers_tldr_table(capsys, rival, expected):
    """Tables 4-7 count strict wins."""
    for iteration, percent in expected.items():
        found = winrate(capsys, "--input", str(published("tldr", f"it{iteration}-vs-{rival}")), "--ties", "strict")
        assert round(100 * found["win_rate"], 1) == percent
        assert found["n"] == 250 == found["wins"] + found["ties"] + found["losses"] + found["invalid"]


@REFERENCE
def test_the_papers_hh_table(capsys):
    """Raw and length-balanced, ties as half."""
    for iteration, raw, balanced in ((1, 0.670, 0.638), (2, 0.844, 0.753), (3, 0.806, 0.669)):
        found = winrate(capsys, "--input", str(published("hh", f"it{iteration}-vs-base")), "--ties", "half")
        assert round(found["win_rate"], 3) == raw and round(found["length_balanced"], 3) == balanced


@REFERENCE
def test_the_papers_logistic_figures_to_a_point(capsys):
    """The paper prints .542, .704, .675. The published files give .549, .711, .672: they hold no prompts or texts, so
    the lengths that its regression used cannot be rebuilt; with these, no rule for ties and no usual scale of the difference gives
    all three figures."""
    for iteration, printed, ours in ((1, 0.542, 0.549), (2, 0.704, 0.711), (3, 0.675, 0.672)):
        found = winrate(capsys, "--input", str(published("hh", f"it{iteration}-vs-base")), "--ties", "strict")
        assert round(found["length_controlled"], 3) == ours
        assert abs(found["length_controlled"] - printed) < 0.008


def test_counts_add_up_and_invalid_is_no_tie():
    wins = [1, 1, 0.5, 0, None, None]
    found = summarize([Verdict(None if win is None else float(win)) for win in wins], "half")
    assert [found[name] for name in ("n", "wins", "ties", "losses", "invalid")] == [6, 2, 1, 1, 2]
    assert found["win_rate"] == 2.5 / 4 and found["length_balanced"] is None and found["flip_rate"] is None
    assert summarize([Verdict(None)], "half")["win_rate"] is None
    assert summarize([Verdict(0.5)], "drop")["win_rate"] is None


def test_slices_show_what_the_mean_hides():
    verdicts = [Verdict(1.0, tags=("long",))] * 8 + [Verdict(0.0, tags=("short", "ja"))] * 2
    slices = by_tag(verdicts, "half")
    assert summarize(verdicts, "half")["win_rate"] == 0.8
    assert {tag: found["win_rate"] for tag, found in slices.items()} == {"ja": 0.0, "long": 1.0, "short": 0.0}


def test_human_readable(tmp_path, capsys):
    lines = [
        {"win": w, "baseline_tokens": 10 + i, "test_tokens": 12, "flipped": w == 0.5}
        for i, w in enumerate([1, 0, 0.5, 1, 1])
    ]
    (tmp_path / "v.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert main(["winrate", "--input", str(tmp_path / "v.jsonl")]) == 0
    out = capsys.readouterr().out
    assert "win rate, ties as half" in out and "70.0 %" in out and "flipped with the order" in out


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"win": 2}', "v.jsonl:2: win is none of 1, 0.5, 0 and null but 2"),
        ('{"win": true}', "null but True"),
        ('{"win": "1"}', "null but '1'"),
        ('{"won": 1}', "v.jsonl:2: key 'win' is missing"),
        ('{"win": 1, "test_tokens": -1}', "v.jsonl:2: a length is no number of tokens but -1"),
        ('{"win": 1, "tags": "a"}', "v.jsonl:2: tags must be a list"),
    ],
)
def test_bad_lines_are_named(tmp_path, line, words):
    (tmp_path / "v.jsonl").write_text('{"win": 1}\n' + line)
    with pytest.raises(UserError, match=words):
        read_verdicts(tmp_path / "v.jsonl")


@REFERENCE
def test_rank_of_published_verdicts(capsys):
    """Models that were never set against each other are ranked through their common rivals."""
    matches = [
        f"{rival}:it{i}={published('tldr', f'it{i}-vs-{rival}')}" for rival in ("base", "instruct") for i in (1, 2, 3)
    ]
    assert main(["rank", *matches]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["it2", "instruct", "it3", "it1", "base"]


@pytest.mark.parametrize("match", ["a=f", "a:b", "a:a=f", ":b=f"])
def test_bad_matches(match, capsys):
    assert main(["rank", match]) == 2
    assert "not BASELINE:TEST=FILE" in capsys.readouterr().err
