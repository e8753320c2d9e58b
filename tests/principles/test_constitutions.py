"""Composing: each rule's promise, the seed's determinism, orders and wordings."""

import pytest

from sami_jax.principles.constitutions import (
    RULES,
    compose,
    numbered,
    opposite,
    reordered,
    split,
    stated,
    statements,
    text,
)
from sami_jax.principles.principle import Principle

PRINCIPLES = [
    Principle(name, ((f"Be {name}.", f"Never be {name}."), (f"Stay {name}.", f"Do not stay {name}.")))
    for name in "abcde"
]


def composed(rule, count=2, chosen=3, seed="s", queries=200):
    return [compose(PRINCIPLES, rule, chosen, count, seed, index) for index in range(queries)]


@pytest.mark.parametrize("rule", RULES)
def test_pure_in_seed_and_index(rule):
    assert composed(rule) == composed(rule)
    assert composed(rule) != composed(rule, seed="t")
    assert compose(PRINCIPLES, rule, 3, 2, "s", 117) == composed(rule)[117]


@pytest.mark.parametrize("rule", RULES)
def test_all_constitutions_of_a_query_are_about_the_same_wordings(rule):
    for constitutions in composed(rule, count=4):
        assert len(constitutions) == 4
        assert len({tuple(statement.id for statement in constitution) for constitution in constitutions}) == 1
        for constitution in constitutions:
            for statement in constitution:
                wordings = next(p for p in PRINCIPLES if p.id == statement.id).phrasings
                assert statement.text in [pair[0 if statement.positive else 1] for pair in wordings]


def test_complement_flips_every_side():
    seen = set()
    for first, second in composed("complement"):
        assert all(a.positive != b.positive for a, b in zip(first, second, strict=True))
        seen.add(tuple(statement.positive for statement in first))
    assert len(seen) == 8
    for constitutions in composed("complement", count=8):  # 2^3 = 8 constitutions, all of them
        assert len({tuple(s.positive for s in constitution) for constitution in constitutions}) == 8


def test_positive_vs_rest_puts_all_principles_first():
    for constitutions in composed("positive_vs_rest", count=8):
        assert all(stated(constitutions[0]).values())
        assert all(not all(stated(other).values()) for other in constitutions[1:])
        assert len({tuple(stated(c).values()) for c in constitutions}) == 8


def test_iid_sides_are_fair_and_independent():
    same = sum(a[0].positive == b[0].positive for a, b in composed("iid", queries=2000))
    assert 900 < same < 1100


def test_every_principle_and_wording_is_drawn():
    drawn = {(s.id, s.text.split()[0]) for constitutions in composed("iid") for c in constitutions for s in c}
    assert {id for id, _ in drawn} == set("abcde") and {word for _, word in drawn} == {"Be", "Stay", "Never", "Do"}


def test_reordered_moves_lines_alike_and_loses_none():
    moved = 0
    for index, constitutions in enumerate(composed("complement")):
        shuffled = reordered(constitutions, "s", index)
        assert [sorted(map(str, c)) for c in shuffled] == [sorted(map(str, c)) for c in constitutions]
        assert [s.id for s in shuffled[0]] == [s.id for s in shuffled[1]]
        moved += shuffled != constitutions
    assert moved > 120  # of 200, 5 in 6 orders differ


def test_text_is_a_numbered_list():
    [constitution, _] = compose(PRINCIPLES, "complement", 2, 2, "s", 0)
    assert text(constitution).split("\n") == [f"1. {constitution[0].text}", f"2. {constitution[1].text}"]


def test_opposite_takes_the_other_side_in_the_same_wording():
    for constitutions in composed("iid"):
        other = opposite(constitutions[0], PRINCIPLES)
        assert opposite(other, PRINCIPLES) == constitutions[0]
        for one, turned in zip(constitutions[0], other, strict=True):
            assert one.id == turned.id and one.positive != turned.positive
            [pair] = [pair for p in PRINCIPLES for pair in p.phrasings if one.text in pair]
            assert turned.text in pair and turned.text != one.text


def test_split_keeps_the_named_and_draws_the_rest_by_the_seed():
    splits = {tuple(p.id for p in split(PRINCIPLES, ["b"], 2, seed)[1]) for seed in range(50)}
    assert all("b" in held_out and len(held_out) == 3 for held_out in splits)
    assert len(splits) == 6  # every pair of the four others
    assert split(PRINCIPLES, ["b"], 2, 7) == split(PRINCIPLES, ["b"], 2, 7)
    assert split(PRINCIPLES, [], 0, 0) == (PRINCIPLES, [])


@pytest.mark.parametrize(
    "lines", [["Be calm."], ["Be calm.", "Be brief."], ["Count:\n1. one\n3. three", "2. Be odd."], ["Rule."] * 12, [""]]
)
def test_a_text_is_taken_apart_into_its_statements(lines):
    assert statements(numbered(lines)) == lines


def test_a_text_that_is_no_list_is_one_statement():
    for free in ("", "Be calm.", "Be calm.\n2. Be brief."):
        assert statements(free) == [free]
