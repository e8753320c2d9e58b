"""SwiGLUs of groups of rows, a block of one group's rows at a time: for GPUs, where XLA computes `ragged_dot` with every expert on every row.

Blocks are as MegaBlocks has them (Gale et al., arXiv 2211.15841): each group's rows fill whole blocks, the last of which is padded. So many
rows too much are computed as half a block for each group; none are dropped.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

LARGEST = 512  # rows of a block: enough to keep matrix units busy


class Blocks(NamedTuple):
    """Where R rows, sorted by group, stand in blocks."""

    rows: jax.Array  # [blocks, size] int32, a block's rows among the R; where there is none, any
    real: jax.Array  # [blocks, size] bool, whether there is one
    places: jax.Array  # [R] int32, a row's place in the blocks, laid end to end; of a row of no group: any
    ends: jax.Array  # [E] int32, the block behind a group's last; the first group's first is 0


def block_size(rows: int, groups: int) -> int:
    """A power of two about half the rows that a group has on average, so that padding is little."""
    return min(LARGEST, max(8, 1 << (max(rows // groups // 2, 1) - 1).bit_length()))


def blocks_of(sizes: jax.Array, rows: int) -> Blocks:
    """
    Args:
      sizes: [E] int32, rows of each group; they may be fewer than `rows` in all.
    """
    groups = sizes.shape[0]
    size = block_size(rows, groups)
    ends, blocks_each = jnp.cumsum(sizes), -(-sizes // size)
    block_ends = jnp.cumsum(blocks_each)
    block = jnp.arange(rows // size + groups)
    group = jnp.minimum(jnp.searchsorted(block_ends, block, side="right"), groups - 1)
    within = (block - (block_ends - blocks_each)[group])[:, None] * size + jnp.arange(size)[None]
    real = (within < sizes[group][:, None]) & (block < block_ends[-1])[:, None]
    own = jnp.minimum((ends - sizes)[group][:, None] + within, rows - 1)
    row = jnp.arange(rows)
    of_row = jnp.minimum(jnp.searchsorted(ends, row, side="right"), groups - 1)
    places = (block_ends - blocks_each)[of_row] * size + row - (ends - sizes)[of_row]
    return Blocks(own, real, jnp.minimum(places, block.shape[0] * size - 1), block_ends)


def grouped_swiglu(rows: jax.Array, sizes: jax.Array, gates: jax.Array, ups: jax.Array, downs: jax.Array) -> jax.Array:
    """SwiGLU of each row by its group's weights, [R, D] -> [R, D]. Of rows behind all groups whatever comes.

    Args:
      rows: [R, D], sorted by group.
      sizes: [E] int32, rows of each group.
      gates: [E, D, F], as `ups`; `downs` is [E, F, D].
    """
    blocks = blocks_of(sizes, rows.shape[0])
    y = _in_blocks(_into(rows, blocks), blocks.ends, gates, ups, downs)
    return _out_of(y, blocks)


def _swiglu(x: jax.Array, gate: jax.Array, up: jax.Array, down: jax.Array) -> jax.Array:
    return (jax.nn.silu(x @ gate) * (x @ up)) @ down


@jax.custom_vjp
def _in_blocks(x: jax.Array, ends: jax.Array, *stacks: jax.Array) -> jax.Array:
    """Blocks [blocks, size, D] -> alike; zero behind the last group. The backward pass keeps what came in and no more."""

    def of_group(y, group):
        (start, end), weights = group
        return jax.lax.fori_loop(start, end, lambda n, y: y.at[n].set(_swiglu(x[n], *weights)), y), None

    return jax.lax.scan(of_group, jnp.zeros_like(x), (_bounds(ends), stacks))[0]


def _backward(saved, cotangent):
    x, ends, *stacks = saved

    def of_group(x_total, group):
        (start, end), weights = group

        def of_block(n, totals):
            x_total, added = totals
            _, pull = jax.vjp(_swiglu, x[n], *weights)
            own, *more = pull(cotangent[n])
            return x_total.at[n].set(own), [
                total + one.astype(jnp.float32) for total, one in zip(added, more, strict=True)
            ]

        nothing = [jnp.zeros(weight.shape, jnp.float32) for weight in weights]
        x_total, added = jax.lax.fori_loop(start, end, of_block, (x_total, nothing))
        return x_total, [total.astype(weight.dtype) for total, weight in zip(added, weights, strict=True)]

    x_total, of_stacks = jax.lax.scan(of_group, jnp.zeros_like(x), (_bounds(ends), tuple(stacks)))
    return x_total, None, *of_stacks


_in_blocks.defvjp(lambda *given: (_in_blocks(*given), given), _backward)


def _bounds(ends: jax.Array) -> tuple[jax.Array, jax.Array]:
    return jnp.concatenate([jnp.zeros_like(ends[:1]), ends[:-1]]), ends


@jax.custom_vjp
def _into(rows: jax.Array, blocks: Blocks) -> jax.Array:
    """[R, D] into blocks, with zeros where there is no row. Each row stands in one place, so that gradients are gathered too."""
    return jnp.where(blocks.real[:, :, None], rows[blocks.rows], 0)


@jax.custom_vjp
def _out_of(x: jax.Array, blocks: Blocks) -> jax.Array:
    """The other way."""
    return x.reshape(-1, x.shape[-1])[blocks.places]


def _reached(rows: jax.Array, blocks: Blocks) -> jax.Array:
    """Zeros for rows of no group, whose places are another's."""
    count = jnp.sum(blocks.real)
    return jnp.where((jnp.arange(rows.shape[0]) < count)[:, None], rows, 0)


_into.defvjp(
    lambda rows, blocks: (_into(rows, blocks), blocks),
    lambda blocks, gradient: (_reached(_out_of(gradient, blocks), blocks), None),
)
_out_of.defvjp(
    lambda x, blocks: (_out_of(x, blocks), blocks),
    lambda blocks, gradient: (_into(gradient, blocks), None),
)
