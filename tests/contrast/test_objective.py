"""The objective against the paper's formula, written out with loops, and against matrices worked by hand."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sami_jax.contrast import objective


def paper_objective(s: np.ndarray) -> float:
    """O of section 3, term by term."""
    c = len(s)
    total = 0.0
    for j in range(c):
        total += s[j, j] - math.log(sum(math.exp(s[j, k]) for k in range(c)) / c)
        total += s[j, j] - math.log(sum(math.exp(s[k, j]) for k in range(c)) / c)
    return total / (2 * c)


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_loss_is_log_c_minus_the_papers_objective(count):
    s = np.random.default_rng(count).normal(size=(count, count)) * 3
    loss = float(objective.contrastive_loss(jnp.asarray(s)))
    assert loss == pytest.approx(math.log(count) - paper_objective(s), abs=1e-5)
    assert float(objective.mi_lower_bound(jnp.asarray(s))) == pytest.approx(paper_objective(s), abs=1e-5)


def test_two_constitutions_by_hand():
    # Rows: log(1 + e^-(s00 - s01)) = log(1 + 1/2) and log(1 + 1/4); columns: log(1 + 1/2) and log(1 + 1/4).
    s = jnp.log(jnp.array([[2.0, 1.0], [1.0, 4.0]]))
    expected = (math.log(1.5) + math.log(1.25)) / 2
    assert float(objective.contrast_over_responses(s)) == pytest.approx(expected, abs=1e-6)
    assert float(objective.contrast_over_constitutions(s)) == pytest.approx(expected, abs=1e-6)
    s = jnp.log(jnp.array([[2.0, 1.0], [3.0, 4.0]]))  # rows: 2/3 and 4/7; columns: 2/5 and 4/5
    assert float(objective.contrast_over_responses(s)) == pytest.approx(-math.log(2 / 3 * 4 / 7) / 2, abs=1e-6)
    assert float(objective.contrast_over_constitutions(s)) == pytest.approx(-math.log(2 / 5 * 4 / 5) / 2, abs=1e-6)
    assert float(objective.contrastive_loss(s, 1.0, 0.0)) == pytest.approx(-math.log(2 / 3 * 4 / 7) / 2, abs=1e-6)


def test_three_constitutions_by_hand():
    s = jnp.log(jnp.array([[2.0, 1.0, 1.0], [1.0, 2.0, 1.0], [1.0, 1.0, 2.0]]))  # every softmax gives 2/4
    assert float(objective.contrastive_loss(s)) == pytest.approx(math.log(2), abs=1e-6)


def test_one_constitution_has_nothing_to_contrast():
    assert float(objective.contrastive_loss(jnp.array([[-7.0]]))) == 0.0
    assert float(objective.mi_lower_bound(jnp.array([[-7.0]]))) == 0.0


@pytest.mark.parametrize("count", [2, 3, 5])
def test_perfect_matrix_reaches_log_c(count):
    s = jnp.where(jnp.eye(count, dtype=bool), 0.0, -1e4)
    assert float(objective.mi_lower_bound(s)) == pytest.approx(math.log(count), abs=1e-6)
    assert float(objective.row_accuracy(s)) == float(objective.column_accuracy(s)) == 1.0


def test_extreme_values_give_finite_loss_and_gradient():
    s = jnp.array([[-1e5, 0.0], [0.0, -1e5]])
    loss, gradient = jax.value_and_grad(lambda s: objective.contrastive_loss(s))(s)
    assert np.isfinite(loss) and np.isfinite(gradient).all()


def test_papers_mi_is_the_diagonal_minus_the_row_mean():
    s = jnp.array([[-10.0, -14.0], [-9.0, -3.0]])
    assert float(objective.mi_paper(s)) == pytest.approx(((-10 - -12) + (-3 - -6)) / 2)


def test_accuracies_tell_rows_from_columns_and_do_not_count_ties():
    s = jnp.array([[0.0, -1.0], [1.0, 2.0]])  # row 0 and row 1 right; column 0 wrong, column 1 right
    assert float(objective.row_accuracy(s)) == 1.0
    assert float(objective.column_accuracy(s)) == 0.5
    assert float(objective.row_accuracy(jnp.zeros((2, 2)))) == 0.0


def test_leading_axes_are_queries():
    s = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3, 3)))
    each = [float(objective.contrastive_loss(one)) for one in s]
    np.testing.assert_allclose(objective.contrastive_loss(s), each, rtol=1e-6)


def test_posterior_bound_is_the_entropy_lost_about_the_constitution():
    # Bayes by hand: p(c_1 | y_1) = 2/5 and p(c_2 | y_2) = 4/5 with a uniform prior.
    s = jnp.log(jnp.array([[2.0, 1.0], [3.0, 4.0]]))
    assert float(objective.mi_posterior_bound(s)) == pytest.approx(math.log(2) + math.log(2 / 5 * 4 / 5) / 2, abs=1e-6)
    # A response's length moves its whole column, which says nothing about constitutions.
    assert float(objective.mi_posterior_bound(s - jnp.array([[0.0, 50.0]]))) == pytest.approx(
        float(objective.mi_posterior_bound(s)), abs=1e-5
    )
