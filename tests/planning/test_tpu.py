"""The update as a TPU gets it: compiled for a topology, without a TPU. Skipped where libtpu is not installed."""

import dataclasses

import jax
import pytest
from jax.experimental import topologies
from ml_collections import FrozenConfigDict
from support.quick import others_in_faults
from support.small_model import SMALL, random_batch

from sami_jax.config import defaults
from sami_jax.contrast.update import abstract_state, accumulate, state_shardings
from sami_jax.kernels.attention import LANES
from sami_jax.sharding import make_mesh, named_sharding


@pytest.mark.slow
@pytest.mark.parametrize("attention", others_in_faults(["xla", "splash"], "splash"))
def test_the_update_compiles(attention, monkeypatch):
    pytest.importorskip("libtpu")
    monkeypatch.setenv("TPU_SKIP_MDS_QUERY", "1")
    monkeypatch.setenv("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    devices = topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x2").devices
    mesh = make_mesh({"data": 1, "fsdp": 2, "tensor": 2}, devices)
    model = dataclasses.replace(SMALL, d_model=256, head_dim=LANES, sliding_window=64, attention=attention)
    config = FrozenConfigDict(defaults())

    def shaped(leaves, shardings):
        return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), leaves, shardings)

    params = shaped(abstract_state(model, config).params, state_shardings(model, config, mesh).params)
    batch = random_batch(0, 4, 2, prefix=200, response=50)
    batch = shaped(batch, jax.tree.map(lambda _: named_sharding(mesh, ("batch",)), batch))
    with jax.set_mesh(mesh):
        add = jax.jit(accumulate, static_argnums=(3, 5))
        update = add.lower(params, {}, params, model, batch, config, None)
    update.compile()
