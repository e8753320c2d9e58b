"""Diversity by hand."""

import math

import pytest

from sami_jax.evaluation.diversity import distinct, entropy


def test_by_hand():
    replies = [[1, 2, 3], [1, 2, 4], [1]]  # runs of two: 12, 23, 12, 24
    assert distinct(replies) == 3 / 4
    assert entropy(replies) == pytest.approx(0.5 * math.log(2) + 2 * 0.25 * math.log(4))
    assert distinct(replies, 3) == 1.0 and entropy(replies, 3) == pytest.approx(math.log(2))
    assert distinct(replies, 1) == 4 / 7


def test_one_reply_again_and_again_adds_nothing():
    once = [["a", "b", "c", "d"]]
    assert distinct(once) == 1.0 and distinct(once * 8) == 1 / 8
    assert entropy(once * 8) == pytest.approx(entropy(once)) == pytest.approx(math.log(3))


def test_nothing_is_not_diverse():
    assert distinct([]) == entropy([]) == distinct([[1], []]) == entropy([[1], []]) == 0.0
