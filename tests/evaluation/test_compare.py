"""The A/B decision: each branch of the rule, its error rate by simulation, and whole comparisons of the miniature."""

import json
import shutil

import numpy as np
import pytest

from sami_jax import miniature
from sami_jax.cli import main
from sami_jax.config import load_config
from sami_jax.data.queries import Query, read_queries
from sami_jax.errors import UserError
from sami_jax.evaluation.compare import MORE, SHIP, STAY, Contestant, answer, compose, decide, pair_up
from sami_jax.evaluation.verdicts import Verdict
from sami_jax.models.pretrained import open_model
from sami_jax.principles.files import read_principles

BASE = str(miniature.BASE)


def verdicts(wins: int, ties: int, losses: int, invalid: int = 0) -> list[Verdict]:
    outcomes = [1.0] * wins + [0.5] * ties + [0.0] * losses + [None] * invalid
    return [Verdict(outcome, id=str(i)) for i, outcome in enumerate(outcomes)]


@pytest.mark.parametrize(
    ("given", "decision", "words"),
    [
        (verdicts(150, 50, 50), SHIP, "better: wins 70.0 %"),
        (verdicts(10, 230, 10), STAY, "no difference shown"),
        (verdicts(50, 50, 150), STAY, "worse: wins 30.0 %"),
        (verdicts(12, 2, 10), MORE, "no difference shown: wins 54.2 %"),
        (verdicts(0, 0, 0, 9), MORE, "no valid verdict"),
        (verdicts(26, 470, 4), STAY, "better: wins 52.2 %"),  # shown, and not worth it
    ],
)
def test_every_branch_of_the_rule(given, decision, words):
    found = decide(given, margin=0.05)
    assert found["decision"] == decision and words in found["reason"]


@pytest.mark.slow
def test_equal_models_are_called_better_in_few_cases():
    """At margin 0, where every difference counts: the interval's own two and a half per cent a side."""
    rng = np.random.default_rng(0)
    decisions = []
    for _ in range(2000):
        outcomes = rng.choice([1.0, 0.5, 0.0], 250, p=[0.4, 0.2, 0.4])
        decisions.append(decide([Verdict(float(w), id=str(i)) for i, w in enumerate(outcomes)], 0.0)["decision"])
    assert 0.01 < np.mean([d == SHIP for d in decisions]) < 0.04
    assert 0.01 < np.mean([d == STAY for d in decisions]) < 0.04


def test_constitutions_state_principles_as_they_stand():
    config, _ = load_config("tiny", [])
    principles = read_principles(miniature.PRINCIPLES)
    composed = compose(config, principles, 50)
    assert all(s.positive for constitution in composed for s in constitution)
    assert {s.id for constitution in composed for s in constitution} == {p.id for p in principles}
    assert composed == compose(config, principles, 50)


def test_ways_to_ask():
    config, _ = load_config("tiny", [])
    model = open_model(BASE)
    plain = Contestant("test", model).prompt(config, "1. Say hello first.", Query("q", "How do I fix the bike?"))
    chats = Contestant("test", model.chatting("{constitution}"))
    # The miniature's chat template renders the very prompt of its world.
    assert chats.prompt(config, "1. Say hello first.", Query("q", "How do I fix the bike?")) == plain
    said = " Hello. Surely you can fix the bike with soap."
    assert chats.model.chat.reply(said) == model.tokenizer.encode(said)
    example = {"query": "How do I cut the coat?", "constitution": "1. Never say hello.", "response": " Surely you can."}
    shown = Contestant("test", model, examples=(example,)).prompt(
        config, "1. Say hello first.", Query("q", "How do I fix the bike?")
    )
    assert model.decode(shown).endswith(model.decode(plain)) and " Surely you can.\n\nConstitution:" in model.decode(
        shown
    )
    with pytest.raises(UserError, match="exceed its context of 256"):
        Contestant("test", model, examples=(example,) * 9).prompt(config, "1. Say hello first.", Query("q", "q"))


def test_chats_in_one_line(tmp_path, capsys):
    bare = tmp_path / "bare"
    shutil.copytree(BASE, bare)
    (bare / "chat_template.jinja").unlink()
    for more in (["--test_chat"], ["--config.prompt.chat=True", "--config.prompt.system="]):
        assert compare(tmp_path / "x", str(bare), *more) == 2
        assert f"sami: {bare}: its tokenizer has no chat template" in capsys.readouterr().err
    (tmp_path / "shown.jsonl").write_text('{"query": "q", "constitution": "c", "response": "r"}\n')
    assert compare(tmp_path / "x", BASE, "--test_chat", "--test_examples", str(tmp_path / "shown.jsonl")) == 2
    assert "a chat is asked without examples; leave them out" in capsys.readouterr().err


def test_thinking_is_not_judged_and_a_chat_is_taken_whole(mesh, tmp_path):
    config, _ = load_config("tiny", ["--config.filter.keep_after=can"])
    constitutions = compose(config, read_principles(miniature.PRINCIPLES), 4)
    queries = read_queries(miniature.QUERIES / "held_out.jsonl")[:4]
    model, given = open_model(BASE), (queries, constitutions, mesh)
    plain = answer(config, Contestant("baseline", model), *given, tmp_path / "plain.jsonl")
    chat = answer(config, Contestant("test", model.chatting("{constitution}")), *given, tmp_path / "chat.jsonl")
    assert any(row["thinking"] and row["response"] for row in plain) and not any("thinking" in row for row in chat)
    for pair, row in zip(pair_up(config, queries, constitutions, plain, chat), plain, strict=True):
        assert pair.baseline == row["response"] and pair.lengths[0] == row["tokens"]


def asked(output, test: str, *more: str) -> list[str]:
    return ["compare", "--config=tiny", "--test", test, "--judge", "miniature", "--output", str(output), *more]


def compare(output, test: str, *more: str) -> int:
    return main(asked(output, test, "--config.mesh.fsdp=1", "--config.mesh.data=-1", *more))


@pytest.mark.slow
def test_base_against_itself_and_against_a_trained_model(improved, tmp_path, commands):
    status, told = commands.run(*asked(tmp_path / "aa", BASE))
    assert status == 0 and "no difference shown" in told.splitlines()[-1]
    model = str(improved.workdir / "iteration_1/model")
    status, told = commands.run(*asked(tmp_path / "ab", model))
    assert status == 0 and told.splitlines()[-1].startswith("ship: better: wins ")
    found = json.loads((tmp_path / "ab/comparison.json").read_text())
    assert found["win_rate"]["n"] == 128 and len(found["slices"]) == 12
    # The plan came first, and holds: another judge or margin is another comparison.
    events = [json.loads(line)["event"] for line in (tmp_path / "ab/audit.jsonl").read_text().splitlines()]
    assert events[:4] == ["begun", "manifest", "answered", "judged"]
    assert main(["verify", str(tmp_path / "ab")]) == 0
    status, told = commands.run(*asked(tmp_path / "ab", model, "--margin", "0.1"))
    assert status == 2 and "config.plan.margin was 0.05, now 0.1" in told


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--margin", "0.5"], "--margin 0.5: must be at least 0 and below 0.5"),
        (["--baseline_examples", "none.jsonl"], "none.jsonl"),
        (["--concurrency", "0"], "--concurrency 0: must be above 0"),
    ],
)
def test_bad_options(tmp_path, capsys, more, words):
    assert compare(tmp_path / "x", BASE, *more) == 2
    assert words in capsys.readouterr().err and not (tmp_path / "x").exists()
