"""Prompts hold the whole constitution and as much of the query as fits; packing loses no token."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sami_jax.data.batches import ContrastExample, pack, shape_for
from sami_jax.data.templates import check_template, encode_prompt, render
from sami_jax.errors import UserError
from sami_jax.principles import constitutions as composing
from sami_jax.principles.principle import Principle

TEXT = st.text(st.characters(codec="utf-8"), max_size=60)


class Bytes:
    """A tokenizer whose tokens are bytes."""

    @staticmethod
    def encode(text: str) -> list[int]:
        return list(text.encode())


@given(TEXT, TEXT, TEXT, TEXT, st.integers(1, 200))
def test_a_prompt_fits_and_keeps_its_constitution(before, between, constitution, query, most):
    template = before.replace("{", "") + "{constitution}" + between.replace("{", "") + "{query}"
    check_template(template, "here")
    least = len(Bytes.encode(render(template, constitution, "")))
    if least > most:
        with pytest.raises(UserError, match=f"alone take {least} tokens of {most}"):
            encode_prompt(Bytes, template, constitution, query, most)
        return
    ids, lost = encode_prompt(Bytes, template, constitution, query, most)
    whole = render(template, constitution, query)
    text = bytes(ids).decode()
    assert len(ids) <= most and text == whole[: len(text)] and constitution in text
    assert lost == len(whole.encode()) - len(ids) and (lost == 0) == (text == whole)
    if lost:  # not a character less than fits
        assert len(whole[: len(text) + 1].encode()) > most


@given(TEXT, TEXT)
def test_braces_in_texts_mean_nothing(constitution, query):
    assert render("{constitution}|{query}", constitution, query) == f"{constitution}|{query}"
    fields = render("{constitution}|{query}|{constitution}", "{query}", "{constitution}")
    assert fields == "{query}|{constitution}|{query}"


IDS = st.lists(st.integers(1, 50), min_size=1, max_size=7).map(tuple)
EXAMPLES = st.integers(1, 4).flatmap(
    lambda c: st.lists(st.builds(ContrastExample, st.tuples(*[IDS] * c), st.tuples(*[IDS] * c)), min_size=1, max_size=4)
)


@given(EXAMPLES, st.sampled_from([1, 4, 16]))
def test_packing_loses_nothing(examples, bucket):
    batch = pack(examples, shape_for(examples, bucket))
    for b, example in enumerate(examples):
        lengths = np.asarray(batch.response_lengths[b])
        for c, prompt in enumerate(example.prompts):
            row, start = batch.tokens[b, c].tolist(), int(batch.prefix_lengths[b, c])
            assert tuple(row[:start]) == prompt
            ends = start + np.cumsum(lengths)
            assert [tuple(row[end - n : end]) for end, n in zip(ends, lengths, strict=True)] == list(example.responses)
            assert not any(row[ends[-1] :])


PRINCIPLES = st.integers(1, 4).map(
    lambda n: [
        Principle(f"p{i}", ((f"Do {i}.", f"Never do {i}."), (f"Please do {i}.", f"Avoid {i}."))) for i in range(n)
    ]
)


@given(PRINCIPLES, st.sampled_from(sorted(composing.RULES)), st.integers(1, 4), st.integers(0, 99), st.data())
def test_constitutions_differ_in_sides_alone(principles, rule, half, index, data):
    chosen, count = data.draw(st.integers(1, len(principles))), 2 * half
    made = composing.compose(principles, rule, chosen, count, "seed", index)
    assert made == composing.compose(principles, rule, chosen, count, "seed", index) and len(made) == count
    assert len({tuple(statement.id for statement in one) for one in made}) == 1
    for one in made:
        assert composing.read(composing.text(one), principles) == one
        assert composing.opposite(composing.opposite(one, principles), principles) == one
    if rule == "positive_vs_rest":
        assert all(composing.stated(made[0]).values()) and not any(
            all(composing.stated(one).values()) for one in made[1:]
        )
    if rule == "complement":
        for one, other in zip(made[::2], made[1::2], strict=True):
            assert composing.opposite(one, principles) == other
    again = composing.reordered(made, "seed", index)
    assert [composing.stated(one) for one in again] == [composing.stated(one) for one in made]


@given(st.lists(TEXT.filter(lambda text: "\n" not in text), min_size=1, max_size=5))
def test_numbered_lists_are_read_back(texts):
    assert composing.statements(composing.numbered(texts)) == texts
