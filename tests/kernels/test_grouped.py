"""SwiGLUs of groups of rows in blocks, against each group by itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sami_jax.kernels.grouped import LARGEST, block_size, blocks_of, grouped_swiglu

ROWS, WIDTH, INNER = 50, 16, 24


def by_group(rows, sizes, gates, ups, downs):
    ends = np.cumsum(sizes)
    parts = [
        (jax.nn.silu(rows[end - size : end] @ gate) * (rows[end - size : end] @ up)) @ down
        for end, size, gate, up, down in zip(ends, sizes, gates, ups, downs, strict=True)
    ]
    return jnp.concatenate([*parts, jnp.zeros((len(rows) - ends[-1], WIDTH))])


@pytest.mark.parametrize(
    "sizes",
    [(13, 8, 17, 12), (0, 50, 0, 0), (50, 0, 0, 0), (1, 1, 1, 47), (0, 0, 0, 50), (9, 0, 3, 0), (0, 0, 0, 0)],
    ids=str,
)
def test_values_and_gradients_are_those_of_each_group_alone(sizes):
    rng = np.random.default_rng(0)
    shapes = ((ROWS, WIDTH), (4, WIDTH, INNER), (4, WIDTH, INNER), (4, INNER, WIDTH))
    rows, *stacks = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes)
    reached = (np.arange(ROWS) < sum(sizes))[:, None]

    def value(function, sizes):
        def loss(rows, *stacks):
            y = jnp.where(reached, function(rows, sizes, *stacks), 0)
            return jnp.sum(jnp.sin(y)), y

        return jax.value_and_grad(loss, argnums=range(4), has_aux=True)(rows, *stacks)

    (_, expected), expected_gradients = value(by_group, sizes)
    (_, y), gradients = value(jax.jit(grouped_swiglu), jnp.array(sizes, jnp.int32))
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)
    for own, other in zip(gradients, expected_gradients, strict=True):
        np.testing.assert_allclose(own, other, rtol=1e-4, atol=1e-4)


def test_blocks_by_hand():
    assert block_size(24, 3) == 8
    blocks = blocks_of(jnp.array([3, 0, 9], jnp.int32), 24)
    assert blocks.ends.tolist() == [1, 1, 3]
    assert blocks.real.sum(axis=1).tolist() == [3, 8, 1, 0, 0, 0]
    assert blocks.rows[0, :3].tolist() == [0, 1, 2] and blocks.rows[1].tolist() == list(range(3, 11))
    assert blocks.places[:12].tolist() == [0, 1, 2, *range(8, 17)]


@pytest.mark.parametrize(("rows", "groups", "size"), [(20_480, 8, LARGEST), (128, 8, 8), (1, 8, 8), (2_048, 8, 128)])
def test_padding_is_less_than_half(rows, groups, size):
    assert block_size(rows, groups) == size
