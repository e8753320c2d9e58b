"""What attention without a kernel holds, counted in its program."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sami_jax.data.packing import Sizes
from sami_jax.models.attention import causal_attention, score_bytes


@pytest.mark.parametrize(("total", "sizes"), [(300, None), (1200, Sizes(200, 150, 1000)), (1100, Sizes(1000, 50, 100))])
def test_scores_are_as_many_as_are_counted(total, sizes):
    """Of whole rows, and of packed ones, of which keys between the prefix and a response are not touched."""
    q, kv = (jnp.ones((1, total, heads, 8)) for heads in (4, 2))
    attend = causal_attention(jnp.arange(total)[None], None, None, sizes)
    program = jax.make_jaxpr(lambda q, k, v: attend(q, k, v)[0])(q, kv, kv)
    scores = [e.outvars[0].aval for e in program.eqns if e.primitive.name == "exp"]
    assert sum(4 * one.size for one in scores) == score_bytes(4, total, sizes)
    assert np.isclose(score_bytes(4, total, sizes), 4 * 4 * total**2 / 2, rtol=0.5)
