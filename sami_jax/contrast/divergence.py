"""How far a model's next tokens are from a reference's: KL over the whole vocabulary, without an array of [tokens, vocabulary].

The columns of both tables are taken a part at a time, as in `unembedding`.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from sami_jax.contrast.unembedding import TableParts, logits_of, map_chunks, pulled_back
from sami_jax.sharding import constrain


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def divergences(
    hidden: jax.Array, table: jax.Array, other: jax.Array, other_table: jax.Array, cap: float | None = None
) -> jax.Array:
    """KL(softmax(hidden @ table) || softmax(other @ other_table)), nats, [N] float32.

    Args:
      hidden, other: [N, D]; both tables are cast to their dtype.
      table: [D, V], in any dtype; its gradient is rounded to its own dtype alone.
      other, other_table: the reference's, which has no gradient.
      cap: soft, of the logits of both; None for none.
    """
    return _forward(hidden, table, other, other_table, cap)[0]


class _Seen(NamedTuple):
    """Of the columns so far, float32, [N] each. a: our logits, b: the reference's."""

    largest: jax.Array  # of a
    total: jax.Array  # of exp(a - largest)
    apart: (
        jax.Array
    )  # of exp(a - largest) ((a - largest) - (b - other_largest)): large logits are taken off before sums round
    other_largest: jax.Array  # of b
    other_total: jax.Array  # of exp(b - other_largest)


def _forward(hidden, table, other, other_table, cap):
    parts, other_parts = TableParts(table), TableParts(other_table)

    def add_part(seen: _Seen, number):
        part = parts.take(table, number, hidden.dtype)
        other_part = other_parts.take(other_table, number, other.dtype)
        _, new = parts.columns(number)

        def chunk(hidden, other, *seen):
            seen = _Seen(*seen)
            a, b = logits_of(hidden, part, cap), logits_of(other, other_part, cap)
            a, largest, fell = _below_largest(a, new, seen.largest)
            b, other_largest, other_fell = _below_largest(b, new, seen.other_largest)
            weights = jnp.exp(a)
            ratios = jnp.where(new[None], a - b, 0)
            before = seen.apart + seen.total * (fell - other_fell)
            return _Seen(
                largest,
                seen.total * jnp.exp(fell) + jnp.sum(weights, axis=-1),
                before * jnp.exp(fell) + jnp.sum(weights * ratios, axis=-1),
                other_largest,
                seen.other_total * jnp.exp(other_fell) + jnp.sum(jnp.exp(b), axis=-1),
            )

        return map_chunks(chunk, hidden, other, *seen), None

    none = constrain(jnp.zeros(hidden.shape[0], jnp.float32), "batch")
    least = none + jnp.finfo(jnp.float32).min / 4  # -inf less -inf is no number
    seen = jax.lax.scan(add_part, _Seen(least, none, none, least, none), jnp.arange(parts.count))[0]
    log_total, log_other_total = jnp.log(seen.total), jnp.log(seen.other_total)
    kl = seen.apart / seen.total - (log_total - log_other_total)
    return kl, (hidden, table, other, other_table, seen.largest + log_total, seen.other_largest + log_other_total, kl)


def _below_largest(logits, new, largest_before):
    """The new columns' logits less the largest so far; it; and how far those of before fall by it."""
    logits = jnp.where(new[None], logits, -jnp.inf)
    largest = jnp.maximum(largest_before, jnp.max(logits, axis=-1))
    return logits - largest[:, None], largest, largest_before - largest


def _backward(cap, saved, cotangents):
    hidden, table, other, other_table, totals, other_totals, kl = saved
    other_parts = TableParts(other_table)

    def of_part(number, columns):
        other_part = other_parts.take(other_table, number, other.dtype)

        def logits_gradient(logits, other, totals, other_totals, kl, cotangents):
            """Of KL = sum_v p_v (log p_v - log q_v): p_v (log p_v - log q_v - KL)."""
            log_ratios = logits - logits_of(other, other_part, cap) - (totals - other_totals)[:, None]
            return jnp.exp(logits - totals[:, None]) * (log_ratios - kl[:, None]) * cotangents[:, None]

        return logits_gradient

    return *pulled_back(hidden, table, cap, of_part, other, totals, other_totals, kl, cotangents), None, None


divergences.defvjp(_forward, _backward)
