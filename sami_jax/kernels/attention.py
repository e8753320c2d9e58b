"""Attention by vendors' kernels: cuDNN on NVIDIA GPUs, Splash on TPUs. Each equals the XLA path within its precision.

The kernels know neither packed rows nor prefixes that several responses share. So rows are taken apart into two shapes, prefixes
alone and responses behind their prefix, and put together again: everything but attention still computes packed rows.
"""

import functools
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from sami_jax.data.packing import PackedRows
from sami_jax.sharding import partition_spec

# (queries [N, T, H, head_dim], keys and values [N, S, K, head_dim], first_key, window) -> like queries. Query t stands at key
# S - T + t, sees none behind it and none before `first_key` [N] (None: it is 0), and `window` latest ones (None: all).
Kernel = Callable[[jax.Array, jax.Array, jax.Array, jax.Array | None, int | None], jax.Array]

LANES = 128  # what Splash's sizes must be multiples of
# Its blocks, tokens at most: as large as its gradient's numbers have room in a core's memory (jax's own default is LANES for all).
QUERIES, KEYS, KEYS_AT_ONCE = 768, 1024, 512


def whole_attention(kernel: Kernel, window: int | None, ahead: int = 0):
    """Causal attention of rows of one text to themselves, as `attention.causal_attention`; keeps keys and values for a cache."""

    def attend(q: jax.Array, k: jax.Array, v: jax.Array):
        first_key = jnp.zeros(q.shape[0], jnp.int32) if ahead else None
        return kernel(q, k, v, first_key, window), (k, v)

    return attend


def packed_attention(kernel: Kernel, rows: PackedRows, owners: jax.Array, window: int | None):
    """Attention over packed rows, as `attention.causal_attention` with owners."""
    n, total = rows.tokens.shape
    count, prefix, length = rows.response_lengths.shape[1], rows.sizes.prefix, rows.sizes.response
    # Prefixes end where their keys do, so that distances in the array are distances in the text.
    first_key = prefix - rows.prefix_lengths
    prefix_places = jnp.maximum(jnp.arange(prefix)[None] - first_key[:, None], 0)
    own_places = jnp.minimum(rows.starts[:, :, None] + jnp.arange(length)[None, None], total - 1).reshape(n, -1)
    places = jnp.broadcast_to(jnp.arange(total)[None], (n, total))
    response = jnp.maximum(owners - 1, 0)
    step = places - jnp.take_along_axis(rows.starts, response, axis=1)
    sources = jnp.where(owners > 0, prefix + response * length + step, jnp.minimum(places, prefix - 1))

    def of_responses(x: jax.Array) -> jax.Array:
        return _at(x, own_places).reshape(n * count, length, *x.shape[2:])

    def behind_prefix(x: jax.Array) -> jax.Array:
        return jnp.concatenate([jnp.repeat(_at(x, prefix_places), count, axis=0), of_responses(x)], axis=1)

    def attend(q: jax.Array, k: jax.Array, v: jax.Array):
        first = kernel(q[:, :prefix], k[:, :prefix], v[:, :prefix], None, window)
        rest = kernel(of_responses(q), behind_prefix(k), behind_prefix(v), jnp.repeat(first_key, count), window)
        together = jnp.concatenate([first, rest.reshape(n, count * length, *q.shape[2:])], axis=1)
        return _at(together, sources), (k, v)

    return attend


def _at(x: jax.Array, places: jax.Array) -> jax.Array:
    """[N, T, heads, head_dim] at places [N, R]."""
    return jnp.take_along_axis(x, places[:, :, None, None], axis=1)


def dot_product(q, k, v, first_key, window, implementation: Literal["xla", "cudnn"]) -> jax.Array:
    """`jax.nn.dot_product_attention`."""
    if first_key is None:
        local = None if window is None else (window - 1, 0)
        return jax.nn.dot_product_attention(
            q, k, v, is_causal=True, local_window_size=local, implementation=implementation
        )
    keys = jnp.arange(k.shape[1])
    distance = (keys[-q.shape[1] :, None] - keys[None])[None]
    mask = (distance >= 0) & (keys[None] >= first_key[:, None])[:, None]
    if window is not None:
        mask &= distance < window
    return jax.nn.dot_product_attention(q, k, v, mask=mask[:, None], implementation=implementation)


