"""Numbers that are none: in a weight, a gradient, a log-likelihood. Skipped and counted up to a bound, then the stage ends with
status 5; nothing that holds one is ever saved or exported."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from support.short_run import changed

from sami_jax import miniature
from sami_jax.cli import main
from sami_jax.contrast import update
from sami_jax.stages import finetuning

ONE = changed(
    "--config.train.updates=(4,)",
    "--config.train.batch_size=16",
    "--config.canaries.action=off",
    "--config.train.max_skipped_updates=1",
)
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def sampled(tmp_path_factory):
    """A run's folder up to the first pairs."""
    folder = tmp_path_factory.mktemp("sampled")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sami_jax.stages.loop.train", _stop)
        with pytest.raises(_HereError):
            main(["run", *ONE, "--workdir", str(folder)])
    return folder / "iteration_1/pairs.jsonl"


class _HereError(Exception):
    pass


def _stop(*_):
    raise _HereError


def train(pairs, output, capsys, *more: str) -> tuple[int, str]:
    capsys.readouterr()
    status = main(["train", *ONE, "--pairs", str(pairs), "--output", str(output), *more])
    return status, capsys.readouterr().err


def spoil(monkeypatch, when, total=lambda x: x, metrics=lambda x: x):
    """What the microbatches' program gives, spoilt in the calls of which `when(number)` holds, from 0."""
    honest, calls = update.programs, iter(range(10**6))

    def programs(*arguments):
        made = honest(*arguments)

        def add(*arguments):
            found = made.add(*arguments)
            return (total(found[0]), metrics(found[1])) if when(next(calls)) else found

        return made._replace(add=add)

    monkeypatch.setattr(update, "programs", programs)


def nan_gradient(total):
    return total | {"embedding": total["embedding"].at[3, 1].set(jnp.nan)}


def rows(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("kind", "spoilt"),
    [
        ("gradient", {"total": nan_gradient}),
        pytest.param(
            "log-likelihood",
            {"metrics": lambda m: m | {"loss": jnp.float32(jnp.nan)}},
            marks=pytest.mark.faults,
        ),
    ],
)
def test_an_update_that_is_no_number_changes_nothing_and_is_counted(
    sampled, tmp_path, capsys, monkeypatch, kind, spoilt
):
    spoil(monkeypatch, lambda call: call == 2, **spoilt)  # the first of the two microbatches of update 2
    status, err = train(sampled, tmp_path, capsys)
    assert status == 0, err
    assert "WARNING: update 2 was skipped, its loss or gradient is no number; 1 so far" in err
    assert [row["skipped_updates"] for row in rows(tmp_path)] == [0, 1, 1, 1]
    assert (
        rows(tmp_path)[1]["gradient_norm" if kind == "gradient" else "loss"] is None
        and rows(tmp_path)[1]["update_norm"] == 0
    )
    exported = safetensors.numpy.load_file(tmp_path / "model/model.safetensors")
    assert all(np.isfinite(weight).all() for weight in exported.values())


def test_too_many_end_the_stage_with_the_batch_kept(sampled, tmp_path, capsys, monkeypatch):
    spoil(monkeypatch, lambda call: call >= 4, total=nan_gradient)  # from update 3 on
    status, err = train(sampled, tmp_path, capsys)
    assert status == 5 and err.strip().splitlines()[-1].startswith("sami: update 4: loss or gradient is no number")
    assert not (tmp_path / "model").exists()
    kept = tmp_path / "not_finite.jsonl"
    assert str(kept) in err and len(kept.read_text().splitlines()) == 16
    # As `sami score` reads it.
    out = tmp_path / "scores.jsonl"
    assert main(["score", "--model", str(miniature.BASE), "--input", str(kept), "--output", str(out)]) == 0
    # The checkpoints before are whole, and the count goes on where it was: at once too many again.
    assert [row["skipped_updates"] for row in rows(tmp_path)] == [0, 0, 1, 2]
    again, err = train(sampled, tmp_path, capsys)
    assert again == 5 and "update 4: loss or gradient is no number, as in 1 before" in err


def test_a_weight_that_is_no_number_is_never_saved(sampled, tmp_path, capsys, monkeypatch):
    """One that no text of the batch looks at, so that neither loss nor gradient shows it."""
    honest = finetuning.make_update

    def make_update(*arguments):
        made = honest(*arguments)

        def spoilt(state, *others):
            state, metrics = made(state, *others)
            if int(state.step) == 2:
                embedding = state.params["embedding"].at[0, 0].set(jnp.inf)
                state = state._replace(
                    params=state.params | {"embedding": jax.device_put(embedding, state.params["embedding"].sharding)}
                )
            return state, metrics

        return spoilt

    monkeypatch.setattr(finetuning, "make_update", make_update)
    status, err = train(sampled, tmp_path, capsys)
    assert status == 5 and "update 2 was not saved: embedding holds values that are no numbers" in err
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["1", "model"]
    monkeypatch.setattr(finetuning, "make_update", honest)
    assert train(sampled, tmp_path, capsys)[0] == 0 and (tmp_path / "model").exists()


def test_a_base_model_with_such_a_weight_is_refused(sampled, tmp_path, capsys):
    base = tmp_path / "base"
    shutil.copytree(miniature.BASE, base)
    tensors = safetensors.numpy.load_file(base / "model.safetensors")
    tensors["model.norm.weight"] = tensors["model.norm.weight"].copy()
    tensors["model.norm.weight"][3] = np.nan
    safetensors.numpy.save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    status, err = train(sampled, tmp_path / "out", capsys, f"--config.model.path={base}")
    assert status == 5 and f"sami: {base}: final_norm/scale holds values that are no numbers" in err


def test_a_log_likelihood_that_is_no_number_is_no_result(tmp_path, capsys, monkeypatch):
    """Weights so large that products overflow."""
    base = tmp_path / "base"
    shutil.copytree(miniature.BASE, base)
    tensors = safetensors.numpy.load_file(base / "model.safetensors")
    tensors["model.norm.weight"] = np.full_like(tensors["model.norm.weight"], 3e38)
    safetensors.numpy.save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    file, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    file.write_text(json.dumps({"id": 1, "prompts": ["a", "b"], "responses": ["c", "d"]}) + "\n")
    assert main(["score", "--model", str(base), "--input", str(file), "--output", str(out)]) == 5
    assert "sami: a log-likelihood is no number" in capsys.readouterr().err and not out.exists()
