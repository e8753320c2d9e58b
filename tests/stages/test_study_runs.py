"""A study: what it runs, what it chooses, and that one that was killed goes on to the same table."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.flags import environment

from sami_jax import miniature
from sami_jax.config import load_config
from sami_jax.config.checks import validate
from sami_jax.contrast.family import FAMILY, Member
from sami_jax.errors import UserError
from sami_jax.evaluation.study import Settings
from sami_jax.stages.study import Cell, Grid, Way, best, cell_config, study, validation_queries

TINY = load_config("tiny", [])[0]


@pytest.mark.parametrize("name", FAMILY)
def test_a_run_has_the_whole_row_at_its_own_rate_and_beta(name):
    asked = ["--config.objective.name=ipo", "--config.objective.margin=0.0", "--config.prompt.bare={query}"]
    config = load_config("tiny", asked)[0]
    made = cell_config(config, Cell(name, Settings(0.5, 3.0, 0.02), 7), "validation.jsonl")
    validate(made)
    row = FAMILY[name]
    assert Member(*(made.objective[field] for field in Member._fields)) == row._replace(beta=3 * row.beta)
    assert (made.objective.name, made.seed, made.data.eval_queries) == (name, 7, "validation.jsonl")
    assert made.optim.learning_rate == TINY.optim.learning_rate / 2 and made.objective.kl_weight == 0.02
    assert config.objective.name == "ipo" and config.seed == 0


def test_contrastive_decoding_trains_nothing_otherwise():
    made = cell_config(TINY, Cell("contrast", Settings(2.0, 0.7), 0), None)
    validate(made)
    assert made.sampling.contrast == 1.4 and made.data.eval_queries == TINY.data.eval_queries
    assert made.objective.to_dict() == TINY.objective.to_dict()


def test_what_makes_no_difference_is_not_varied():
    grid = Grid((0.5, 1.0), (1.0, 3.0), (0.1,), (10,))
    varied = [(0.5, 1.0, 0.1), (0.5, 3.0, 0.1), (1.0, 1.0, 0.1), (1.0, 3.0, 0.1)]
    assert grid.settings("dpo") == varied and grid._replace(kl_weights=(0.1, 0.2)).settings("dpo")[::2] == varied
    assert grid.settings("sft") == grid.settings("distill") == [(0.5, 1.0, 0.1), (1.0, 1.0, 0.1)]
    assert grid.settings("contrast") == [(0.5, 1.0, 0), (0.5, 3.0, 0), (1.0, 1.0, 0), (1.0, 3.0, 0)]


def row(rate: float, following: float, well_formed: float) -> dict:
    return {
        "rate": rate,
        "beta": 1.0,
        "kl_weight": 0,
        "following": following,
        "well_formed": well_formed,
        "base_well_formed": 0.98,
    }


def test_the_best_is_whole():
    assert best([row(0.5, 0.8, 0.99), row(1, 0.85, 0.965), row(2, 0.95, 0.95)]) == Settings(1)._asdict()
    assert best([row(0.5, 0.8, 0.9), row(1, 0.8, 0.9)])["rate"] == 0.5  # none is, and of equals the first
    unjudged = [
        {"rate": rate, "beta": 2.0, "kl_weight": 0.1, "mi_posterior_bound": nats}
        for rate, nats in ((1.0, 0.2), (2.0, 0.3))
    ]
    assert best(unjudged) == Settings(2.0, 2.0, 0.1)._asdict()


def test_choices_are_not_made_by_held_out_queries(tmp_path):
    assert validation_queries(TINY, "") == str(miniature.QUERIES / "validation.jsonl")
    with pytest.raises(UserError, match="holds the held-out queries"):
        validation_queries(TINY, TINY.data.eval_queries)
    with pytest.raises(UserError, match="no such file; give queries to choose rates by"):
        validation_queries(TINY, str(tmp_path / "none.jsonl"))


@pytest.mark.parametrize(("names", "wrong"), [(["sami", "dpp"], "dpp"), (["sami", "dpo", "sami"], "sami"), ([""], "")])
def test_names_are_known_and_different(names, wrong, tmp_path):
    with pytest.raises(UserError, match=f"--objectives: '{wrong}': give different ones of sami, sami-base,"):
        study(None, names, [0], Grid((), (), (), ()), tmp_path)  # pyright: ignore[reportArgumentType]


def test_what_an_objective_lacks_is_said_before_anything_is_run(tmp_path):
    way = Way(TINY, "validation.jsonl", False, lambda: None)
    with pytest.raises(UserError, match=r"config\.prompt\.bare='': must be a template with \{query\} and without"):
        study(way, ["sami", "distill"], [0], Grid((1.0,), (1.0,), (0.1,), (10,)), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("rates", "first"), [((1.0,), "held_out"), ((0.5, 1.0), "tuning")])
def test_of_one_setting_nothing_is_chosen(rates, first, tmp_path, monkeypatch):
    def begun(way, cell, folder, validation):
        raise InterruptedError(folder.name)

    monkeypatch.setattr("sami_jax.stages.study._run", begun)
    way = Way(TINY, "validation.jsonl", False, lambda: None)
    with pytest.raises(InterruptedError, match=first):
        study(way, ["sami"], [0], Grid(rates, (1.0,), (0.1,), (10,)), tmp_path)


SMALL = [
    "--config=tiny:smoke",
    "--config.train.updates=(1,)",
    "--config.train.batch_size=8",
    "--config.train.microbatches=2",
    "--config.train.shapes=1",
    "--config.sampling.batch_size=16",
    "--config.evaluation.queries=4",
    "--config.canaries.queries=4",
    *("--objectives=sami-base,contrast", "--seeds=0", "--rates=1,2", "--betas=1"),
]


def sami_study(workdir: Path, *more: str) -> subprocess.Popen:
    argv = [sys.executable, "-m", "sami_jax.cli", "study", *SMALL, *more, "--workdir", str(workdir), "--json"]
    return subprocess.Popen(argv, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def without_seconds(found: dict) -> dict:
    """What a study found, but for what depends on the machine's haste."""
    sets = {
        name: {method: {key: value for key, value in row.items() if key != "seconds"} for method, row in rows.items()}
        for name, rows in found["sets"].items()
    }
    return found | {"sets": sets}


@pytest.mark.faults
def test_a_study_killed_at_some_moments_ends_in_the_same_table(tmp_path):
    output, errors = (whole := sami_study(tmp_path / "whole")).communicate()
    assert whole.returncode == 0, errors
    for seconds in range(4, 34, 3):  # from each start
        killed = sami_study(tmp_path / "killed")
        try:
            killed.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            killed.kill()
            killed.communicate()
    again, errors = (last := sami_study(tmp_path / "killed")).communicate()
    assert last.returncode == 0, errors
    found = json.loads(output)
    assert without_seconds(json.loads(again)) == without_seconds(found)
    for folder in ("killed", "whole"):
        assert (tmp_path / folder / "study.html").exists()
    assert set(found["sets"]["trained"]) == {"base", "sami-base", "contrast"}
    assert found["sets"]["trained"]["base"]["win_rate"] == 0.5
    assert [len(one["grid"]) for one in found["chosen"].values()] == [2, 2]
    _, errors = (other := sami_study(tmp_path / "whole", "--betas=2")).communicate()
    assert other.returncode == 2 and "this folder holds a study made otherwise" in errors
