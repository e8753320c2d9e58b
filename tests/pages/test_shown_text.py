"""Whatever a text holds, wherever it is shown it stays a text."""

import csv
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sami_jax import miniature
from sami_jax.cli import main
from sami_jax.data.cells import FORMULA, from_cell, to_cell
from sami_jax.ground.terminal import say, show, visible
from sami_jax.principles.files import write_principle
from sami_jax.principles.principle import Principle, Source
from sami_jax.report.model_card import write_card
from sami_jax.tracking import trackers
from sami_jax.tracking.tensorboard import as_markdown

EVIL = "\x1b[2J\x9b31m\u202eabc\u2066\u200b\ufeff\U000e0041<script>alert(1)</script>[red]x[/]![i](http://t/x)`c`|_a_*b*\r\x07"
HIDDEN = "\x1b\x9b\u202e\u2066\u200b\ufeff\U000e0041\r\x07"


def is_neutral(text: str) -> bool:
    return not set(HIDDEN) & set(text)


def test_what_is_visible_is_all_there_is():
    assert is_neutral(visible(EVIL)) and r"\x1b[2J" in visible(EVIL) and r"\x202e" in visible(EVIL)
    for good in ("a\tb\nc", "日本語", "שלום", "👩‍👩‍👧 नमस्ते می‌خواهم"):
        assert visible(good) == good


@given(st.text(st.characters()))
def test_any_text_can_be_shown(text):
    assert is_neutral(visible(text))
    visible(text).encode()


def test_the_terminal(capsys):
    say(EVIL)
    show(EVIL)
    assert main(["winrate", "--input", EVIL]) == 2
    out, err = capsys.readouterr()
    for shown in (out, err):
        assert is_neutral(shown) and "[red]x[/]" in shown
    with pytest.raises(SystemExit):
        main(["winrate", "--input", "x", "--ties", EVIL])
    assert is_neutral(capsys.readouterr().err)


def test_lists_of_principles(tmp_path, capsys):
    write_principle(
        tmp_path / "kind.yaml", Principle("kind", ((EVIL, "Be cruel."),), source=Source("[/]" + EVIL), notes=EVIL)
    )
    for verb in (["list"], ["show", "kind"], ["check"]):
        main(["principles", *verb, "--folder", str(tmp_path)])
        out, err = capsys.readouterr()
        assert is_neutral(out + err)


def test_the_model_card(tmp_path):
    principle = {"id": "kind", "version": 1, "role": "trained", "status": "approved", "hash": "sha256:" + "a" * 64}
    made_from = {
        "review": {"unapproved": []},
        "config": {
            "data": {"queries": "q.jsonl"},
            "prompt": {"chat": False, "system": "", "generation": EVIL + "\n# a"},
        },
        "base_model": {"path": "base`" + EVIL},
        "principles": [principle | {"phrasings": [[EVIL, EVIL]]}],
    }
    write_card(tmp_path, EVIL, made_from, {}, EVIL)
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert is_neutral(card)
    for line in (line for line in card.splitlines() if line.startswith(("# ", "| kind", "**Stopped"))):
        assert "<script>" not in line and "![" not in line and "[i]" not in line
    [row] = [line for line in card.splitlines() if line.startswith("| kind@1")]
    assert row.replace("\\|", "").count("|") == 7


def test_texts_of_tensorboard():
    [row] = trackers.shown([dict.fromkeys(("query", "constitution", "response"), "# a\n" + EVIL.replace("\r", "\n"))])
    text = as_markdown(row)
    assert is_neutral(text)
    assert all(line.startswith(("    ", "**")) for line in text.splitlines() if line.strip())


@given(st.text(st.characters(codec="utf-8")))
def test_no_cell_is_a_formula(text):
    cell = to_cell(text)
    assert not cell.startswith(FORMULA)
    assert from_cell(cell) == text.replace("\r\n", "\n") or text != text.strip()


def test_sheets(tmp_path):
    evil = "=HYPERLINK(1)"
    for name in "ab":
        row = {"id": evil, "query": evil, "constitution": "+1", "response": "@SUM(1)"}
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(row) + "\n")
    argv = ["--baseline", f"{tmp_path}/a.jsonl", "--test", f"{tmp_path}/b.jsonl", "--output", f"{tmp_path}/out"]
    assert main(["rate", "export", *argv]) == 0
    write_principle(tmp_path / "p" / "x.yaml", Principle("x", ((evil, "-1"),), tags=("=a",), notes="\t=b"))
    assert main(["principles", "export", f"{tmp_path}/p.csv", "--folder", f"{tmp_path}/p"]) == 0
    for file in (tmp_path / "out" / "ratings.csv", tmp_path / "p.csv"):
        cells = [cell for row in csv.reader(io.StringIO(file.read_text(), newline="")) for cell in row]
        assert not any(cell.startswith(FORMULA) for cell in cells)


def test_the_miniatures_texts_are_shown_as_they_are():
    for file in miniature.PRINCIPLES.glob("*.yaml"):
        text = file.read_text(encoding="utf-8")
        assert visible(text) == text
