"""What holds of the objective for every S."""

import math

import hypothesis.extra.numpy as arrays
import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sami_jax.contrast import objective

MATRICES = st.integers(1, 5).flatmap(lambda c: arrays.arrays(np.float32, (c, c), elements=st.floats(-200, 0, width=32)))
loss = jax.jit(objective.contrastive_loss)
gradient = jax.jit(jax.grad(objective.contrastive_loss))
estimates = jax.jit(lambda s: objective.estimates(s, s))
terms = jax.jit(lambda s: (objective.contrast_over_responses(s), objective.contrast_over_constitutions(s)))


def in_float64(s: np.ndarray) -> float:
    s = s.astype(np.float64)
    rows, columns = (np.logaddexp.reduce(s, axis=axis) for axis in (1, 0))
    return 0.5 * float(np.mean(rows - np.diag(s)) + np.mean(columns - np.diag(s)))


@given(MATRICES)
def test_agrees_with_float64(s):
    assert float(loss(s)) == pytest.approx(in_float64(s), abs=1e-3, rel=1e-4)


@given(MATRICES)
def test_bounds(s):
    cap, found = math.log(len(s)), estimates(s)
    assert max(float(found["mi_lower_bound"]), float(found["mi_posterior_bound"])) <= cap + 1e-4
    assert all(0 <= float(found[name]) <= 1 for name in ("row_accuracy", "column_accuracy"))


@given(MATRICES, st.randoms(use_true_random=False))
def test_the_order_of_constitutions_does_not_matter(s, random):
    order = random.sample(range(len(s)), len(s))
    assert float(loss(s[np.ix_(order, order)])) == pytest.approx(float(loss(s)), abs=1e-3, rel=1e-4)


@given(MATRICES, st.integers(-64, 64))
def test_each_term_compares_within_its_own_line_alone(s, shift):
    shifts = shift * np.arange(1, len(s) + 1, dtype=np.float32)
    rows, columns = terms(s)
    assert float(terms(s + shifts[:, None])[0]) == pytest.approx(float(rows), abs=2e-3, rel=1e-3)
    assert float(terms(s + shifts[None, :])[1]) == pytest.approx(float(columns), abs=2e-3, rel=1e-3)


@given(MATRICES)
def test_gradients_are_finite_and_sum_to_nothing(s):
    found = np.asarray(gradient(s))
    assert np.isfinite(found).all()
    assert abs(found.sum()) < 1e-4  # raising all of S alike changes nothing
