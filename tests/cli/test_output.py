"""What goes where: results on stdout, as text or as one JSON document; news on stderr, and none of it with --quiet."""

import contextlib
import json

import pytest
from support.fabricated_run import fabricate, measured

from sami_jax.cli import main
from sami_jax.cli.parser import new_parser
from sami_jax.errors import StoppedByCanary
from sami_jax.report.summary import print_evaluation

WITHOUT_JSON = {"principles review", "desk", "completion"}  # a conversation; a server; a script


def leaves(parser, path=()):
    """(verb, parser) of every verb that does something."""
    groups = [action for action in parser._actions if isinstance(action.choices, dict)]
    if not groups:
        yield " ".join(path), parser
    for group in groups:
        for name, sub in group.choices.items():
            yield from leaves(sub, (*path, name))


VERBS = dict(leaves(new_parser()))


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_can_be_quiet_and_speak_json(verb):
    options = VERBS[verb].format_help()
    assert "--quiet" in options and "example: " in options and f"sami {verb}" in options.partition("example: ")[2]
    assert ("--json" in options) == (verb not in WITHOUT_JSON)


WIN = {"id": 1, "constitution": "1. A.", "win": 1, "flipped": None, "baseline_tokens": 9, "test_tokens": 8, "tags": []}
RESPONSE = {"id": 1, "query": "Q", "constitution": "1. Be calm.", "response": "Yes."}
FILES = {"v.jsonl": WIN, "a.jsonl": RESPONSE, "b.jsonl": RESPONSE}
PAIRED = ["--baseline", "a.jsonl", "--test", "b.jsonl"]
COMMANDS = [
    ["verify", "run"],
    ["report", "run"],
    ["winrate", "--input", "v.jsonl"],
    ["rank", "x:y=v.jsonl"],
    ["judge", *PAIRED, "--output", "j.jsonl", "--judge", "miniature"],
    ["rate", "export", *PAIRED, "--output", "rated"],
    ["principles", "add", "kind", "--principle", "Be kind.", "--antithesis", "Be cruel."],
    ["principles", "list"],
    ["principles", "check"],
    ["principles", "approve", "kind", "--reviewer", "Aiko"],
    ["principles", "show", "kind"],
    ["principles", "diff", "kind@1", "kind@1"],
    ["principles", "export", "e.csv"],
    ["principles", "import", "e.csv"],
    ["principles", "used", "run"],
]


def test_results_go_to_stdout_and_news_to_stderr(tmp_path, capsys):
    fabricate(tmp_path / "run")
    for name, row in FILES.items():
        (tmp_path / name).write_text(json.dumps(row) + "\n")
    with contextlib.chdir(tmp_path):
        for argv in COMMANDS:
            assert main([*argv, "--quiet"]) == 0, argv
            out, err = capsys.readouterr()
            assert err == "" and out.strip(), argv
            assert "\x1b" not in out
            for written in ("j.jsonl", "principles/kind.yaml")[: 2 if argv[1] == "add" else 1]:
                (tmp_path / written).unlink(missing_ok=True)
            assert main([*argv, "--json"]) == 0, argv
            json.loads(capsys.readouterr().out)
    # A verb leaves nothing silent behind.
    assert main(["winrate", "--input", str(tmp_path / "v.jsonl")]) == 0
    assert "1 wins" in capsys.readouterr().out


def test_errors_are_said_even_if_quiet(capsys):
    for option in ("--quiet", "--json"):
        assert main(["verify", "nowhere", option]) == 2
        out, err = capsys.readouterr()
        assert out == "" and err.startswith("sami: nowhere")


def test_in_a_pipe_nothing_is_cut(tmp_path, capsys):
    text = "Be kind " + "and patient " * 40 + "always."
    argv = ["principles", "--folder", str(tmp_path)]
    assert main([argv[0], "add", "kind", *argv[1:], "--principle", text, "--antithesis", "Be cruel."]) == 0
    for verb in (["list"], ["show", "kind"]):
        assert main([argv[0], *verb, *argv[1:]]) == 0
        assert text in capsys.readouterr().out


def test_a_run_that_canaries_stopped_tells_what_is_good(tmp_path, capsys, monkeypatch):
    from sami_jax.stages import loop

    def stopped(config, workdir, *_):
        fabricate(workdir, stopped={"last_good": 2})
        raise StoppedByCanary("iteration 1, update 3: stopped by canaries")

    monkeypatch.setattr(loop, "run", stopped)
    (tmp_path / "run" / "iteration_1" / "model").mkdir(parents=True)
    assert main(["run", "--workdir", str(tmp_path / "run"), "--json"]) == 3
    out, err = capsys.readouterr()
    told = json.loads(out)
    assert err == "sami: iteration 1, update 3: stopped by canaries\n" and told["status"] == "stopped by canaries"
    assert [row["model"] for row in told["iterations"]] == [None, str(tmp_path / "run" / "iteration_1" / "model")]
    assert told["iterations"][1]["evaluation"]["trained"]["win_rate"] == 0.8


def test_an_evaluation_is_a_table(capsys):
    print_evaluation(
        "runs/x/model", {"trained": measured((0.8, 0.7, 0.9), 0.9), "held_out_principles": measured(None, 0.5)}
    )
    out = capsys.readouterr().out
    assert "Held-out queries, trained principles: 8 responses each" in out and "runs/x/model" in out
    assert "80.0 % (70-90)" in out and out.count("50.0 %") == 1
