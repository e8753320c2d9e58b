"""Evaluation sets hold out what they say, and are the same for every model."""

import pytest

from sami_jax.config_file import load_config
from sami_jax.data.queries import read_queries
from sami_jax.evaluation.measure import evaluation_sets
from sami_jax.miniature import PRINCIPLES, QUERIES
from sami_jax.principles.files import read_principles


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


def test_queries_are_the_held_out_ones(sets):
    for one in sets.values():
        assert [q.id for q in one.queries] == [f"held_out-{n}" for n in range(128)]
