"""What holds of the statistics for every set of outcomes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sami_jax.evaluation import statistics

OUTCOMES = st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=1, max_size=40)
CLUSTERED = st.lists(st.tuples(st.sampled_from([0.0, 0.5, 1.0]), st.integers(0, 6)), min_size=1, max_size=40)


@given(CLUSTERED)
def test_an_interval_holds_its_mean_and_mirrors_with_the_sides(pairs):
    outcomes, clusters = np.array([one for one, _ in pairs]), [cluster for _, cluster in pairs]
    for given_clusters in (None, clusters):
        mean, low, high = statistics.mean_interval(outcomes, given_clusters)
        assert 0 <= low <= mean + 1e-9 and mean - 1e-9 <= high <= 1 and mean == pytest.approx(outcomes.mean())
        assert high - low > 0.01
        mirrored = statistics.mean_interval(1 - outcomes, given_clusters)
        assert mirrored == pytest.approx((1 - mean, 1 - high, 1 - low), abs=1e-9)


@given(CLUSTERED)
def test_the_sign_test_does_not_care_who_is_who(pairs):
    outcomes, clusters = np.array([one for one, _ in pairs]), [cluster for _, cluster in pairs]
    for given_clusters in (None, clusters):
        p = statistics.sign_test(outcomes, given_clusters)
        assert 0 <= p <= 1 and p == pytest.approx(statistics.sign_test(1 - outcomes, given_clusters))


@given(OUTCOMES)
def test_rules_for_ties_are_ordered(outcomes):
    half, strict = (statistics.apply_ties(outcomes, rule)[0] for rule in ("half", "strict"))
    dropped, kept = statistics.apply_ties(outcomes, "drop")
    assert strict.mean() <= half.mean() and len(dropped) == len(kept) == sum(one != 0.5 for one in outcomes)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abc"), st.integers(1, 9)), min_size=1, max_size=9))
def test_strengths_do_not_depend_on_names(matches):
    wins: dict[tuple[str, str], float] = {}
    for winner, loser, count in matches:
        if winner != loser:
            wins[winner, loser] = wins.get((winner, loser), 0.0) + count
    if wins:
        other = dict(zip("abc", "zxy", strict=True))
        strengths = statistics.bradley_terry(wins)
        renamed = statistics.bradley_terry({(other[one], other[two]): count for (one, two), count in wins.items()})
        assert sum(strengths.values()) == pytest.approx(0, abs=1e-6)
        assert all(renamed[other[name]] == pytest.approx(strength, abs=1e-4) for name, strength in strengths.items())