def splash(q, k, v, first_key, window, interpret: bool = False) -> jax.Array:
    """JAX's Splash attention for TPUs (`jax.experimental.pallas.ops.tpu.splash_attention`), on each device's own rows and heads."""
    if first_key is None:
        first_key = jnp.zeros(q.shape[0], jnp.int32)
    local = functools.partial(_splash, window=window, interpret=interpret)
    if jax.sharding.get_abstract_mesh().empty:
        return local(q, k, v, first_key)
    queries = partition_spec(("batch", None, "heads", None))
    keys = partition_spec(("batch", None, "kv_heads", None))
    specs = (queries, keys, keys, PartitionSpec(*partition_spec(("batch",))))
    return jax.shard_map(local, in_specs=specs, out_specs=queries, check_vma=False)(q, k, v, first_key)


def block_size(length: int, most: int) -> int:
    """Tokens of the blocks, `most` at most, that so many are taken in. A block is taken to cost as much as LANES tokens more, so that
    there are few of them, and little padding."""

    def cost(size: int) -> tuple[int, int]:
        blocks = -(-length // size)
        return blocks * (size + LANES), -size

    return min(range(LANES, most + 1, LANES), key=cost)


def _splash(q, k, v, first_key, *, window: int | None, interpret: bool) -> jax.Array:
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash_kernel
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

    n, steps, heads, head_dim = q.shape
    kv_heads, group = k.shape[2], heads // k.shape[2]
    # Queries are padded behind, keys before, so that the last true ones stay aligned up to `behind`.
    of_queries = block_size(steps, QUERIES)
    behind = -steps % of_queries
    of_keys = block_size(k.shape[1] + behind, KEYS)
    before = -(k.shape[1] + behind) % of_keys
    q = jnp.pad(q * jnp.asarray(head_dim**-0.5, q.dtype), ((0, 0), (0, behind), (0, 0), (0, 0)))
    k, v = (jnp.pad(x, ((0, 0), (before, behind), (0, 0), (0, 0))) for x in (k, v))
    shape = (q.shape[1], k.shape[1])
    offset = shape[1] - shape[0]
    mask = masks.CausalMask(shape, offset) if window is None else masks.LocalMask(shape, (window - 1, 0), offset)
    at_once = max(size for size in range(LANES, min(of_keys, KEYS_AT_ONCE) + 1, LANES) if of_keys % size == 0)
    sizes = splash_kernel.BlockSizes(
        block_q=of_queries,
        block_kv=of_keys,
        block_kv_compute=at_once,
        block_q_dkv=of_queries,
        block_kv_dkv=of_keys,
        block_kv_dkv_compute=at_once,
        block_q_dq=of_queries,
        block_kv_dq=of_keys,
    )
    kernel: Any = splash_kernel.make_splash_mqa_single_device(
        masks.MultiHeadMask([mask] * group), block_sizes=sizes, interpret=interpret
    )
    padding = (jnp.arange(shape[1])[None] < (first_key + before)[:, None]).astype(jnp.int32)
    segments = splash_kernel.SegmentIds(jnp.zeros((n, shape[0]), jnp.int32), padding)
    q = q.reshape(n, shape[0], kv_heads, group, head_dim).transpose(0, 2, 3, 1, 4)
    k, v = (x.transpose(0, 2, 1, 3) for x in (k, v))
    by_head = jax.vmap(kernel, in_axes=(0, 0, 0, None))
    out = jax.vmap(by_head)(q, k, v, segments)
    return out.transpose(0, 3, 1, 2, 4).reshape(n, shape[0], heads, head_dim)[:, :steps]


KERNELS: dict[str, Kernel] = {
    "cudnn": functools.partial(dot_product, implementation="cudnn"),
    "splash": splash,
}
BACKENDS = ("xla", *KERNELS)
