"""Grouped-query attention: of rows to themselves, packed ones included, and of one new token to a cache.

Scores and softmax are in float32. Shapes: queries [N, T, H, head_dim], keys and values [N, S, K, head_dim], where H / K
query heads share one key head.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sami_jax.data.packing import Sizes
from sami_jax.models.cache import LayerCache, slot_positions

# (queries, keys, values of the new tokens) -> (like queries, what to keep of keys and values). Who may see whom, and what
# was said before, is closed over.
Attend = Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, Any]]

# Finite, so that a row with nothing to attend to (padding) gives a uniform softmax instead of NaN.
MASKED = -1e30
# Queries are taken in this many blocks, of this many tokens at least: keys behind a block are not touched.
BLOCKS = 8
SMALLEST_BLOCK = 128


def causal_attention(
    positions: jax.Array,
    window: int | jax.Array | None,
    owners: jax.Array | None = None,
    sizes: Sizes | None = None,
    cap: float | None = None,
    ahead: int = 0,
) -> Attend:
    """Causal attention of rows to themselves, a block of queries at a time; keeps keys and values for a cache.

    Args:
      positions: [N or 1, S] int32, the place of each token in its own text.
      window: latest positions that a query sees, its own included; None for all.
      owners: [N, T] int32 for packed rows, as `PackedRows.owners`: a response sees the prefix and itself, as if it alone
        followed; None for rows of one text.
      sizes: bounds of packed rows. Between the longest prefix and the longest response before a block lie keys that none
        of its queries sees: they are never touched.
      cap: soft, of scores; None for none.
      ahead: of the S tokens, so many first ones have keys and values alone.
    """
    blocks = []
    for queries, seen in _blocks(positions.shape[1] - ahead, sizes, ahead):
        own = slice(queries.start + ahead, queries.stop + ahead)
        places = np.concatenate([np.arange(part.start, part.stop) for part in seen])
        mask = jnp.asarray(np.arange(own.start, own.stop)[:, None] >= places[None])[None]
        if window is not None:
            mask &= positions[:, own, None] - _parts(positions, seen)[:, None, :] < window
        if owners is not None:
            mask &= ~_hidden_from(owners[:, queries, None], _parts(owners, seen)[:, None, :])
        blocks.append((queries, seen, mask))

    def attend(q: jax.Array, k: jax.Array, v: jax.Array):
        out = [_attend(q[:, queries], _parts(k, seen), _parts(v, seen), mask, cap) for queries, seen, mask in blocks]
        return jnp.concatenate(out, axis=1), (k, v)

    return attend


def score_bytes(heads: int, total: int, sizes: Sizes | None = None) -> int:
    """What `causal_attention` holds of one row in float32 for the gradient of a layer, bytes: a number for each query, each key that
    it looks at, and each head.

    Args:
      total, sizes: of the row, tokens.
    """
    looks = ((own, part) for own, seen in _blocks(total, sizes) for part in seen)
    return 4 * heads * sum((own.stop - own.start) * (part.stop - part.start) for own, part in looks)


def _blocks(total: int, sizes: Sizes | None, ahead: int = 0) -> Iterator[tuple[slice, list[slice]]]:
    """Queries that are taken together, and the keys that any of them sees."""
    size = max(SMALLEST_BLOCK, -(-total // BLOCKS))
    for start in range(0, total, size):
        queries = slice(start, min(start + size, total))
        seen = [slice(0, queries.stop + ahead)]
        if sizes is not None and (own := start - sizes.response) > sizes.prefix:
            seen = [slice(0, sizes.prefix), slice(own, queries.stop)]
        yield queries, seen


def _hidden_from(owners: jax.Array, key_owners: jax.Array) -> jax.Array:
    """Where a query may not see a key: responses do not see one another."""
    return (key_owners != 0) & (key_owners != owners)


def _parts(x: jax.Array, slices: list[slice]) -> jax.Array:
    return jnp.concatenate([x[:, part] for part in slices], axis=1) if len(slices) > 1 else x[:, slices[0]]


def cached_attention(
    cache: LayerCache, positions: jax.Array, window: int | jax.Array | None, cap: float | None, reach: int | None
) -> Attend:
    """One new token a row, written to the cache and attending to all that lies in it.

    Args:
      positions: [R] int32, of the new tokens.
      reach: as `reach_of` has it, of the rows that count: no position of theirs is as large. None for all of the cache.
    """
    reach = reach or cache.slots
    slots = slot_positions(positions, cache.slots)
    mask = (slots >= 0) & (slots <= positions[:, None])
    if window is not None:
        mask &= positions[:, None] - slots < window

    def attend(q: jax.Array, k: jax.Array, v: jax.Array):
        written = cache.write(k, v, positions, reach)
        queries = _scaled_by_key_head(q, k)[:, 0]

        def scores(block: slice, keys: jax.Array) -> jax.Array:
            own = jnp.einsum("rkgh,rkhs->rkgs", queries, keys, preferred_element_type=jnp.float32)
            return jnp.where(mask[:, None, None, block], soft_capped(own, cap), MASKED)

        def seen(weights: jax.Array, values: jax.Array) -> jax.Array:
            weights = weights.astype(v.dtype)
            return jnp.einsum("rkgs,rksh->rkgh", weights, values, preferred_element_type=jnp.float32)

        blocks, keys, values = zip(*written.read(reach), strict=True)
        weights = _softmax(list(map(scores, blocks, keys)))
        out = functools.reduce(jnp.add, map(seen, weights, values))
        return out.astype(v.dtype).reshape(q.shape), written

    return attend


def _softmax(parts: list[jax.Array]) -> list[jax.Array]:
    """Over the last axes of all parts, [..., S] each. A further part of masked scores changes no bit of the others."""
    most = functools.reduce(jnp.maximum, [part.max(axis=-1, keepdims=True) for part in parts])
    parts = [jnp.exp(part - most) for part in parts]
    total = functools.reduce(jnp.add, [part.sum(axis=-1, keepdims=True) for part in parts])
    return [part / total for part in parts]


def _attend(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array, cap: float | None) -> jax.Array:
    """mask [N or 1, T, S]: True where query t may see key s."""
    queries = _scaled_by_key_head(q, k).transpose(0, 2, 3, 1, 4)
    k, v = k.swapaxes(1, 2), v.swapaxes(1, 2)
    scores = jnp.einsum("nkqh,nksh->nkqs", _as_rows(queries), k, preferred_element_type=jnp.float32)
    scores = jnp.where(mask[:, None, None], soft_capped(scores, cap).reshape(*queries.shape[:-1], -1), MASKED)
    weights = jax.nn.softmax(scores, axis=-1).astype(v.dtype)
    out = jnp.einsum("nkqs,nksh->nkqh", _as_rows(weights), v).reshape(queries.shape)
    return out.transpose(0, 3, 1, 2, 4).reshape(q.shape)


def _as_rows(x: jax.Array) -> jax.Array:
    """[N, K, H / K, T, ...]: queries that share a key head, as rows of one matrix. See `layers._product`."""
    return x.reshape(*x.shape[:2], -1, x.shape[-1])


def soft_capped(x: jax.Array, cap: float | None) -> jax.Array:
    """cap tanh(x / cap); x where there is none."""
    return x if cap is None else cap * jnp.tanh(x / cap)


def _scaled_by_key_head(q: jax.Array, k: jax.Array) -> jax.Array:
    """[N, T, H, head_dim] -> [N, T, K, H / K, head_dim], divided by the root of head_dim."""
    n, time, heads, head_dim = q.shape
    return q.reshape(n, time, k.shape[2], heads // k.shape[2], head_dim) * jnp.asarray(head_dim**-0.5, q.dtype)
