"""Evaluation sets hold out what they say, and are the same for every model."""

import dataclasses

import numpy as np
import pytest

from sami_jax.config import load_config
from sami_jax.data.jsonl import read_jsonl, write_jsonl
from sami_jax.data.queries import Query, read_queries
from sami_jax.evaluation.judges import ChecksJudge, MiniatureJudge
from sami_jax.evaluation.measure import EvaluationSet, evaluation_sets, judged_replies, measure
from sami_jax.evaluation.signs import Signs
from sami_jax.miniature import BASE, PRINCIPLES, QUERIES
from sami_jax.models.pretrained import open_model
from sami_jax.principles import constitutions as composing
from sami_jax.principles.checks.check import Checks
from sami_jax.principles.files import read_principles
from sami_jax.principles.principle import Principle


@pytest.fixture(scope="module")
def sets():
    config, _ = load_config("tiny", [])
    principles = read_principles(PRINCIPLES)
    made = evaluation_sets(config, principles, read_queries(QUERIES / "held_out.jsonl"))
    assert made == evaluation_sets(config, principles, read_queries(QUERIES / "held_out.jsonl"))
    return {one.name: one for one in made}


def statements(one) -> list:
    return [
        statement for constitutions in one.constitutions for constitution in constitutions for statement in constitution
    ]


def test_held_out_principles_appear_only_where_they_should(sets):
    held_out = {"enthusiasm", "friendship", "greeting"}
    assert {s.id for s in statements(sets["held_out_principles"])} == held_out
    for name in ("trained", "held_out_phrasings"):
        assert {s.id for s in statements(sets[name])} == {p.id for p in read_principles(PRINCIPLES)} - held_out


def test_held_out_phrasings_appear_only_where_they_should(sets):
    last = {p.phrasings[-1][side] for p in read_principles(PRINCIPLES) for side in (0, 1)}
    earlier = {pair[side] for p in read_principles(PRINCIPLES) for pair in p.phrasings[:-1] for side in (0, 1)}
    assert {s.text for s in statements(sets["held_out_phrasings"])} <= last
    assert {s.text for s in statements(sets["trained"])} <= earlier


def test_without_a_constitution_in_the_prompt_principles_alone_are_looked_for(sets):
    config, _ = load_config("tiny", ["--config.prompt.bare=Human: {query}"])
    principles = read_principles(PRINCIPLES)
    *others, bare = evaluation_sets(config, principles, read_queries(QUERIES / "held_out.jsonl"))
    assert {one.name: one for one in others} == sets and bare.name == "bare" and bare.bare
    assert all(s.positive for s in statements(bare)) and len(bare.constitutions[0]) == 1
    assert {s.id for s in statements(bare)} == {s.id for s in statements(sets["trained"])}
    assert bare.stated(bare.constitutions[0][0]) == "" != sets["trained"].stated(bare.constitutions[0][0])


def test_queries_are_the_held_out_ones(sets):
    for one in sets.values():
        assert [q.id for q in one.queries] == [f"held_out-{n}" for n in range(128)]


def first_two(one):
    return dataclasses.replace(one, queries=one.queries[:2], constitutions=one.constitutions[:2])


def test_thinking_is_neither_counted_nor_scored(sets, mesh, tmp_path):
    """With all but a reply's last word for thinking, a model is measured as one that replied with that word."""
    config, _ = load_config("tiny", ["--config.filter.keep_after= "])
    model, chosen = open_model(BASE), first_two(sets["trained"])
    params = model.load(mesh)
    found = measure(config, model, params, chosen, None, mesh, tmp_path / "apart", None)
    rows = read_jsonl(tmp_path / "apart" / "trained.jsonl")
    assert all(row["thinking"].strip() and 0 < row["tokens"] < row["sampled_tokens"] for row in rows)
    write_jsonl(tmp_path / "alone" / "trained.jsonl", [{**row, "thinking": ""} for row in rows])
    plain, _ = load_config("tiny", [])
    alone = measure(plain, model, params, chosen, None, mesh, tmp_path / "alone", None)
    assert found == {**alone, "unanswered": 0}


