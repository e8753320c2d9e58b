"""Intervals against the textbook formula, and their coverage by simulation."""

import numpy as np
import pytest

from sami_jax.evaluation.statistics import mean_interval


def test_wins_and_losses_give_the_binomial_interval():
    mean, low, high = mean_interval([1.0] * 80 + [0.0] * 20)
    assert mean == 0.8
    assert (high - low) / 2 == pytest.approx(1.96 * (0.8 * 0.2 / 99) ** 0.5)


def test_one_value_and_equal_values_have_no_width():
    assert mean_interval([0.5]) == (0.5, 0.5, 0.5)
    assert mean_interval([1.0, 1.0]) == (1.0, 1.0, 1.0)


def test_covers_the_truth_nineteen_times_in_twenty():
    rng = np.random.default_rng(0)
    draws = rng.choice([1.0, 0.5, 0.0], p=[0.5, 0.3, 0.2], size=(2000, 250))
    covered = [low <= 0.65 <= high for _, low, high in map(mean_interval, draws.tolist())]
    assert 0.93 < np.mean(covered) < 0.97
