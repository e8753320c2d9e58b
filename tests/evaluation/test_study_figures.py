"""What a study says of methods, against counts by hand."""

import math

import numpy as np
import pytest

from sami_jax.evaluation.statistics import mean_interval
from sami_jax.evaluation.study import Answers, outcomes, strengths, summary


def answers(seed: int, followed, tokens=(5, 5, 5, 5), **more) -> Answers:
    probed = {"entropy_2": 2.0 + seed, "perplexity": 8.0}
    return Answers(seed, ["q", "q", "r", "r"], tokens, 0.25, probed, 0.5, followed, 0.75)._replace(**more)


BASE = [answers(seed, [0.5, 0.5, 0.5, 0.5]) for seed in (0, 1)]
OURS = [answers(0, [1, 0.5, 0, 1]), answers(1, [1, 1, 1, 1], tokens=(9, 9, 4, 4), information=0.35)]


def test_a_method_over_its_seeds():
    found = summary(OURS, BASE)
    assert found["following"] == pytest.approx(6.5 / 8) and found["following_by_seed"] == {"0": 0.625, "1": 1.0}
    # Clusters are the two queries, whichever seed asked them.
    expected = mean_interval([1, 0.5, 0, 1, 1, 1, 1, 1], ["q", "q", "r", "r"] * 2)
    assert found["following_interval"] == list(expected[1:])
    assert found["win_rate"] == pytest.approx((1 + 0.5 + 0 + 1 + 4) / 8)
    assert found["well_formed"] == 0.75 and found["responses"] == 8 and found["mean_tokens"] == (20 + 26) / 8
    assert found["entropy_2"] == 2.5 and found["perplexity"] == 8.0
    assert found["mi_posterior_bound"] == pytest.approx(0.3)
    assert found["kept_logprob_change"] == 0.5


def test_without_a_judge_there_is_less_to_say():
    unjudged = [one._replace(followed=None, well_formed=None, kept=None) for one in OURS]
    found = summary(unjudged, unjudged)
    assert set(found) == {"responses", "mean_tokens", "mi_posterior_bound", "entropy_2", "perplexity"}
    assert strengths({"one": unjudged, "other": unjudged}) == {}


def test_what_no_judge_decided_does_not_count():
    partly = [answers(0, [1, math.nan, math.nan, 1]), answers(1, [1, 1, math.nan, 1])]
    found = summary(partly, BASE)
    assert found["following"] == found["win_rate"] == 1.0 and found["responses"] == 8
    assert found["following_by_seed"] == {"0": 1.0, "1": 1.0}
    even = strengths({"one": partly, "other": partly})
    assert even == pytest.approx({"one": 0, "other": 0})


def test_strengths_are_of_comparisons_with_the_same_seed():
    assert outcomes(OURS[0], BASE[0]).tolist() == [1, 0.5, 0, 1]
    found = strengths({"base": BASE, "ours": OURS})
    # 6.5 wins to 1.5, with a slight prior.
    assert found["ours"] - found["base"] == pytest.approx(math.log(6.5 / 1.5), abs=0.05)
    assert np.isclose(sum(found.values()), 0)
