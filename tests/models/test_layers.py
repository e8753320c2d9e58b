"""An MLP taken part by part is the MLP."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from support.small_model import mesh_of

from sami_jax.models import layers
from sami_jax.models.config import LowRank
from sami_jax.models.layers import SwiGLU
from sami_jax.models.published import SHAPES

PLAIN = dataclasses.replace(SHAPES["mistral-7b"], d_model=16, d_ff=48)
ADAPTED = dataclasses.replace(PLAIN, adapter=LowRank(rank=2, alpha=4.0, targets=("gate", "down")))


@pytest.mark.parametrize("config, mesh", [(PLAIN, (1, 1, 1)), (ADAPTED, (1, 4, 2))])
def test_by_parts_equals_whole(config, mesh, monkeypatch):
    monkeypatch.setattr(layers, "MLP_PART", 8)
    graphdef, weights = nnx.split(SwiGLU(config, rngs=nnx.Rngs(0)))
    weights = jax.tree.map(lambda w: w + 0.01, weights)  # an adapter's zeros would hide it
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3, 16)), jnp.float32)

    @jax.jit
    def both(weights, x):
        def value(weights, x, by_parts):
            y, _ = nnx.merge(graphdef, weights)(x, by_parts)
            return jnp.sum(y**2), y

        return [jax.value_and_grad(value, (0, 1), has_aux=True)(weights, x, by_parts) for by_parts in (False, True)]

    with jax.set_mesh(mesh_of(*mesh)):
        whole, parts = both(weights, x)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), whole, parts)


def test_parts_are_equal_and_no_wider_than_they_may_be():
    assert layers._mlp_parts(1024) == 1
    assert layers._mlp_parts(14336) == 14
    assert layers._mlp_parts(18944) == 32  # of 592: 37 x 512, and nothing between divides it
