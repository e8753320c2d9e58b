"""Checks tried on responses: counted by side, with intervals that know which responses share a query."""

import json

import pytest

from sami_jax.cli import main
from sami_jax.data.jsonl import write_jsonl
from sami_jax.errors import UserError
from sami_jax.evaluation.statistics import mean_interval
from sami_jax.evaluation.trial import try_checks
from sami_jax.principles.checks.check import Checks
from sami_jax.principles.files import write_principle
from sami_jax.principles.principle import Principle

SHORT = Principle(
    "short",
    (("Use two sentences.", "Use five sentences."),),
    check=Checks.parse({"principle": {"sentences": {"at_most": 2}}, "antithesis": {"sentences": {"at_least": 5}}}, "a"),
)
ASK = Principle(
    "ask",
    (("Ask the person something.", "Ask nothing."), ("Put a question.", "Put no question.")),
    check=Checks.parse({"principle": {"questions": True}, "antithesis": {"sentences": {"at_least": 1}}}, "a"),
)
FREE = Principle("free", (("Be kind.", "Be cruel."),))
PRINCIPLES = [SHORT, ASK, FREE]
FIVE = "I ran. You sat. We ate. They left. All slept."


@pytest.fixture
def responses(tmp_path):
    rows = [
        {"id": 1, "constitution": "1. Use two sentences.\n2. Be kind.", "response": "Yes. No."},
        {"id": 1, "constitution": "1. Use five sentences.\n2. Be cruel.", "response": FIVE},
        {"id": 2, "constitution": "1. Put a question.\n2. Use two sentences.", "response": "Why? I ran. You sat."},
        {"id": 2, "constitution": "1. Put no question.\n2. Use five sentences.", "response": "Use five sentences."},
        {"id": 3, "constitution": "1. Use two sentences.", "response": "   "},
    ]
    file = tmp_path / "responses.jsonl"
    write_jsonl(file, rows)
    return file


def test_counts_by_side(responses):
    found = {(trial.name, trial.side): trial for trial in try_checks(responses, PRINCIPLES)}
    assert set(found) == {(name, side) for name in ("short@1", "ask@1") for side in ("principle", "antithesis")}
    counts = {
        key: (trial.responses, trial.followed, trial.both, trial.neither, trial.echoes) for key, trial in found.items()
    }
    assert counts == {
        ("short@1", "principle"): (3, 1, 0, 2, 0),  # the empty one follows nothing
        ("short@1", "antithesis"): (2, 1, 0, 0, 1),  # an echo follows nothing, whatever the number of its sentences
        ("ask@1", "principle"): (1, 1, 1, 0, 0),
        ("ask@1", "antithesis"): (1, 0, 0, 0, 1),
    }
    short = found["short@1", "principle"]
    assert short.interval == pytest.approx(mean_interval([1, 0, 0], ["1", "2", "3"])[1:])
    assert short.record()["share"] == pytest.approx(1 / 3)


def test_pairs_of_a_run_and_bare_responses(tmp_path):
    pairs, bare = tmp_path / "pairs.jsonl", tmp_path / "bare.jsonl"
    write_jsonl(pairs, [{"id": 1, "constitutions": [a for a, _ in SHORT.phrasings] * 2, "responses": ["Yes.", FIVE]}])
    (trial,) = try_checks(pairs, PRINCIPLES)
    assert (trial.side, trial.responses, trial.followed) == ("principle", 2, 1)
    assert trial.interval == (0, 1)  # both are of one query
    write_jsonl(bare, [{"id": 1, "response": "Yes."}, {"id": 2, "response": FIVE}])
    counts = [(trial.name, trial.side, trial.responses, trial.followed) for trial in try_checks(bare, PRINCIPLES)]
    assert counts[:2] == [("ask@1", "principle", 2, 0), ("ask@1", "antithesis", 2, 2)]
    assert counts[2:] == [("short@1", "principle", 2, 1), ("short@1", "antithesis", 2, 1)]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"id": 1, "constitution": "1. Fly.", "response": "a"}, "1: the response cannot be checked: 'Fly.' is stated"),
        ({"id": 1, "constitution": "1. Be kind."}, "1: key 'response' is missing"),
        ({"id": 1, "constitution": 3, "response": "a"}, "1: response or constitution is no text"),
        (
            {"id": 1, "constitutions": ["1. Be kind."], "responses": ["a", "b"]},
            "1: responses and constitutions are not",
        ),
        (
            {"id": 1, "constitution": "1. Use two sentences.", "response": "a" * 50_001},
            "a response of 50001 characters",
        ),
        ({"id": 1, "constitution": "1. Be kind.", "response": "a"}, "states a principle that has a check"),
    ],
)
def test_what_cannot_be_tried_is_one_line(tmp_path, row, message):
    write_jsonl(tmp_path / "r.jsonl", [row])
    with pytest.raises(UserError, match=message):
        try_checks(tmp_path / "r.jsonl", PRINCIPLES)


def test_principles_without_checks_cannot_be_tried(responses):
    with pytest.raises(UserError, match="none of these principles has a check; write 'check:'"):
        try_checks(responses, [FREE])


def test_the_command_shows_a_table_and_examples(responses, monkeypatch, capsys):
    monkeypatch.chdir(responses.parent)
    for principle in PRINCIPLES:
        (responses.parent / "principles").mkdir(exist_ok=True)
        write_principle(responses.parent / "principles" / f"{principle.id}.yaml", principle)
    assert main(["principles", "check", "--responses", str(responses), "--show", "1"]) == 0
    out = capsys.readouterr().out
    for words in ("33.3 % (", "short@1, principle: followed: 1: Yes. No.", "echo: 2: Use five sentences.", "both sides: 2: Why?"):  # fmt: skip
        assert words in out
    assert main(["principles", "check", "--responses", str(responses), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["name"], row["side"], row["followed"]) for row in rows][2:] == [("short@1", "principle", 1), ("short@1", "antithesis", 1)]  # fmt: skip
    assert main(["principles", "check", "--responses", "nowhere.jsonl"]) == 2
    assert main(["principles", "check", "--responses", str(responses), "--show", "-1"]) == 2
    (responses.parent / "principles" / "short.yaml").write_text("id: short\nprinciple: a\nantithesis: b\ncheck: {principle: {pattern: '(a'}, antithesis: json}\n")  # fmt: skip
    assert main(["principles", "check"]) == 2
    assert "short.yaml: check.principle.pattern: pattern '(a' cannot be used (missing ): (a)" in capsys.readouterr().out
