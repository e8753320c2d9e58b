"""Canaries: each rule fires on its own sign and on nothing else; a collapse in a real run is stopped with the last good model kept."""

import json
from pathlib import Path

import pytest

from sami_jax.config import defaults, load_config
from sami_jax.data.queries import Query
from sami_jax.evaluation.canaries import canary_set, fired, repetition, signs
from sami_jax.principles.principle import Principle

BASE = {"well_formed": 0.97, "mean_tokens": 20.0, "repetition": 0.02, "refusal": 0.0, "mi_share": 0.1, "following": 0.6}
GOOD = {**BASE, "mi_share": 0.8, "following": 0.9}


@pytest.mark.parametrize(
    ("now", "rules"),
    [
        ({}, []),
        ({"well_formed": 0.83}, []),
        ({"well_formed": 0.8}, ["well_formed: 80% of replies are whole, 97% in the base"]),
        ({"mean_tokens": 51.0}, ["length: replies have 51.0 tokens, 20.0 in the base"]),
        ({"mean_tokens": 7.9}, ["length: replies have 7.9 tokens, 20.0 in the base"]),
        ({"mean_tokens": 49.0}, []),
        ({"repetition": 0.3}, ["repetition: 30% of a reply repeats itself, 2% in the base"]),
        ({"refusal": 0.25}, ["refusal: 25% of replies refuse, 0% in the base"]),
        ({"mi_share": 0.99}, []),
        ({"following": 0.7}, []),
        ({"mi_share": 0.99, "following": 0.7}, ["saturation: the MI bound is at 99% of its cap while following fell from 90% to 70%"]),
        ({"well_formed": 0.1, "mean_tokens": 60.0}, ["well_formed: ", "length: "]),
    ],
)  # fmt: skip
def test_rules(now, rules):
    alarms = fired(defaults(), [BASE, GOOD], {**GOOD, **now})
    assert len(alarms) == len(rules) and all(a.startswith(r) for a, r in zip(alarms, rules, strict=True)), alarms


def test_without_a_judge_following_is_not_looked_at():
    base = {name: value for name, value in BASE.items() if name != "following"}
    assert fired(defaults(), [base], {**base, "mi_share": 1.0}) == []


def test_repetition_by_hand():
    assert repetition([1, 2, 3, 4, 1, 2, 3, 4]) == pytest.approx(1 / 5)  # runs 1234 2341 3412 4123 1234
    assert repetition([1, 2, 3]) == 0.0 and repetition([7] * 8) == pytest.approx(4 / 5)


class Words:
    def encode(self, text, add_special_tokens):
        return text.split()


def test_signs_of_responses():
    rows = [
        {"response": "I CANNOT do that", "finish_reason": "stop"},
        {"response": "a b c d a b c d", "finish_reason": "length"},
        {"response": " ", "finish_reason": "stop"},
        {"response": "申し訳ございません", "finish_reason": "stop"},
    ]
    metrics = {"mean_tokens": 5.0, "mi_posterior_bound": 0.34657}
    found = signs(metrics, rows, Words(), defaults().canaries.refusals)
    assert found == pytest.approx(
        {"well_formed": 0.5, "mean_tokens": 5.0, "repetition": 0.05, "refusal": 0.5, "mi_share": 0.5}, abs=1e-4
    )
    assert signs({**metrics, "well_formed": 1.0, "following": 0.5}, rows, Words(), ())["well_formed"] == 1.0


def test_the_set_is_fixed_and_states_principles_and_their_antitheses():
    config, _ = load_config("tiny", ["--config.canaries.queries=3"])
    principles = [Principle(name, ((f"Be {name}.", f"Never be {name}."),) * 2) for name in "abcd"]
    queries = [Query(str(i), f"q{i}") for i in range(9)]
    chosen = canary_set(config, principles, queries)
    assert chosen == canary_set(config, principles, queries) and len(chosen.queries) == 3
    for positive, negative in chosen.constitutions:
        assert [s.id for s in positive] == [s.id for s in negative] and len(positive) == 3
        assert all(s.text.startswith("Be ") for s in positive) and all(s.text.startswith("Never") for s in negative)


COLLAPSING = [
    "--config=tiny",
    "--config.optim.learning_rate=2e-2",
    "--config.train.updates=(6,6)",
    "--config.train.checkpoint_every=1",
    "--config.train.shapes=1",
    "--config.evaluation.queries=8",
]


@pytest.mark.slow
def test_a_collapsing_run_is_stopped_and_its_last_good_model_kept(tmp_path, commands):
    workdir = tmp_path / "run"
    status, told = commands.run("run", *COLLAPSING, "--workdir", str(workdir))
    assert status == 3, told
    stopped = json.loads((workdir / "iteration_1" / "stopped.json").read_text())
    assert 0 < stopped["last_good"] < stopped["update"] <= 6 and stopped["rules"]
    line = told.strip().splitlines()[-1]
    assert line.startswith(f"sami: iteration 1, update {stopped['update']}: stopped by canaries: ")
    assert stopped["rules"][0] in line and f"the model of update {stopped['last_good']} is kept" in line
    # Kept, measured, bound to its principles, and nothing after it.
    folder = workdir / "iteration_1"
    assert (folder / "model" / "model.safetensors").exists() and not (workdir / "iteration_2").exists()
    assert json.loads((folder / "evaluation.json").read_text())["trained"]["well_formed"] > 0.8
    assert "Stopped early by canaries" in (folder / "model" / "README.md").read_text()
    assert "iteration 1" in told
    rows = [json.loads(line) for line in (folder / "canaries.jsonl").read_text().splitlines()]
    assert [row["update"] for row in rows] == list(range(stopped["update"] + 1))
    status, told = commands.run("verify", str(workdir))
    assert status == 0 and "run stopped by canaries" in told
    # The same command says the same, and trains nothing.
    weights = (folder / "model" / "model.safetensors").stat().st_mtime_ns
    assert commands.run("run", *COLLAPSING, "--workdir", str(workdir))[0] == 3
    assert (folder / "model" / "model.safetensors").stat().st_mtime_ns == weights
    assert not Path(workdir / "iteration_2").exists()
