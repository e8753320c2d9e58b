"""LoRA: what is sampled and measured is what was trained, and what merging changes is told."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from support.short_run import changed
from support.torch_models import save_random

from sami_jax import miniature
from sami_jax.cli import main
from sami_jax.config import defaults
from sami_jax.data.batches import ContrastExample
from sami_jax.export.huggingface import copy_companions, export
from sami_jax.export.peft import export_adapters
from sami_jax.models.adapters import adapted, folded, init_adapters
from sami_jax.models.huggingface import load_params, read_config
from sami_jax.models.peft import load_adapters, read_adapter
from sami_jax.models.pretrained import ModelFolder
from sami_jax.stages import loop
from sami_jax.stages.merging import MERGED, tell_merge, told_merge

EXAMPLES = [ContrastExample(((1, 2, 3), (4, 5)), ((6, 7), (8, 9, 10)))] * 2


@pytest.mark.parametrize(
    ("dtype", "size", "unchanged", "lost"),
    [
        pytest.param("float32", 1e-2, (0.0, 0.05), (0.0, 0.01), marks=pytest.mark.slow),
        ("bfloat16", 1e-2, (0.05, 0.3), (0.02, 0.3)),
        ("bfloat16", 1e-4, (0.9, 1.0), (0.5, 10.0)),
    ],
)
def test_merging_into_bfloat16_rounds_a_small_change_away(tmp_path, mesh, capsys, dtype, size, unchanged, lost):
    """And most of a smaller one.

    Args:
      size: of the adapters' B.
      lost: the difference that merging makes, by the effect that the adapters have.
    """
    config = defaults()
    config.model.export_dtype = config.train.compute_dtype = dtype
    folder = tmp_path / "base"
    save_random("llama, grouped, untied", folder)
    base = ModelFolder(folder, read_config(folder), None, (0,))
    shape = adapted(base.config, ConfigDict({"rank": 4, "alpha": 8.0, "targets": ()}))
    draw = np.random.default_rng(0).standard_normal
    adapters = jax.tree_util.tree_map_with_path(
        lambda path, w: size * draw(w.shape, np.float32) if path[-1].key == "lora_b" else w,
        init_adapters(shape, 0, mesh, "float32"),
    )
    frozen = load_params(folder, base.config, mesh, jnp.dtype(dtype))
    export_adapters(shape, adapters, folder, tmp_path / "adapter")
    whole = folded(shape, frozen, adapters, mesh)
    export(whole, base.config, tmp_path / "model", copy_companions(folder), jnp.dtype(dtype))
    assert told_merge(tmp_path) is None
    tell_merge(config, base, EXAMPLES, tmp_path, mesh)
    found = json.loads((tmp_path / MERGED).read_text())
    assert unchanged[0] <= found["unchanged_weights"] <= unchanged[1]
    assert found["effect"] > 0 and lost[0] <= found["difference"] / found["effect"] <= lost[1]
    assert told_merge(tmp_path) in capsys.readouterr().err


LORA = changed(
    "--config.train.updates=(1,1)",
    "--config.train.batch_size=16",
    "--config.lora.rank=4",
    "--config.optim.learning_rate=2e-3",
    "--config.principles.held_out=()",  # one set to measure, not three
    "--config.principles.held_out_phrasings=0",
)


@pytest.mark.slow
@pytest.mark.parametrize("held", ["int8", "nf4"])
def test_a_run_over_a_quantized_base_is_merged_into_the_base_as_it_was(tmp_path, mesh, held):
    assert main(["run", *LORA, f"--config.lora.base={held}", "--workdir", str(tmp_path)]) == 0
    shape = read_config(miniature.BASE)
    adapted_shape = read_adapter(tmp_path / "iteration_2/adapter", shape)
    adapters = load_adapters(tmp_path / "iteration_2/adapter", adapted_shape, mesh, jnp.float32)
    expected = folded(adapted_shape, load_params(miniature.BASE, shape, mesh, jnp.float32), adapters, mesh)
    found = load_params(tmp_path / "iteration_2/model", shape, mesh, jnp.float32)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), found, expected)
    told = json.loads((tmp_path / "iteration_2" / MERGED).read_text())
    assert told["unchanged_weights"] < 0.1 and told["difference"] > 0
    assert main(["verify", str(tmp_path)]) == 0


@pytest.mark.slow
def test_a_run_samples_and_measures_adapters_beside_the_base(tmp_path, monkeypatch, capsys):
    asked = []
    for name in ("sample", "_measure", "explain_responses"):
        honest = getattr(loop, name)

        def spied(config, inputs, model, *more, name=name, honest=honest):
            asked.append(
                (
                    name,
                    model.config.adapter is not None,
                    str(model.place.relative_to(tmp_path)) if model.adapter else "",
                )
            )
            return honest(config, inputs, model, *more)

        monkeypatch.setattr(loop, name, spied)
    argv = ["run", *LORA, "--workdir", str(tmp_path)]
    assert main(argv) == 0
    first, second = "iteration_1/adapter", "iteration_2/adapter"
    assert asked == [
        ("_measure", False, ""),
        ("sample", False, ""),
        ("_measure", True, first),
        ("sample", True, first),
        ("_measure", True, second),
        ("explain_responses", True, second),
    ]
    merged = (tmp_path / "iteration_2" / MERGED).read_text()
    assert "Results are of the adapters beside the base" in (tmp_path / "iteration_2/model/README.md").read_text()
    # As after a kill between the model and the measure of its merge.
    (tmp_path / "iteration_2" / MERGED).unlink()
    assert main(argv) == 0
    assert (tmp_path / "iteration_2" / MERGED).read_text() == merged
    assert main(["verify", str(tmp_path)]) == 0
    # Every verb takes the adapters; where a whole model is wanted, they are refused.
    (tmp_path / "prompts.jsonl").write_text(json.dumps({"id": "1", "prompt": "How do I fix the bike?"}) + "\n")
    files = ["--input", str(tmp_path / "prompts.jsonl"), "--output", str(tmp_path / "out.jsonl")]
    assert main(["sample", "--model", str(tmp_path / second), *files, "--max_new_tokens=4"]) == 0
    capsys.readouterr()
    assert main(["run", *LORA, "--workdir", str(tmp_path / "other"), f"--config.model.path={tmp_path / second}"]) == 2
    assert "holds adapters, and training begins with a whole model" in capsys.readouterr().err
