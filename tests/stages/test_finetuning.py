"""A training stage that is stopped, and one that its canaries stop: the model that is kept was looked at, and is the same."""

import json

import numpy as np
import pytest
import safetensors.numpy
from support.short_run import changed

from sami_jax.config import load_config
from sami_jax.errors import Stopped
from sami_jax.evaluation import canaries
from sami_jax.evaluation.signs import Signs
from sami_jax.ground import stopping
from sami_jax.stages.finetuning import train
from sami_jax.stages.preparation import prepare
from sami_jax.tracking.trackers import open_trackers

UPDATES, EVERY = 6, 2
REPLIES = {"well_formed": 1.0, "tokens": 20.0, "repetition": 0.0, "refusal": 0.0, "echo": 0.0, "kept_logprob": -1.0}


class Stage:
    """One stage of the miniature, on the pairs of a run that is there, its canaries' signs made up."""

    def __init__(self, folder, pairs, monkeypatch):
        options = changed(
            f"--config.train.updates=({UPDATES},)",
            f"--config.train.checkpoint_every={EVERY}",
            "--config.train.microbatches=1",
        )
        self.config, _ = load_config(
            "tiny:smoke", [*options[1:], "--config.track.to=()", "--config.canaries.action=stop"]
        )
        self.pairs, self.patch = pairs, monkeypatch
        self.inputs = prepare(self.config, folder, allow_unapproved=False)
        self.looked_at, self.update = [], None

    def run(self, folder, broken_after=UPDATES + 1, stops=()):
        """Trains until it is done, begun again after each stop.

        Args:
          broken_after: the update from which on the canaries' replies are empty.
          stops: updates after which somebody asks for the end, once each.
        """
        self.looked_at, waiting = [], set(stops)

        def measured(own, update, model, params):
            self.looked_at.append(update)
            replies = REPLIES | ({"tokens": 1.0} if update >= broken_after else {})
            look = Signs(update, 0.1, {name: np.full((4, 2), value) for name, value in replies.items()})
            (own._folder / str(update)).mkdir(parents=True)
            look.write(own._folder / str(update) / canaries.SIGNS)
            own._looks.append(look)
            canaries.write_jsonl(own._file, [{"update": one.update, **one.means} for one in own._looks])

        made = []
        self.patch.setattr(canaries.Canaries, "_measure", measured)
        self.patch.setattr("sami_jax.stages.finetuning.make_update", self._counting(made))
        self.patch.setattr(stopping, "anywhere", lambda: made[-1] in waiting and not waiting.remove(made[-1]))
        folder.mkdir()
        while True:
            try:
                with open_trackers(self.config, folder) as trackers:
                    return train(self.config, self.inputs, self.pairs, folder, 1, trackers)
            except Stopped:
                continue

    def _counting(self, made):
        from sami_jax.contrast.update import make_update

        def make(*arguments):
            # Compiled once for all stages: config and mesh are the same.
            update = self.update = self.update or make_update(*arguments)

            def counted(state, *rest):
                made.append(int(state.step) + 1)
                return update(state, *rest)

            return counted

        return make


def model(folder):
    return safetensors.numpy.load_file(folder / "model" / "model.safetensors")


def assert_same(one, other):
    for name, expected in model(other).items():
        np.testing.assert_array_equal(model(one)[name], expected, err_msg=name)
    for file in ("metrics.jsonl", "canaries.jsonl"):
        assert (one / file).read_text() == (other / file).read_text()


@pytest.fixture
def stage(tmp_path, undisturbed, monkeypatch):
    return Stage(tmp_path / "inputs", undisturbed.workdir / "iteration_1" / "pairs.jsonl", monkeypatch)


@pytest.mark.parametrize(
    "moments",
    [pytest.param((4,), marks=pytest.mark.slow), pytest.param(range(1, UPDATES + 1), marks=pytest.mark.faults)],
)
def test_a_stop_anywhere_changes_nothing(stage, tmp_path, moments):
    """Also where the canaries fire later: what is kept is the newest that they looked at, not what a stop saved."""
    stage.run(tmp_path / "whole")
    fired = stage.run(tmp_path / "fired", broken_after=5)
    assert (fired.update, fired.last_good) == (6, 4) and stage.looked_at == [0, 2, 4, 6]
    for number in moments:
        assert stage.run(tmp_path / f"whole {number}", stops=[number]) is None
        assert stage.looked_at == [0, 2, 4, 6]
        assert_same(tmp_path / f"whole {number}", tmp_path / "whole")
        again = stage.run(tmp_path / f"fired {number}", broken_after=5, stops=[number])
        assert again == fired and json.loads((tmp_path / f"fired {number}/stopped.json").read_text())["last_good"] == 4
        assert_same(tmp_path / f"fired {number}", tmp_path / "fired")


@pytest.mark.faults
def test_the_last_good_model_is_kept_where_the_newest_two_were_seen_by_nobody(stage, tmp_path):
    """Stopped after each update."""
    fired = stage.run(tmp_path / "fired", broken_after=5)
    assert stage.run(tmp_path / "often", broken_after=5, stops=range(1, UPDATES + 1)) == fired
    assert_same(tmp_path / "often", tmp_path / "fired")


@pytest.mark.slow
def test_where_nothing_was_good_nothing_is_kept(stage, tmp_path):
    """Also if a stop had saved an update before."""
    for name, stops in (("undisturbed", ()), ("stopped", (1,))):
        stop = stage.run(tmp_path / name, broken_after=1, stops=stops)
        assert (stop.update, stop.last_good) == (2, 0)
        assert not (tmp_path / name / "model").exists()


@pytest.mark.slow
def test_a_stop_saves_before_canaries_look(stage, tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(canaries.Canaries, "look", lambda *_: pytest.fail("it looked first"))
        patch.setattr(stopping, "anywhere", lambda: True)
        with open_trackers(stage.config, tmp_path) as trackers:
            for number in (1, 2):
                with pytest.raises(Stopped):
                    train(stage.config, stage.inputs, stage.pairs, tmp_path, 1, trackers)
                assert (tmp_path / "checkpoints" / str(number) / "seal.json").is_file()
