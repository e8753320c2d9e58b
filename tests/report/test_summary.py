"""What a run prints at its end."""

import pytest

from sami_jax.report.summary import print_evaluation

ROW = {"responses": 8, "following": 0.8, "win_rate": 0.7, "win_rate_interval": [0.5, 0.9], "well_formed": 1.0}
ROW |= {"mi_posterior_bound": 0.3, "mean_tokens": 20.0}
ONE = {
    "responses": 4,
    "following": 0.75,
    "following_interval": [0.3, 0.95],
    "win_rate": 0.5,
    "win_rate_interval": [0.2, 0.8],
}


@pytest.mark.parametrize("name", ["held_out_principles", "trained"])
def test_each_held_out_principle_is_shown_and_for_which_the_interval_is(capsys, name):
    principles = {"greeting": ONE, "enthusiasm": ONE | {"following": 0.25, "following_interval": [0.05, 0.7]}}
    print_evaluation("m", {name: ROW | {"principles": principles}})
    told = " ".join(capsys.readouterr().out.split())
    shown = name == "held_out_principles"
    assert ("Each of them, m; intervals are for these 2, not for others" in told) == shown
    assert ("greeting 4 - 75.0 % (30-95) 50.0 % (20-80)" in told) == shown
    assert ("enthusiasm 4 - 25.0 % (5-70)" in told) == shown


def test_a_measurement_without_principles_is_shown_as_before(capsys):
    print_evaluation("m", {"held_out_principles": ROW})
    assert "Each of them" not in capsys.readouterr().out
