"""Analytic costs against counts by hand."""

import dataclasses

import pytest
from support.small_model import SMALL

from sami_jax.models.published import SHAPES
from sami_jax.planning import costs
from sami_jax.planning.costs import Texts


def test_weights_by_hand():
    weights = costs.count_weights(SMALL)
    attention = 32 * 4 * 8 * 2 + 32 * 2 * 8 * 2
    assert weights.blocks == 2 * (attention + 3 * 32 * 64)
    assert weights.unembedding == 32 * 96
    assert weights.total == weights.blocks + 2 * weights.unembedding + 5 * 32
    assert costs.count_weights(dataclasses.replace(SMALL, tie_embeddings=True)).total == weights.total - 32 * 96


def test_of_a_mixture_the_chosen_experts_count():
    dense, mixture = (costs.count_weights(SHAPES[name]) for name in ("mistral-7b", "mixtral-8x7b"))
    # Two of eight SwiGLUs and the router (Mixtral's paper: 13 of 47 billion weights are active).
    assert mixture.blocks - dense.blocks == 32 * (3 * 4096 * 14336 + 8 * 4096)
    assert (mixture.blocks + 2 * mixture.unembedding) / 1e9 == pytest.approx(12.9, abs=0.1)
    assert mixture.total / 1e9 == pytest.approx(46.7, abs=0.1)


def test_large_states_are_saved_seldom():
    """An update of 100 PFLOP takes 100 s, of which 5 are for saving: 2.5 GB."""
    every = costs.updates_between_checkpoints
    assert every(1e9, 2**30, 16) == 1  # in a moment
    assert every(100e15, 2 * 10**9, 16) == 1 and every(100e15, 7 * 10**9, 16) == 3
    assert every(100e15, 847 * 10**9, 6) == 3 and every(100e15, 847 * 10**9, 1) == 1  # in its midst, and at its end


def test_an_update_by_hand():
    texts = Texts(prefix=10, response=4, count=2)
    weights = costs.count_weights(SMALL)
    rows = 3 * 2
    matmuls = 2 * (rows * (10 + 8) * weights.blocks + rows * 8 * weights.unembedding)
    pairs = rows * (55 + 2 * (4 * 10 + 10))  # a response sees the prefix and itself, not the other
    attention = 4 * pairs * 4 * 8 * 2  # scores and their use, each 2 FLOPs a head's dimension, 4 heads of 8, 2 layers
    assert costs.update_flops(SMALL, texts, 3) == 3 * (matmuls + attention)
    assert costs.update_flops(SMALL, texts, 3, recomputed=True) == 4 * (matmuls + attention)
    # The base reads the same rows once, or of each row one response alone.
    assert costs.update_flops(SMALL, texts, 3, base_responses=2) == 4 * (matmuls + attention)
    alone = 2 * rows * ((10 + 4) * weights.blocks + 4 * weights.unembedding)
    alone += 4 * rows * (55 + 4 * 10 + 10) * 4 * 8 * 2
    assert costs.update_flops(SMALL, texts, 3, base_responses=1) == 3 * (matmuls + attention) + alone


def test_a_window_bounds_the_cache():
    assert costs.cache_bytes(SMALL, 100) == costs.cache_bytes(SMALL, 7) == 2 * 2 * 2 * 2 * 8 * 7
    assert costs.fsdp_bytes(SMALL, 8) == 6 * costs.count_weights(SMALL).total * 7 / 8
