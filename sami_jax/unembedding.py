"""From hidden states to log-probabilities of tokens, without an array of [tokens, vocabulary].

Tokens go through the unembedding a chunk at a time. The backward pass computes each chunk's logits again and adds the
gradient of the table up in float32.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from sami_jax.sharding import constrain, shards_here

# Tokens unembedded at a time on each device that holds a share of the batch: bounds the logits in memory to this times V.
TOKEN_CHUNK = 1024
# Bytes of the table's gradient that each device computes from its own tokens, for the whole model width, before shares are added up.
TABLE_PART = 2**26


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
        added = jax.lax.map(lambda part: _part_gradient(part, logits_gradient), _in_parts(hidden, cast.shape[1]))
        return table_gradient + added, jnp.matmul(logits_gradient, cast.T)

    parts, _, *width = _in_parts(hidden, cast.shape[1]).shape
    start = jnp.zeros((parts, *width, cast.shape[1]), jnp.float32)
    start = constrain(start, None, "embed", None, "vocab")
    table_gradient, hidden_gradient = jax.lax.scan(chunk, start, _split(hidden, targets, totals, cotangents))
    table_gradient = jnp.swapaxes(table_gradient, 0, 1).reshape(table.shape)
    return _join(hidden_gradient).astype(hidden.dtype), table_gradient.astype(table.dtype), None


chosen_logprobs.defvjp(_forward, _backward)


def _logits(hidden: jax.Array, table: jax.Array) -> jax.Array:
    return constrain(jnp.matmul(hidden, table, preferred_element_type=jnp.float32), "batch", "vocab")


def _in_parts(hidden: jax.Array, vocabulary: int) -> jax.Array:
    """[N, D] -> [parts, N, S, D / (S parts)], where S devices split the model width, and each has a share of every part.

    Their shares of the table's gradient are computed part by part: every device's tokens have a say in all of it, so that it is
    whole on every device until it is added up.
    """
    n, d = hidden.shape
    own = d // (devices := shards_here("embed"))
    most = max(TABLE_PART * shards_here("vocab") // (4 * vocabulary * devices), 1)
    size = own if devices == 1 else next(size for size in range(min(most, own), 0, -1) if own % size == 0)
    return jnp.moveaxis(hidden.reshape(n, devices, own // size, size), 2, 0)


def _part_gradient(part: jax.Array, logits_gradient: jax.Array) -> jax.Array:
    """[N, S, d] and [N, V] -> [S, d, V] float32."""
    rows = part.reshape(len(part), -1).T
    product = jnp.matmul(rows, logits_gradient, preferred_element_type=jnp.float32)
    return constrain(product.reshape(*part.shape[1:], -1), "embed", None, "vocab")


def map_chunks(function: Callable, *arrays: jax.Array):
    """Maps over chunks of the rows of [N, ...] arrays, one after the other."""
    mapped = jax.lax.map(lambda chunks: function(*chunks), _split(*arrays))
    return jax.tree.map(_join, mapped)


def _split(*arrays: jax.Array) -> tuple[jax.Array, ...]:
    """[N, ...] -> [chunks, N / chunks, ...]. A chunk takes every so many-th row, so that each device, which holds
    consecutive rows, has an equal share of every chunk."""
    n = arrays[0].shape[0]
    most = TOKEN_CHUNK * shards_here("batch")
    chunks = next(count for count in range(1, n + 1) if n % count == 0 and n // count <= most)
    return tuple(jnp.swapaxes(x.reshape(n // chunks, chunks, *x.shape[1:]), 0, 1) for x in arrays)


def _join(x: jax.Array) -> jax.Array:
    return jnp.swapaxes(x, 0, 1).reshape(-1, *x.shape[2:])
