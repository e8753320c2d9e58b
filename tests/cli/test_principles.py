"""`sami principles` as a user meets it: nothing written is lost, every refusal is one line."""

import json
import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sami_jax.cli import main
from sami_jax.principles.files import read_principle, read_principles
from sami_jax.principles.principle import own_status

FOLDER = Path("principles")


@pytest.fixture(autouse=True)
def two_principles(tmp_path, monkeypatch):
    """A folder with the drafts kind and brief, as the working directory."""
    monkeypatch.chdir(tmp_path)
    principles("add", "kind", "--principle", "Be kind.", "--antithesis", "Be cruel.", "--tag", "tone")
    principles("add", "brief", "--principle", "One sentence.", "--antithesis", "Many sentences.", "--notes", "Mobile.")


def principles(*argv: str) -> int:
    return main(["principles", *argv])


def status_of(id: str) -> str:
    return own_status(max((p for p in read_principles(FOLDER) if p.id == id), key=lambda p: p.version))


def listed(capsys) -> dict[str, str]:
    capsys.readouterr()
    assert principles("list", "--json") == 0
    return {f"{row['id']}@{row['version']}": row["status"] for row in json.loads(capsys.readouterr().out)}


def walk(monkeypatch, *answers: str) -> int:
    monkeypatch.delenv("EDITOR", raising=False)
    monkeypatch.delenv("VISUAL", raising=False)
    lines = iter(answers)

    def answer(_):
        try:
            return next(lines)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr("builtins.input", answer)
    return principles("review", "--reviewer", "Aiko")


def test_approve_edit_by_hand_approve_again(capsys):
    assert principles("approve", "kind", "--reviewer", "Aiko", "--comment", "Clear.") == 0
    assert listed(capsys) == {"brief@1": "draft", "kind@1": "approved"}
    file = FOLDER / "kind.yaml"
    file.write_text(file.read_text().replace("Be kind.", "Be kind!"))
    assert listed(capsys)["kind@1"] == "draft"
    assert principles("check") == 0
    assert "kind@1 was edited after its approval" in capsys.readouterr().out
    assert principles("approve", "kind", "--reviewer", "Ben") == 0
    assert "kind@2: approved by Ben (its text was changed after the approval of kind@1)" in capsys.readouterr().out
    assert listed(capsys) == {"brief@1": "draft", "kind@2": "approved"}
    assert [r.reviewer for r in read_principle(file).reviews] == ["Aiko", "Ben"]


def test_reject_and_show(capsys):
    assert principles("reject", "brief@1", "--reviewer", "Ben", "--comment", "Too terse.") == 0
    assert principles("show", "brief") == 0
    out = capsys.readouterr().out
    for words in ("brief@1: rejected", "One sentence.", "Many sentences.", "Ben: rejected, Too terse.", "Mobile."):
        assert words in out


def test_a_walk_decides_comments_skips_and_quits(monkeypatch, capsys):
    assert walk(monkeypatch, "c", "Why one?", "s", "x", "a", "Good.") == 0
    assert (status_of("brief"), status_of("kind")) == ("in review", "approved")
    assert "1 approved, 0 rejected, 1 left for later" in capsys.readouterr().out
    assert walk(monkeypatch, "r", "") == 0
    assert status_of("brief") == "rejected"
    assert walk(monkeypatch) == 0
    assert "nothing waits for a decision" in capsys.readouterr().out


def test_a_walk_edits_and_keeps_what_was_done_when_input_ends(monkeypatch, capsys):
    assert walk(monkeypatch, "e", "Two sentences.", "", "a", "", "e") == 0
    [brief, kind] = read_principles(FOLDER)
    assert brief.phrasings == (("Two sentences.", "Many sentences."),) and own_status(brief) == "approved"
    assert own_status(kind) == "draft"


def test_editing_an_approved_principle_makes_a_version_beside_it(monkeypatch, capsys):
    principles("approve", "kind", "--reviewer", "Aiko")
    lines = iter(["e", "Be very kind.", "", "a", ""])
    monkeypatch.setattr("builtins.input", lambda _: next(lines))
    monkeypatch.delenv("EDITOR", raising=False)
    assert principles("review", "kind", "--reviewer", "Aiko") == 0
    assert listed(capsys) == {"brief@1": "draft", "kind@1": "superseded", "kind@2": "approved"}
    assert principles("diff", "kind@1", "kind@2") == 0
    out = capsys.readouterr().out
    assert "-principle: Be kind." in out and "+principle: Be very kind." in out and "antithesis" not in out


