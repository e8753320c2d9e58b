"""Adapters merged into the base's files, a layer at a time: as the whole is at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from support.quick import others_slow
from support.small_model import mesh_of
from support.torch_models import save_random

from sami_jax.export.huggingface import copy_companions, export
from sami_jax.export.merged import merged, stored, unchanged_share
from sami_jax.models.adapters import adapted, folded, init_adapters, trained
from sami_jax.models.decoder import param_shardings
from sami_jax.models.huggingface import load_params, read_config


@pytest.mark.parametrize("name", others_slow(["mistral, window", "mixtral", "phi 3", "gemma 3"], "phi 3"))
def test_it_is_the_sum(name, mesh, tmp_path):
    """From a mesh that splits it into files, without rounding, as one device adds it up."""
    base = tmp_path / "base"
    save_random(name, base)
    plain = read_config(base)
    config = adapted(plain, ConfigDict({"rank": 4, "alpha": 8.0, "targets": ("query", "output")}))
    adapters = jax.tree.map(lambda w: w + 0.1, init_adapters(config, 0, mesh, "float32"))
    expected = folded(config, load_params(base, plain, mesh, jnp.float32), adapters, mesh)

    split = mesh_of(1, 2, 1)
    placed = jax.device_put(adapters, trained(config, param_shardings(config, split)))
    export(merged(base, config, placed, split), plain, tmp_path / "model", copy_companions(base))
    found = load_params(tmp_path / "model", plain, mesh, jnp.float32)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), found, expected)

    before, after = (stored(folder, plain, mesh, "float32") for folder in (base, tmp_path / "model"))
    assert unchanged_share(adapters, before, after) < 0.01
    assert unchanged_share(adapters, before, before) == 1.0
