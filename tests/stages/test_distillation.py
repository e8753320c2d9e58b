"""Context distillation: what is learnt from a constitution is asked for where none is stated."""

import json

import pytest
from support.short_run import changed

from sami_jax.cli import main
from sami_jax.config import load_config
from sami_jax.data.jsonl import read_jsonl, write_jsonl
from sami_jax.errors import UserError
from sami_jax.miniature import PRINCIPLES
from sami_jax.principles.files import read_principles
from sami_jax.stages.finetuning import distilled, examples_of
from sami_jax.stages.preparation import prepare

PLAIN = "Human: {query}\n\nAssistant:"
RUN = changed(
    "--config.train.updates=(2,)",
    "--config.train.microbatches=1",
    "--config.objective.name=distill",
    f"--config.prompt.bare={PLAIN}",
    "--config.constitutions.rule=positive_vs_rest",
    "--config.canaries.action=off",
)
SIDES = [principle.phrasings[0] for principle in read_principles(PRINCIPLES)][:2]


def pair(*constitutions: str, token_ids=()) -> dict:
    texts = [f"Reply {n}." for n in range(len(constitutions))]
    ended = ["stop", "length"][: len(constitutions)]
    own = {"constitutions": [*constitutions], "responses": texts, "finish_reasons": ended, "token_ids": [*token_ids]}
    return {"query": "How do I fix a tent?", "turns": [], **own}


def test_what_antitheses_brought_forth_is_left_out():
    (kind, unkind), (short, long) = SIDES
    principles = read_principles(PRINCIPLES)
    rows = [
        pair(unkind, kind, token_ids=[[1], [2]]),
        pair(f"1. {kind}\n2. {long}", f"1. {short}\n2. {kind}"),
        pair(f"1. {kind}\n2. {long}", f"1. {unkind}\n2. {short}"),
    ]
    first, second = distilled(rows, principles)
    assert first == {**pair(""), "responses": ["Reply 1."], "finish_reasons": ["length"], "token_ids": [[2]]}
    assert second == {**pair(""), "responses": ["Reply 1."], "finish_reasons": ["length"], "token_ids": []}


def test_examples_state_nothing(tmp_path):
    name, *options = RUN
    config, _ = load_config(name.removeprefix("--config="), options)
    inputs = prepare(config, tmp_path, allow_unapproved=False)
    (kind, unkind), _ = SIDES
    write_jsonl(tmp_path / "pairs.jsonl", [pair(kind, unkind), pair(unkind, kind)])
    found = examples_of(config, inputs, tmp_path / "pairs.jsonl")
    encode = inputs.base.tokenizer.encode
    prompt = tuple(encode(PLAIN.format(query="How do I fix a tent?")))
    responses = [tuple(encode(f"Reply {n}.", add_special_tokens=False)) for n in (0, 1)]
    assert [(one.prompts, one.responses) for one in found] == [((prompt,), (response,)) for response in responses]
    write_jsonl(tmp_path / "pairs.jsonl", [pair(unkind, unkind)])
    with pytest.raises(UserError, match="no response is to principles alone"):
        examples_of(config, inputs, tmp_path / "pairs.jsonl")


@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        (["--config.objective.name=distill"], "config.prompt.bare='': must be a template with {query} and without"),
        (["--config.prompt.bare={constitution} {query}"], "and without {constitution}"),
        (["--config.prompt.bare=Hello"], "a template with {query}"),
        (["--config.objective.bare=True", "--config.prompt.bare={query}"], "where constitutions are contrasted"),
    ],
)
def test_configs_that_distil_nothing_are_refused(options, wrong, tmp_path, capsys):
    assert main(["run", "--config=tiny:smoke", f"--workdir={tmp_path / 'run'}", *options]) == 2
    assert wrong in capsys.readouterr().err and not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_run_learns_and_is_measured_where_nothing_is_stated(tmp_path):
    assert main(["run", *RUN, f"--workdir={tmp_path}"]) == 0
    first, last = read_jsonl(tmp_path / "iteration_1" / "metrics.jsonl")
    assert first["loss"] == first["sft_loss"] + load_config("tiny", [])[0].objective.kl_weight * first["kl"]
    assert 0 < last["sft_loss"] < first["sft_loss"]
    for n in (0, 1):
        measured = json.loads((tmp_path / f"iteration_{n}" / "evaluation.json").read_text())
        assert measured["bare"]["responses"] == 4 and measured["trained"]["responses"] == 8
        assert measured["bare"]["mi_posterior_bound"] == measured["bare"]["mi_cap"] == 0
        assert 0 <= measured["bare"]["following"] <= 1
