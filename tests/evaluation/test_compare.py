"""The A/B decision: each branch of the rule, its error rate by simulation, and whole comparisons of the miniature."""

import json
import shutil

import numpy as np
import pytest
from support.quick import others_slow

from sami_jax import miniature
from sami_jax.cli import main
from sami_jax.config import load_config
from sami_jax.data.queries import Query, read_queries
from sami_jax.errors import UserError
from sami_jax.evaluation.compare import (
    MORE,
    SHIP,
    STAY,
    Contestant,
    answer,
    compose,
    decide,
    judged_rows,
    pair_up,
    shows,
)
from sami_jax.evaluation.verdicts import Verdict
from sami_jax.models.pretrained import open_model
from sami_jax.principles.files import read_principles
from sami_jax.sampling.samplers import OwnSampler

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
        (verdicts(0, 2, 0), MORE, "no difference shown: wins 50.0 % (95 %: 15.0 to 85.0) of 2"),
        (verdicts(12, 0, 4), MORE, "better: wins 75.0 %"),  # the exact sign test: p = .077
        (verdicts(16, 0, 0), SHIP, "better: wins 100.0 %"),
        (verdicts(18, 0, 2, 230), MORE, "of 20; but 230 of 250 verdicts are invalid, and the plan allows 5 %"),
        (verdicts(150, 50, 36, 14), MORE, "14 of 250 verdicts are invalid"),
        (verdicts(150, 50, 38, 12), SHIP, "better"),
        (verdicts(50, 50, 120, 30), MORE, "worse: wins 34.1 %"),  # nor is a loss believed
        (verdicts(113, 0, 87), MORE, "214 queries show a true gain of 10 points in 4 of 5 comparisons"),
        (verdicts(138, 0, 112), MORE, "in 4 of 5 comparisons, so what gain there is is likely smaller"),
    ],
)
def test_every_branch_of_the_rule(given, decision, words):
    found = decide(given, margin=0.05)
    assert found["decision"] == decision and words in found["reason"]


def decisions(rng, queries: int, gain: float, ties: float, margin: float, size: int = 1, draws: int = 500) -> list[str]:
    """Of comparisons with `size` verdicts a query, whose queries differ where there are several."""
    found = []
    for _ in range(draws):
        decisive = (0.5 + gain - ties / 2) / (1 - ties)
        rates = (
            rng.beta(2 * decisive, 2 * (1 - decisive), (queries, 1)) if size > 1 else np.full((queries, 1), decisive)
        )
        wins = (rng.random((queries, size)) < rates).astype(float)
        wins = np.where(rng.random(wins.shape) < ties, 0.5, wins)
        given = [Verdict(float(win), id=str(query)) for query, row in enumerate(wins) for win in row]
        found.append(decide(given, margin)["decision"])
    return found


@pytest.mark.parametrize(
    ("margin", "ties", "size"),
    others_slow(
        [(0.1, 0.2, 1), (0.1, 0.0, 2), (0.2, 0.0, 1), (0.05, 0.0, 1), (0.05, 0.4, 1), (0.05, 0.0, 3)],
        (0.1, 0.2, 1),
        (0.2, 0.0, 1),
    ),
)
def test_the_number_of_queries_that_is_named_has_its_power(margin, ties, size):
    """A true gain of twice the margin ships in 4 of 5 comparisons or more, none in at most 3 of 100."""
    gain, queries = shows(margin, ties)
    assert gain == (2 * margin if margin < 0.2 else 0.35)  # half-way to where all are wins
    better = decisions(np.random.default_rng(0), queries, gain, ties, margin, size)
    equal = decisions(np.random.default_rng(1), queries, 0.0, ties, margin, size)
    assert better.count(SHIP) >= 0.8 * len(better) and equal.count(SHIP) <= 0.03 * len(equal)


def test_a_number_is_named_for_every_margin():
    for margin in np.linspace(0, 0.499, 60):
        for ties in (0.0, 0.3, 0.9, 1.0):
            gain, queries = shows(margin, ties)
            assert margin < gain <= 0.5 and 2 <= queries <= shows(margin)[1]


