"""Updates that are rounded away are warned of."""

from typing import NamedTuple

import pytest

from sami_jax.config import defaults, paper_training
from sami_jax.stages.finetuning import _make_updates


class State(NamedTuple):
    step: int


class Batches:
    def __len__(self):
        return 3

    def tokens(self, index):
        return 1

    def padded_share(self, index):
        return 0.0


class Recorded:
    """Checkpoints and log."""

    def __init__(self):
        self.rows = []

    def latest(self, name, default):
        return default

    def write(self, step, metrics):
        self.rows.append(metrics)

    def save(self, state, keep):
        pass

    def settle(self):
        pass


@pytest.mark.parametrize(
    ("shares", "changes", "words"),
    [
        ((1.0, 0.6, 1.3), {}, ""),
        ((float("nan"), 1.0, 1.0), {}, ""),  # a skipped update
        (
            (0.9, 0.031, 0.02),
            {"param_dtype": "float32"},
            "WARNING: update 2: 3% of it reached the weights in bfloat16 that the model is computed with, the rest is rounded away by "
            "config.train.param_dtype=float32; set config.train.param_dtype=bfloat16, or raise config.optim.learning_rate",
        ),
        (
            (0.0, 0.0, 0.0),
            {"rounding": "nearest"},
            "config.train.rounding=nearest; set config.train.rounding=stochastic",
        ),
    ],
)
def test_updates_that_are_rounded_away_are_warned_of_once(capsys, shares, changes, words):
    config = defaults()
    config.train.checkpoint_every = 1
    paper_training(config)
    config.train.update(changes)
    recorded = Recorded()

    def update(state, number):
        return State(number), {"loss": 0.5, "gradient_norm": 1.0, "effective_update": shares[number - 1]}

    _make_updates(config, Batches(), State(0), update, None, None, recorded, recorded)
    said = capsys.readouterr().err
    assert words in said and said.count("WARNING") == bool(words)
    assert [row["effective_update"] for row in recorded.rows] == pytest.approx(shares, nan_ok=True)
