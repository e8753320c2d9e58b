"""From hidden states to log-probabilities of tokens, without an array of [tokens, vocabulary].

Tokens go through the unembedding a chunk at a time. The backward pass computes each chunk's logits again and adds the
gradient of the table up in float32.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from sami_jax.sharding import batch_shards_here, constrain

# Tokens unembedded at a time on each device that holds a share of the batch: bounds the logits in memory to this times V.
TOKEN_CHUNK = 1024


@jax.custom_vjp
def chosen_logprobs(hidden: jax.Array, table: jax.Array, targets: jax.Array) -> jax.Array:
    """log softmax(hidden @ table)[target] for hidden [N, D], table [D, V] and targets [N] -> [N] float32.

    The table, in whatever dtype, is cast to that of `hidden`; its gradient is rounded to its own dtype alone.
    """
    return _forward(hidden, table, targets)[0]


def _forward(hidden, table, targets):
    cast = table.astype(hidden.dtype)

    def chunk(hidden, targets):
        logits = _logits(hidden, cast)
        total = jax.nn.logsumexp(logits, axis=-1)
        return jnp.take_along_axis(logits, targets[:, None], axis=1)[:, 0] - total, total

    logprobs, totals = map_chunks(chunk, hidden, targets)
    return logprobs, (hidden, table, targets, totals)


def _backward(saved, cotangents):
    hidden, table, targets, totals = saved
    cast = table.astype(hidden.dtype)

    def chunk(table_gradient, arrays):
        hidden, targets, totals, cotangents = arrays
        probabilities = jnp.exp(_logits(hidden, cast) - totals[:, None])
        chosen = jnp.arange(cast.shape[1])[None] == targets[:, None]
        logits_gradient = ((chosen - probabilities) * cotangents[:, None]).astype(cast.dtype)
        table_gradient += jnp.matmul(hidden.T, logits_gradient, preferred_element_type=jnp.float32)
        return table_gradient, jnp.matmul(logits_gradient, cast.T)

    start = constrain(jnp.zeros(table.shape, jnp.float32), "embed", "vocab")
    table_gradient, hidden_gradient = jax.lax.scan(chunk, start, _split(hidden, targets, totals, cotangents))
    return _join(hidden_gradient).astype(hidden.dtype), table_gradient.astype(table.dtype), None


chosen_logprobs.defvjp(_forward, _backward)


def _logits(hidden: jax.Array, table: jax.Array) -> jax.Array:
    return constrain(jnp.matmul(hidden, table, preferred_element_type=jnp.float32), "batch", "vocab")


def map_chunks(function: Callable, *arrays: jax.Array):
    """Maps over chunks of the rows of [N, ...] arrays, one after the other."""
    mapped = jax.lax.map(lambda chunks: function(*chunks), _split(*arrays))
    return jax.tree.map(_join, mapped)


def _split(*arrays: jax.Array) -> tuple[jax.Array, ...]:
    """[N, ...] -> [chunks, N / chunks, ...]. A chunk takes every so many-th row, so that each device, which holds
    consecutive rows, has an equal share of every chunk."""
    n = arrays[0].shape[0]
    most = TOKEN_CHUNK * batch_shards_here()
    chunks = next(count for count in range(1, n + 1) if n % count == 0 and n // count <= most)
    return tuple(jnp.swapaxes(x.reshape(n // chunks, chunks, *x.shape[1:]), 0, 1) for x in arrays)


def _join(x: jax.Array) -> jax.Array:
    return jnp.swapaxes(x, 0, 1).reshape(-1, *x.shape[2:])
