"""Grouped-query attention: over one sequence, over a cache, and over a prefix shared by several responses.

Scores and softmax are in float32. Shapes: queries [N, T, H, head_dim], keys and values [N, S, K, head_dim], where H / K
query heads share one key head.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from sami_jax.models.cache import Cache, slot_positions

# (queries, keys, values of the new tokens) -> (like queries, what to keep of keys and values). Who may see whom, and what
# was said before, is closed over.
Attend = Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, Any]]

# Finite, so that a row with nothing to attend to (padding) gives a uniform softmax instead of NaN.
MASKED = -1e30


def masked_attention(positions: jax.Array, valid: jax.Array | None, window: int | None) -> Attend:
    """Causal attention of a sequence to itself.

    Args:
      positions: [N, T] int32; query t sees key s where s is at no later position.
      valid: [N, T] bool, False at padding; None where causality hides it already.
      window: latest positions that a query sees, its own included; None for all.
    """
    mask = _visible(positions[:, :, None] - positions[:, None, :], window)
    if valid is not None:
        mask &= valid[:, None, :]
    return lambda q, k, v: (_attend(q, k, v, mask), None)


def prompt_attention(positions: jax.Array, window: int | None) -> Attend:
    """As `masked_attention`, keeping keys and values for a cache."""
    mask = _visible(positions[:, :, None] - positions[:, None, :], window)
    return lambda q, k, v: (_attend(q, k, v, mask), Cache(k, v))


def cached_attention(cache: Cache, layer: jax.Array, positions: jax.Array, window: int | None) -> Attend:
    """One new token a row, written to the cache and attending to all that lies in it.

    Args:
      positions: [R, 1] int32, of the new tokens.
    """
    slots = slot_positions(positions[:, 0], cache.keys.shape[2])
    mask = _visible(positions[:, :, None] - slots[:, None, :], window) & (slots >= 0)[:, None, :]

    def attend(q: jax.Array, k: jax.Array, v: jax.Array):
        written = cache.write(layer, k, v, positions)
        return _attend(q, written.keys[layer], written.values[layer], mask), written

    return attend


def shared_prefix_attention(prefix_lengths: jax.Array, prefix: int, count: int, window: int | None) -> Attend:
    """Attention over rows packed as [prefix | response 1 | ... | response C], without a mask over the packed row.

    The prefix sees itself; each response sees the prefix and itself, as if it alone followed. Two shapes of scores, over
    the prefix and over the response, meet in one softmax, so that the result and its gradient are those of C rows.

    Args:
      prefix_lengths: [N] int32; the rest of the P prefix places is padding.
      prefix: P, places of the prefix in the packed row.
      count: C, responses of equal padded length L; the row has P + C L places.
      window: as in `masked_attention`.
    """

    def attend(q: jax.Array, k: jax.Array, v: jax.Array):
        n, total, heads, head_dim = q.shape
        length = (total - prefix) // count
        places = jnp.arange(prefix)[None]
        causal = _visible(places[:, :, None] - places[:, None, :], window)
        prefix_out = _attend(q[:, :prefix], k[:, :prefix], v[:, :prefix], causal)

        def responses(x):  # [N, C L, ...] of the packed row
            return x[:, prefix:].reshape(n, count, length, *x.shape[2:])

        queries = responses(_scaled_by_key_head(q, k))
        own_keys, own_values = responses(k), responses(v)
        to_prefix = jnp.einsum("nclkgh,npkh->nkgclp", queries, k[:, :prefix], preferred_element_type=jnp.float32)
        to_own = jnp.einsum("nclkgh,ncmkh->nkgclm", queries, own_keys, preferred_element_type=jnp.float32)
        steps = jnp.arange(length)
        distance = prefix_lengths[:, None, None] + steps[None, :, None] - places[:, None, :]
        sees_prefix = _visible(distance, window) & (places < prefix_lengths[:, None])[:, None, :]
        sees_own = _visible(steps[:, None] - steps[None, :], window)
        scores = jnp.concatenate(
            [
                jnp.where(sees_prefix[:, None, None, None], to_prefix, MASKED),
                jnp.where(sees_own[None, None, None, None], to_own, MASKED),
            ],
            axis=-1,
        )
        weights = jax.nn.softmax(scores, axis=-1).astype(v.dtype)
        out = jnp.einsum("nkgclp,npkh->nclkgh", weights[..., :prefix], v[:, :prefix])
        out += jnp.einsum("nkgclm,ncmkh->nclkgh", weights[..., prefix:], own_values)
        return jnp.concatenate([prefix_out, out.reshape(n, count * length, heads, head_dim)], axis=1), None

    return attend


def _attend(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array) -> jax.Array:
    """mask [N or 1, T, S]: True where query t may see key s."""
    scores = jnp.einsum("ntkgh,nskh->nkgts", _scaled_by_key_head(q, k), k, preferred_element_type=jnp.float32)
    weights = jax.nn.softmax(jnp.where(mask[:, None, None], scores, MASKED), axis=-1).astype(v.dtype)
    return jnp.einsum("nkgts,nskh->ntkgh", weights, v).reshape(q.shape)


def _scaled_by_key_head(q: jax.Array, k: jax.Array) -> jax.Array:
    """[N, T, H, head_dim] -> [N, T, K, H / K, head_dim], divided by the root of head_dim."""
    n, time, heads, head_dim = q.shape
    return q.reshape(n, time, k.shape[2], heads // k.shape[2], head_dim) * jnp.asarray(head_dim**-0.5, q.dtype)


def _visible(distance: jax.Array, window: int | None) -> jax.Array:
    visible = distance >= 0
    return visible if window is None else visible & (distance < window)
