"""Packed rows, place by place, on a row worked by hand."""

import jax.numpy as jnp

from sami_jax.data.packing import PackedRows, Sizes

# Prefix 10 11 12; responses 20 21, none, 40; two places of padding.
ROWS = PackedRows(
    tokens=jnp.array([[10, 11, 12, 20, 21, 40, 0, 0]]),
    prefix_lengths=jnp.array([3]),
    response_lengths=jnp.array([[2, 0, 1]]),
    sizes=Sizes(prefix=4, response=2, responses=5),
)


def test_owners_and_positions():
    owners = ROWS.owners()
    assert owners.tolist() == [[0, 0, 0, 1, 1, 3, -1, -1]]
    assert ROWS.positions(owners)[0, :6].tolist() == [0, 1, 2, 3, 4, 3]


def test_scored_tokens_and_where_they_are_predicted():
    scored = ROWS.scored()
    assert scored.owners.tolist() == [[1, 1, 3, -1, -1]]
    assert scored.targets[0, :3].tolist() == [20, 21, 40]
    assert scored.predictors[0, :3].tolist() == [2, 3, 2]


def test_a_full_row_scores_its_last_token_once():
    full = PackedRows(ROWS.tokens[:, :6], ROWS.prefix_lengths, ROWS.response_lengths, ROWS.sizes)
    assert full.scored().owners.tolist() == [[1, 1, 3, -1, -1]]


def test_one_response_alone():
    first, second, third = (ROWS.alone(jnp.array([j])) for j in range(3))
    assert first.tokens[0, :5].tolist() == [10, 11, 12, 20, 21] and first.response_lengths.tolist() == [[2]]
    assert second.response_lengths.tolist() == [[0]]
    assert third.tokens[0, :4].tolist() == [10, 11, 12, 40] and third.response_lengths.tolist() == [[1]]
    assert third.scored().owners.tolist() == [[1, -1]]
