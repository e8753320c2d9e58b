"""Canaries: the set is fixed; a collapse in a real run is stopped with the last good model kept."""

import json
from pathlib import Path
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from sami_jax.config import defaults, load_config
from sami_jax.data.jsonl import write_jsonl
from sami_jax.data.queries import Query
from sami_jax.evaluation import canaries
from sami_jax.evaluation.canaries import SIGNS, Canaries, canary_set
from sami_jax.evaluation.signs import Signs
from sami_jax.principles.principle import Principle


def test_the_set_is_fixed_and_states_principles_and_their_antitheses():
    config, _ = load_config("tiny", ["--config.canaries.queries=3"])
    principles = [Principle(name, ((f"Be {name}.", f"Never be {name}."),) * 2) for name in "abcd"]
    queries = [Query(str(i), f"q{i}") for i in range(9)]
    chosen = canary_set(config, principles, queries)
    assert chosen == canary_set(config, principles, queries) and len(chosen.queries) == 3
    for positive, negative in chosen.constitutions:
        assert [s.id for s in positive] == [s.id for s in negative] and len(positive) == 3
        assert all(s.text.startswith("Be ") for s in positive) and all(s.text.startswith("Never") for s in negative)


def test_what_later_updates_said_is_forgotten(tmp_path):
    """A run that goes on from an earlier checkpoint makes these updates again, and may make them otherwise."""
    for update in (0, 4, 8, 12):
        Signs(update, 0.1, {"echo": np.zeros((1, 2))}).write(tmp_path / "canaries" / str(update) / SIGNS)
    write_jsonl(tmp_path / "canaries.jsonl", [{"update": update} for update in (0, 4, 8)])
    kept = Canaries(defaults(), None, {}, None, None, None, tmp_path, done=4)  # pyright: ignore[reportArgumentType]
    assert sorted(folder.name for folder in (tmp_path / "canaries").iterdir()) == ["0", "4"]
    assert kept.looked_at(before=100) == 4


class _Base:
    """A base model that counts how often its weights are loaded."""

    def __init__(self, folder: Path):
        self.folder, self.config, self.loaded = folder, SimpleNamespace(adapter=None), 0

    def load(self, *_) -> dict:
        self.loaded += 1
        return {}


def test_the_base_is_asked_once_in_a_run(tmp_path, monkeypatch):
    """Stages after the first take its signs to the last digit, and ask anew where they would ask otherwise."""

    def measured(self: Canaries, update: int, *_):
        look = Signs(update, 1 / 3, {"tokens": np.array([[update + 0.123456, 7.0]]), "echo": np.zeros((1, 2))})
        look.write(self._folder / str(update) / SIGNS)
        self._add(look)

    monkeypatch.setattr(Canaries, "_measure", measured)
    monkeypatch.setattr(canaries, "fired", lambda *_: [])
    monkeypatch.setattr(canaries.dataclasses, "replace", lambda model, **_: model)
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    base, asked = _Base(tmp_path), canaries.EvaluationSet("canaries", [Query("1", "q")], [()])

    def look(config, folder: str, earlier: str | None) -> Canaries:
        made = Canaries(config, base, {}, asked, None, None, tmp_path / folder, 0, earlier and tmp_path / earlier)  # pyright: ignore[reportArgumentType]
        made.look(4, {"w": jnp.ones(2)})
        return made

    config = defaults()
    first = look(config, "iteration_1", None)
    config.optim.learning_rate, config.train.updates = 0.5, (9, 9)  # of training alone
    second = look(config, "iteration_2", "iteration_1")
    assert base.loaded == 1 and [look.update for look in second._looks] == [0, 4]
    assert second._looks[0].means == first._looks[0].means
    rows = [(tmp_path / name / "canaries.jsonl").read_text() for name in ("iteration_1", "iteration_2")]
    assert rows[0] == rows[1]
    config.sampling.max_new_tokens += 1
    look(config, "iteration_3", "iteration_1")
    assert base.loaded == 2
    (tmp_path / "model.safetensors").write_bytes(b"other weights")
    look(config, "iteration_4", "iteration_3")
    assert base.loaded == 3


COLLAPSING = [
    "--config=tiny",
    "--config.optim.learning_rate=2e-2",
    "--config.train.updates=(6,6)",
    "--config.train.checkpoint_every=1",
    "--config.train.batch_size=16",
    "--config.train.microbatches=2",
    "--config.train.shapes=1",
    "--config.canaries.queries=32",
    "--config.evaluation.queries=8",
]


@pytest.mark.slow
def test_a_collapsing_run_is_stopped_and_its_last_good_model_kept(tmp_path, commands):
    workdir = tmp_path / "run"
    status, told = commands.run("run", *COLLAPSING, "--workdir", str(workdir))
    assert status == 3, told
    stopped = json.loads((workdir / "iteration_1" / "stopped.json").read_text())
    assert 0 < stopped["last_good"] < stopped["update"] <= 6 and stopped["rules"]
    line = told.strip().splitlines()[-1]
    assert line.startswith(f"sami: iteration 1, update {stopped['update']}: stopped by canaries: ")
    assert stopped["rules"][0] in line and f"the model of update {stopped['last_good']} is kept" in line
    # Kept, measured, bound to its principles, and nothing after it.
    folder = workdir / "iteration_1"
    assert (folder / "model" / "model.safetensors").exists() and not (workdir / "iteration_2").exists()
    assert json.loads((folder / "evaluation.json").read_text())["trained"]["well_formed"] > 0.8
    assert "Stopped early by canaries" in (folder / "model" / "README.md").read_text()
    assert "iteration 1" in told
    rows = [json.loads(line) for line in (folder / "canaries.jsonl").read_text().splitlines()]
    assert [row["update"] for row in rows] == list(range(stopped["update"] + 1))
    status, told = commands.run("verify", str(workdir))
    assert status == 0 and "run stopped by canaries" in told
    # The same command says the same, and trains nothing.
    weights = (folder / "model" / "model.safetensors").stat().st_mtime_ns
    assert commands.run("run", *COLLAPSING, "--workdir", str(workdir))[0] == 3
    assert (folder / "model" / "model.safetensors").stat().st_mtime_ns == weights
    assert not Path(workdir / "iteration_2").exists()