def test_queries_that_are_cut_are_counted(sets, mesh, tmp_path):
    config, _ = load_config("tiny", ["--config.prompt.max_tokens=70"])
    model, chosen = open_model(BASE), first_two(sets["trained"])
    query = dataclasses.replace(chosen.queries[1], text="Is that clear? " * 40)
    chosen = dataclasses.replace(chosen, queries=[chosen.queries[0], query])
    said = {"response": " Yes.", "tokens": 2, "finish_reason": "stop"}
    asked = zip(chosen.queries, chosen.constitutions, strict=True)
    rows = [{"id": q.id, **q.row, "constitution": composing.text(c), **said} for q, both in asked for c in both]
    write_jsonl(tmp_path / "trained.jsonl", rows)
    found = measure(config, model, model.load(mesh), chosen, None, mesh, tmp_path, None)
    assert found["prompts_with_query_cut"] == found["training_prompts_with_query_cut"] == 2


def test_a_model_that_only_thinks_tells_nothing(sets, mesh, tmp_path):
    config, _ = load_config("tiny", ["--config.filter.keep_after=Constitution"])
    model = open_model(BASE)
    found = measure(config, model, model.load(mesh), first_two(sets["trained"]), None, mesh, tmp_path, None)
    assert found["unanswered"] == 1 and found["mean_tokens"] == 0
    assert found["mi_posterior_bound"] == found["mi_lower_bound"] == pytest.approx(0, abs=1e-6)
    # Nor is it whole, in the canaries' eyes.
    rows = read_jsonl(tmp_path / "trained.jsonl")
    assert Signs.of(1, found, rows, np.zeros((2, 2)), None, model.tokenizer, ()).means["well_formed"] == 0


def test_each_principle_is_measured_by_itself(sets, mesh, tmp_path, monkeypatch):
    """Greetings always, nothing else ever: of three held-out principles one is followed where it is asked for."""
    held_out = sets["held_out_principles"]
    chosen = dataclasses.replace(held_out, queries=held_out.queries[:4], constitutions=held_out.constitutions[:4])
    said = {"finish_reason": "stop", "constitution": ""}
    given = [{"response": " Hello. Surely you can clean the chair with soap.", "tokens": 9, **said}] * 8
    base = [{"response": " Surely you can clean the chair with soap.", "tokens": 8, **said}] * 8
    monkeypatch.setattr("sami_jax.evaluation.measure.answered", lambda *_: (given, 0))
    monkeypatch.setattr("sami_jax.evaluation.measure._information", lambda *_: {})
    write_jsonl(tmp_path / "held_out_principles.jsonl", base)
    config, _ = load_config("tiny", [])
    found = measure(config, open_model(BASE), {}, chosen, MiniatureJudge(), mesh, tmp_path / "m", tmp_path)
    one = found["principles"]
    assert set(one) == {"enthusiasm", "friendship", "greeting"}
    stated = [s for constitutions in chosen.constitutions for c in constitutions for s in c if s.id == "greeting"]
    asked = np.mean([s.positive for s in stated])
    assert one["greeting"]["responses"] == len(stated) and one["greeting"]["following"] == pytest.approx(asked)
    assert one["greeting"]["win_rate"] == pytest.approx(asked)  # wins where it was asked for, losses where not
    assert one["enthusiasm"]["win_rate"] == one["friendship"]["win_rate"] == 0.5
    # All principles are stated in each constitution, so that the set's figure is their mean.
    assert found["following"] == pytest.approx(np.mean([row["following"] for row in one.values()]))
    low, high = one["enthusiasm"]["win_rate_interval"]
    assert low < 0.5 < high