def test_what_cannot_be_approved_says_why(capsys):
    file = FOLDER / "kind.yaml"
    file.write_text(file.read_text().replace("Be cruel.", "be KIND"))
    assert principles("approve", "kind", "--reviewer", "Aiko") == 2
    assert "kind@1: the antithesis says what the principle says" in capsys.readouterr().err
    assert status_of("kind") == "draft"


def test_the_walk_in_a_terminal_with_an_editor(tmp_path):
    """A pseudo-terminal, $EDITOR, and control characters in a text, which must not reach the terminal."""
    editor = tmp_path / "editor.py"
    editor.write_text(
        "import sys, pathlib as p; f = p.Path(sys.argv[1]); f.write_text(f.read_text().replace('One', 'Two'))"
    )
    file = FOLDER / "kind.yaml"
    file.write_text(file.read_text().replace("notes", "x") + 'notes: "bell \\a and \\e[31mred"\n')
    environment = {**os.environ, "EDITOR": f"{sys.executable} {editor}", "TERM": "xterm", "COLUMNS": "80"}
    environment.pop("VISUAL", None)
    terminal, slave = pty.openpty()
    command = [sys.executable, "-m", "sami_jax.cli", "principles", "review", "--reviewer", "Aiko"]
    process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=environment, close_fds=True)
    os.close(slave)
    shown = b""
    for answer in (b"e\n", b"a\n", b"fine\n", b"q\n"):
        deadline = time.monotonic() + 60
        while not shown.rstrip().endswith(b":") or shown.endswith(b"\n"):
            assert time.monotonic() < deadline, shown
            if select.select([terminal], [], [], 0.2)[0]:
                shown += os.read(terminal, 65536)
        os.write(terminal, answer)
        shown += b"\n"
    while process.poll() is None:
        if select.select([terminal], [], [], 0.2)[0]:
            try:
                shown += os.read(terminal, 65536)
            except OSError:
                break
    assert process.wait(timeout=30) == 0, shown
    assert read_principle(FOLDER / "brief.yaml").phrasings[0][0] == "Two sentence."
    assert status_of("brief") == "approved" and status_of("kind") == "draft"
    assert b"\a" not in shown and b"\x1b[31mred" not in shown and b"\\x1b[31mred" in shown


def test_csv_to_a_spreadsheet_and_back(capsys):
    principles("approve", "kind", "--reviewer", "Aiko")
    assert principles("export", "out.csv") == 0
    Path("out.csv").write_text(Path("out.csv").read_text().replace("Be kind.", "Be kinder."))
    capsys.readouterr()
    assert principles("import", "out.csv") == 0
    assert capsys.readouterr().out.splitlines() == ["next version: kind@2", "unchanged: brief@1"]
    assert listed(capsys) == {"brief@1": "draft", "kind@1": "approved", "kind@2": "draft"}


def test_folders_are_compared(tmp_path, capsys):
    principles("add", "kind", "--folder", "other", "--principle", "Be kind.", "--antithesis", "Be rude.")
    assert principles("diff", "principles", "other") == 0
    out = capsys.readouterr().out
    assert "-antithesis: Be cruel." in out and "+antithesis: Be rude." in out and "+++ (none)" in out
    assert principles("diff", "principles", "principles") == 0
    assert "no difference" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["add", "kind", "--principle", "A.", "--antithesis", "B."], "there is a principle 'kind'"),
        (["add", "a b", "--principle", "A.", "--antithesis", "B."], "'a b' cannot be an id"),
        (["add", "c", "--principle", "A.", "--antithesis", " a "], "says what the principle says"),
        (["add", "c", "--principle", " ", "--antithesis", "B."], "a text is empty"),
        (["approve", "kid", "--reviewer", "x"], "no principle 'kid'; known: brief@1, kind@1"),
        (["approve", "kind@7", "--reviewer", "x"], "no principle 'kind@7'"),
        (["list", "--folder", "nowhere"], "nowhere: no such folder"),
        (["diff", "kind", "kid"], "no principle 'kid'"),
        (["import", "none.csv"], "none.csv: "),
        (["used", "nowhere"], "run.json: No such file"),
        (["shout"], "'shout' is not known"),
        (["list", "--config.seed=1"], "`sami principles list` takes no config"),
    ],
)
def test_bad_input_is_one_line(capsys, argv, words):
    capsys.readouterr()
    try:
        status = principles(*argv)
    except SystemExit as exit:
        status = exit.code
    lines = capsys.readouterr().err.strip().splitlines()
    assert status == 2 and len(lines) == 1 and words in lines[0], lines


def test_check_fails_on_errors(capsys):
    (FOLDER / "broken.yaml").write_text("id: [")
    assert principles("check") == 2
    out, err = capsys.readouterr()
    assert "error: broken.yaml: not readable YAML" in out and "1 error(s)" in err
