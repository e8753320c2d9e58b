"""Adapters in peft's files: read to the same bits, beside their base alone, and refused where they ask for anything else."""

import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from ml_collections import ConfigDict
from support.torch_models import save_random

from sami_jax.errors import UserError
from sami_jax.export.peft import export_adapters
from sami_jax.models.adapters import adapted, init_adapters
from sami_jax.models.huggingface import load_params, read_config
from sami_jax.models.peft import base_of, holds_adapters, load_adapters, read_adapter
from sami_jax.models.pretrained import ModelFolder
from sami_jax.models.stack import joined

A_TENSOR = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"


def grown(adapters: dict) -> dict:
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda w: np.asarray(w) + 0.1 * rng.standard_normal(w.shape, np.float32), adapters)


def written(tmp_path, mesh, family: str, targets=()):
    """A random base, its config with adapters, the adapters, and the folder that they were written to."""
    base = tmp_path / "base"
    save_random(family, base)
    config = adapted(read_config(base), ConfigDict({"rank": 4, "alpha": 8.0, "targets": targets}))
    adapters = grown(init_adapters(config, 0, mesh, "float32"))
    export_adapters(config, adapters, base, tmp_path / "adapter")
    return base, config, adapters, tmp_path / "adapter"


@pytest.mark.parametrize(
    ("family", "targets"),
    [
        ("mistral, window", ("value", "query")),
        pytest.param("llama, wide heads", (), marks=pytest.mark.slow),
        pytest.param("mixtral", (), marks=pytest.mark.slow),
    ],
)
def test_what_was_written_is_read_to_the_bit(tmp_path, mesh, family, targets):
    base, config, adapters, folder = written(tmp_path, mesh, family, targets)
    assert holds_adapters(folder) and not holds_adapters(base) and base_of(folder) == base.resolve()
    model = ModelFolder(base, read_config(base), None, (0,)).with_adapter(folder)
    assert model.config == config and model.place == folder
    expected = joined(load_params(base, read_config(base), mesh, jnp.dtype("bfloat16")), adapters)
    found = model.load(mesh, "bfloat16")
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {jnp.dtype("bfloat16")}
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, jnp.asarray(b, jnp.bfloat16)), found, expected)
    exact = load_adapters(folder, config, mesh, jnp.float32)
    jax.tree.map(np.testing.assert_array_equal, exact, adapters)


RECORDS = [
    ({"peft_type": "LOHA"}, "not adapters of low rank (LORA)"),
    ({"use_dora": True}, "use_dora=True is not computed here"),
    ({"bias": "all"}, "bias='all' is not computed here"),
    ({"rank_pattern": {"q_proj": 8}}, "rank_pattern={'q_proj': 8} is not computed here"),
    ({"r": 3}, f"{A_TENSOR} has shape [4, 32], the base model asks for [3, 32]"),
    ({"r": "4"}, "r is '4'"),
    ({"base_model_name_or_path": "nobody/model"}, "the base model nobody/model is not there; put its new place under"),
]


@pytest.fixture(scope="module")
def made(tmp_path_factory, mesh):
    return written(tmp_path_factory.mktemp("made"), mesh, "llama, grouped, untied", ("query",))


@pytest.fixture
def adapter(made, tmp_path):
    """The base, and a copy of its adapters."""
    return made[0], Path(shutil.copytree(made[-1], tmp_path / "adapter"))


@pytest.mark.parametrize(("changes", "words"), RECORDS)
def test_other_adapters_are_refused_in_one_line(adapter, changes, words):
    base, folder = adapter
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    with pytest.raises(UserError) as refused:
        base_of(folder)
        read_adapter(folder, read_config(base))
    assert words in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "tensor", "words"),
    [
        (A_TENSOR, None, f"{A_TENSOR} is missing"),
        (
            "base_model.model.lm_head.lora_A.weight",
            np.zeros((4, 32), np.float32),
            "lm_head.lora_A.weight belongs to no projection",
        ),
        (None, None, "cannot be read"),
    ],
)
def test_damaged_adapters_are_refused_in_one_line(adapter, name, tensor, words):
    base, folder = adapter
    file = folder / "adapter_model.safetensors"
    tensors = safetensors.numpy.load_file(file)
    if name and tensor is None:
        del tensors[name]
    elif name:
        tensors[name] = tensor
    safetensors.numpy.save_file(tensors, file)
    if not name:
        file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(UserError) as refused:
        read_adapter(folder, read_config(base))
    assert words in str(refused.value) and "\n" not in str(refused.value)