def judged_by(judge, sets, tmp_path, monkeypatch, given, queries=4):
    """What `measure` finds of responses that are given."""
    chosen = dataclasses.replace(
        sets["trained"],
        queries=sets["trained"].queries[:queries],
        constitutions=sets["trained"].constitutions[:queries],
    )
    asked = [c for constitutions in chosen.constitutions for c in constitutions]
    said = [
        {"response": given(c), "tokens": 9, "finish_reason": "stop", "constitution": composing.text(c)} for c in asked
    ]
    monkeypatch.setattr("sami_jax.evaluation.measure.answered", lambda *_: (said, 0))
    monkeypatch.setattr("sami_jax.evaluation.measure._information", lambda *_: {})
    config, _ = load_config("tiny", [])
    return measure(config, open_model(BASE), {}, chosen, judge, None, tmp_path, None)  # pyright: ignore[reportArgumentType]


class Generous:
    """Finds everything followed, but for what it is told not to decide, and counts what it is asked."""

    def __init__(self, most=None, undecided=""):
        self.most, self.undecided, self.asked = most, undecided, []

    def knows(self, id):
        return True

    def followed(self, replies):
        self.asked += replies
        return [{s.id: True for s in r.constitution} if r.response != self.undecided else {} for r in replies]

    def well_formed(self, reply):
        return True


def test_a_response_that_repeats_its_constitution_follows_nothing(sets, tmp_path, monkeypatch):
    judge = Generous()
    found = judged_by(judge, sets, tmp_path, monkeypatch, lambda c: composing.text(c) if c[0].positive else "Glue.")
    verdicts = read_jsonl(tmp_path / "trained.verdicts.jsonl")
    echoed = [not any(row["followed"].values()) for row in verdicts]
    assert 0 < sum(echoed) < len(echoed) == 8 and len(judge.asked) == 8 - sum(echoed)
    assert found["echo"] == np.mean(echoed) and found["following"] == found["well_formed"] == 1 - found["echo"]


def test_a_costly_judge_is_asked_about_some_queries_and_the_same_ones_each_time(sets, tmp_path, monkeypatch):
    first, second = Generous(most=4), Generous(most=4)
    found = judged_by(first, sets, tmp_path, monkeypatch, lambda _: "Glue.", queries=16)
    judged_by(second, sets, tmp_path, monkeypatch, lambda _: "Soap.", queries=16)
    assert found["judged"] == len(first.asked) == 4 and len({reply.query for reply in first.asked}) == 2
    assert [reply.query for reply in first.asked] == [reply.query for reply in second.asked]
    rows = read_jsonl(tmp_path / "trained.verdicts.jsonl")
    assert sum(bool(row["followed"]) for row in rows) == 4 and len(rows) == 32


def test_what_has_no_verdict_counts_for_nothing(sets, tmp_path, monkeypatch):
    judge = Generous(undecided="Glue.")
    found = judged_by(judge, sets, tmp_path, monkeypatch, lambda c: "Glue." if c[0].positive else "Soap.")
    assert 0 < found["judged"] < 8 and found["following"] == 1.0
    found = judged_by(judge, sets, tmp_path, monkeypatch, lambda _: "Glue.")
    assert found["judged"] == 0 and "following" not in found


def test_what_checks_do_not_read_is_said_and_not_judged(capsys):
    sides = {"principle": {"words": {"at_most": 3}}, "antithesis": {"words": {"at_least": 4}}}
    brief = Principle("brief", (("Be brief.", "Be long."),), check=Checks.parse(sides, "x"))
    stated = tuple(
        (composing.Statement("brief", side, words),) for side, words in ((True, "Be brief."), (False, "Be long."))
    )
    one = EvaluationSet("trained", [Query("1", "How?")], [stated])
    rows = [{"response": "Like this.", "finish_reason": "stop"}, {"response": "a " * 40_000, "finish_reason": "stop"}]
    config, _ = load_config("tiny", [])
    verdicts, _ = judged_replies(config, one, rows, ChecksJudge([brief]))
    assert verdicts == [{"brief": True}, {}]
    assert "1 of 2 responses are longer than the judge reads and are not judged" in capsys.readouterr().err
