"""From hidden states to log-probabilities of tokens, without an array of [tokens, vocabulary].

The table's columns are taken a part at a time, so that a part of it alone lies whole on each device, and the tokens go through
each part a chunk at a time. The backward pass computes the logits again and adds the gradient of the table up in float32.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from sami_jax.models.attention import soft_capped
from sami_jax.sharding import constrain, shards_here

# Tokens unembedded at a time on each device that holds a share of the batch: bounds the logits in memory to this times a part's columns.
TOKEN_CHUNK = 1024
# Bytes of a part of the table, in float32: so large is the gradient of it that each device computes from its own tokens, before
# shares are added up.
TABLE_PART = 2**26
LANES = 128  # of a TPU: parts are multiples of it


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def chosen_logprobs(hidden: jax.Array, table: jax.Array, targets: jax.Array, cap: float | None = None) -> jax.Array:
    """log softmax(hidden @ table)[target] for hidden [N, D], table [D, V] and targets [N] -> [N] float32.

    The table, in whatever dtype, is cast to that of `hidden`; its gradient is rounded to its own dtype alone.

    Args:
      cap: soft, of the logits; None for none.
    """
    return _forward(hidden, table, targets, cap)[0]


class Seen(NamedTuple):
    """Of the logits [N, .] of the parts so far, float32, [N] each."""

    largest: jax.Array
    total: jax.Array  # of exp(logit - largest)
    chosen: jax.Array  # the target's logit, 0 before its part


def _forward(hidden, table, targets, cap):
    table_parts = TableParts(table)

    def add_part(seen: Seen, number):
        part = table_parts.take(table, number, hidden.dtype)
        columns, new = table_parts.columns(number)

        def chunk(hidden, targets, *seen):
            seen = Seen(*seen)
            logits = jnp.where(new[None], logits_of(hidden, part, cap), -jnp.inf)
            largest = jnp.maximum(seen.largest, jnp.max(logits, axis=-1))
            total = seen.total * jnp.exp(seen.largest - largest) + jnp.sum(jnp.exp(logits - largest[:, None]), axis=-1)
            chosen = jnp.where(new[None] & (columns[None] == targets[:, None]), logits, 0)
            return Seen(largest, total, seen.chosen + jnp.sum(chosen, axis=-1))

        return map_chunks(chunk, hidden, targets, *seen), None

    n = hidden.shape[0]
    none = constrain(jnp.zeros(n, jnp.float32), "batch")
    seen = jax.lax.scan(add_part, Seen(none - jnp.inf, none, none), jnp.arange(table_parts.count))[0]
    totals = seen.largest + jnp.log(seen.total)
    return seen.chosen - totals, (hidden, table, targets, totals)


def _backward(cap, saved, cotangents):
    hidden, table, targets, totals = saved

    def of_part(number, columns):
        def logits_gradient(logits, targets, totals, cotangents):
            chosen = columns[None] == targets[:, None]
            return (chosen - jnp.exp(logits - totals[:, None])) * cotangents[:, None]

        return logits_gradient

    return *pulled_back(hidden, table, cap, of_part, targets, totals, cotangents), None


chosen_logprobs.defvjp(_forward, _backward)


def pulled_back(
    hidden: jax.Array, table: jax.Array, cap: float | None, of_part: Callable, *arrays: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The gradients of hidden [N, D] and table [D, V], each in its own dtype, from those of the logits hidden @ table.

    Args:
      cap: soft, of those logits.
      of_part: takes the number of a part and the numbers of its columns [c]; returns what takes a chunk's logits [n, c] and its rows of
        `arrays`, [N, ...] each, to their gradient [n, c].
    """
    table_parts = TableParts(table)

    def add_part(gradients, number):
        hidden_gradient, table_gradient = gradients
        part = table_parts.take(table, number, hidden.dtype)
        columns, new = table_parts.columns(number)
        logits_gradient = of_part(number, columns)

        def chunk(part_gradient, arrays):
            hidden, *others = arrays
            logits = logits_of(hidden, part, cap)
            gradient = logits_gradient(logits, *others)
            if cap is not None:  # of cap tanh(x / cap): 1 - tanh(x / cap)^2
                gradient = gradient * (1 - jnp.square(logits / cap))
            gradient = jnp.where(new[None], gradient, 0).astype(part.dtype)
            added = jnp.matmul(hidden.T, gradient, preferred_element_type=jnp.float32)
            hidden_gradient = jnp.matmul(gradient, part.T, preferred_element_type=jnp.float32)
            return part_gradient + constrain(added, "embed", "vocab"), hidden_gradient

        start = constrain(jnp.zeros(part.shape, jnp.float32), "embed", "vocab")
        part_gradient, added = jax.lax.scan(chunk, start, _split(hidden, *arrays))
        return (hidden_gradient + _join(added), table_parts.add(table_gradient, number, part_gradient)), None

    hidden_gradient = constrain(jnp.zeros(hidden.shape, jnp.float32), "batch", "activation")
    start = (hidden_gradient, constrain(jnp.zeros(table.shape, jnp.float32), "embed", "vocab"))
    hidden_gradient, table_gradient = jax.lax.scan(add_part, start, jnp.arange(table_parts.count))[0]
    return hidden_gradient.astype(hidden.dtype), table_gradient.astype(table.dtype)


class TableParts:
    """Parts of a table's columns. Where devices split the vocabulary, each has an equal share of every part.

    The last part begins early where the columns do not divide; what it has in common with the one before counts there.
    """

    def __init__(self, table: jax.Array):
        d, vocabulary = table.shape
        self.devices = shards_here("vocab")
        self.own = vocabulary // self.devices  # columns of a device
        most = TABLE_PART // (4 * d * LANES) * LANES
        self.size = min(max(most // self.devices, LANES), self.own)  # of them in a part
        self.count = -(-self.own // self.size)

    def take(self, table: jax.Array, number: jax.Array, dtype) -> jax.Array:
        """Part `number`, [D, devices * size]."""
        part = jax.lax.dynamic_slice_in_dim(self._apart(table), self._start(number), self.size, axis=2)
        return constrain(part.reshape(table.shape[0], -1), "embed", "vocab").astype(dtype)

    def columns(self, number: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The numbers of its columns in the whole table, and which of them no part before has, [devices * size]."""
        own = self._start(number) + jnp.arange(self.size)
        columns = jnp.arange(self.devices)[:, None] * self.own + own[None]
        return columns.reshape(-1), jnp.tile(own >= number * self.size, self.devices)

    def add(self, table: jax.Array, number: jax.Array, part: jax.Array) -> jax.Array:
        """The table with `part` added where it was taken."""
        apart, start = self._apart(table), self._start(number)
        own = jax.lax.dynamic_slice_in_dim(apart, start, self.size, axis=2) + part.reshape(len(part), self.devices, -1)
        return jax.lax.dynamic_update_slice_in_dim(apart, own, start, axis=2).reshape(table.shape)

    def _start(self, number: jax.Array) -> jax.Array:
        return jnp.minimum(number * self.size, self.own - self.size)

    def _apart(self, table: jax.Array) -> jax.Array:
        return table.reshape(table.shape[0], self.devices, self.own)


def logits_of(hidden: jax.Array, part: jax.Array, cap: float | None) -> jax.Array:
    """[n, columns] float32 of hidden states [n, D] and a part of a table."""
    logits = constrain(jnp.matmul(hidden, part, preferred_element_type=jnp.float32), "batch", "vocab")
    return soft_capped(logits, cap)


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