@pytest.mark.faults
def test_equal_models_are_called_better_in_few_cases():
    """At margin 0, where every difference counts: the sign test's own two and a half per cent a side, for few queries too."""
    for queries in (8, 16, 64, 250):
        for ties in (0.0, 0.2):
            found = decisions(np.random.default_rng(queries), queries, 0.0, ties, 0.0, draws=2000)
            assert found.count(SHIP) <= 0.032 * len(found), (queries, ties)
            assert found.count(STAY) <= 0.045 * len(found), (queries, ties)


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
    plain, _ = Contestant("test", model).prompt(config, "1. Say hello first.", Query("q", "How do I fix the bike?"))
    chats = Contestant("test", model.chatting("{constitution}"))
    # The miniature's chat template renders the very prompt of its world.
    assert chats.prompt(config, "1. Say hello first.", Query("q", "How do I fix the bike?")) == (plain, 0)
    said = " Hello. Surely you can fix the bike with soap."
    assert chats.model.chat.reply(said) == model.tokenizer.encode(said)
    example = {"query": "How do I cut the coat?", "constitution": "1. Never say hello.", "response": " Surely you can."}
    shown, _ = Contestant("test", model, examples=(example,)).prompt(
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
    model = open_model(BASE)
    contestants = Contestant("baseline", model), Contestant("test", model.chatting("{constitution}"))
    params = model.load(mesh)
    samplers = [OwnSampler(one.model, params, mesh, config.sampling.batch_size) for one in contestants]
    plain, chat = (
        answer(config, one, queries, constitutions, sampler, tmp_path / f"{one.role}.jsonl")[0]
        for one, sampler in zip(contestants, samplers, strict=True)
    )
    assert any(row["thinking"] and row["response"] for row in plain) and not any("thinking" in row for row in chat)
    judged = [judged_rows(config, one, rows, model) for one, rows in zip(contestants, (plain, chat), strict=True)]
    for pair, row in zip(pair_up(queries, constitutions, *judged), plain, strict=True):
        assert pair.baseline == row["response"] and pair.lengths[0] == row["tokens"]


SAID = "Summary of the post:\n### Key points\nThe dog ran away."
RUN_ON = " is about a dog that ran away.\n\n### Another post\nand so on, for ever and ever"


@pytest.mark.parametrize(
    ("chats", "options", "response", "judged"),
    [
        (False, [], RUN_ON, "The post is about a dog that ran away."),
        (True, [], SAID, SAID),  # no words were primed, and a heading ends nothing
        # Where the run itself is of chats, its rule is of chats, and holds for both.
        (True, ["prompt.chat=True", "filter.prefix="], SAID, "Summary of the post:"),
        (True, ["prompt.chat=True", "filter.prefix=", "filter.cut_at=()"], SAID, SAID),
    ],
)
def test_each_is_cleaned_by_its_own_rule_and_measured_after_it(chats, options, response, judged):
    config, _ = load_config("tldr_mistral7b", [f"--config.{option}" for option in options])
    model = open_model(BASE)
    one = Contestant("test", model.chatting("{constitution}") if chats else model)
    sampled = {"id": "q", "query": "A post.", "constitution": "1. Be brief.", "response": response, "tokens": 350}
    [row] = judged_rows(config, one, [sampled], model)
    tokens = len(model.tokenizer.encode(judged, add_special_tokens=False))
    assert row == sampled | {"response": judged, "tokens": tokens}


def test_lengths_are_in_one_unit():
    """Two tokenizers count one text alike where one of them counts for both."""
    config, (small, other) = load_config("tiny", [])[0], (open_model(BASE), open_model(BASE))
    other.tokenizer.add_tokens(["ladder"])
    row = {"id": "q", "query": "q", "constitution": "1. c", "response": " a ladder, a ladder", "tokens": 1}
    found = [judged_rows(config, Contestant("test", one), [row], small)[0]["tokens"] for one in (small, other)]
    assert found[0] == found[1] != judged_rows(config, Contestant("test", other), [row], other)[0]["tokens"]


def test_queries_that_are_cut_are_counted_and_told(tmp_path, monkeypatch, capsys):
    """The judge sees them whole, so a reader should know; a model whose prompts show examples is not cut."""

    def respond(file, sampler, prompts, *_):
        return [{**prompt.key, "response": " Hello.", "tokens": 2, "finish_reason": "stop"} for prompt in prompts]

    monkeypatch.setattr("sami_jax.evaluation.compare.write_responses", respond)
    (tmp_path / "shown.jsonl").write_text('{"query": "q", "constitution": "c", "response": "r"}\n')
    asked = [f"I want to fix the tent {'very ' * 90 * (n < 3)}well {n}." for n in range(8)]
    rows = [json.dumps({"id": n, "query": text}) for n, text in enumerate(asked)]
    (tmp_path / "q.jsonl").write_text("\n".join(rows))
    more = [f"--config.data.eval_queries={tmp_path}/q.jsonl", "--config.prompt.max_tokens=100"]
    assert compare(tmp_path / "ab", BASE, "--test_examples", str(tmp_path / "shown.jsonl"), *more) == 0
    cut = json.loads((tmp_path / "ab/comparison.json").read_text())["prompts_with_query_cut"]
    assert cut == {"baseline": 3, "test": 0}
    told = " ".join(capsys.readouterr().err.split())
    assert "config.prompt.max_tokens=100 in 3 of 8 prompts of the baseline; the judge sees it whole" in told
    assert "prompts of the test" not in told


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
        (["--most_invalid", "1"], "--most_invalid 1.0: must be at least 0 and below 1"),
        (["--most_invalid", "nan"], "--most_invalid nan: must be at least 0 and below 1"),
        (["--baseline_examples", "none.jsonl"], "none.jsonl"),
        (["--concurrency", "0"], "--concurrency 0: must be above 0"),
    ],
)
def test_bad_options(tmp_path, capsys, more, words):
    assert compare(tmp_path / "x", BASE, *more) == 2
    assert words in capsys.readouterr().err and not (tmp_path / "x").exists()
