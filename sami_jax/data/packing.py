"""Packed rows: a prefix, then the C responses that may follow it, end to end, and padding behind the last.

The prefix is computed once for all of its responses, and only a row's end is padding: response lengths may differ as they
like. Sizes that programs need at compile time travel with the rows.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp


class Sizes(NamedTuple):
    """Upper bounds, in tokens, for rows of one shape; known at compile time."""

    prefix: int  # P, of a prefix
    response: int  # L, of one response
    responses: int  # R, of all the responses of a row together


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PackedRows:
    tokens: jax.Array  # [N, T] int32
    prefix_lengths: jax.Array  # [N] int32, at least 1
    response_lengths: jax.Array  # [N, C] int32, may be 0
    sizes: Sizes = dataclasses.field(metadata={"static": True})

    @property
    def starts(self) -> jax.Array:
        """[N, C]: the place of each response's first token."""
        before = jnp.cumsum(self.response_lengths, axis=1) - self.response_lengths
        return self.prefix_lengths[:, None] + before

    def owners(self) -> jax.Array:
        """[N, T] int32: 0 at the prefix, j at response j = 1..C, -1 at padding."""
        places = jnp.arange(self.tokens.shape[1])
        begun = jnp.sum(places[None, :, None] >= self.starts[:, None, :], axis=-1)
        end = self.prefix_lengths + jnp.sum(self.response_lengths, axis=1)
        return jnp.where(places[None] < end[:, None], begun, -1)

    def positions(self, owners: jax.Array) -> jax.Array:
        """[N, T] int32: the place of each token in its own text, as if its response alone followed the prefix."""
        places = jnp.arange(self.tokens.shape[1])[None]
        earlier = self.starts - self.prefix_lengths[:, None]  # tokens of the responses before
        skipped = jnp.take_along_axis(earlier, jnp.maximum(owners - 1, 0), axis=1)
        return jnp.where(owners > 0, places - skipped, places)

    def scored(self) -> "Scored":
        """What is to be predicted: the responses' tokens, R places a row."""
        steps = jnp.arange(self.sizes.responses)[None]
        there = steps < jnp.sum(self.response_lengths, axis=1)[:, None]
        places = self.prefix_lengths[:, None] + steps
        first = jnp.any(places[:, :, None] == self.starts[:, None, :], axis=-1)
        places = jnp.minimum(places, self.tokens.shape[1] - 1)
        return Scored(
            targets=jnp.take_along_axis(self.tokens, places, axis=1),
            predictors=jnp.where(first, self.prefix_lengths[:, None], places) - 1,
            owners=jnp.where(there, jnp.take_along_axis(self.owners(), places, axis=1), -1),
        )

    def alone(self, chosen: jax.Array) -> "PackedRows":
        """Rows that keep one of their responses each, whose numbers (from 0) are `chosen` [N]."""
        start = jnp.take_along_axis(self.starts, chosen[:, None], axis=1)
        length = jnp.take_along_axis(self.response_lengths, chosen[:, None], axis=1)
        places = jnp.arange(self.sizes.prefix + self.sizes.response)[None]
        before = places < self.prefix_lengths[:, None]
        source = jnp.where(before, places, places - self.prefix_lengths[:, None] + start)
        tokens = jnp.take_along_axis(self.tokens, jnp.minimum(source, self.tokens.shape[1] - 1), axis=1)
        sizes = self.sizes._replace(responses=self.sizes.response)
        return PackedRows(tokens, self.prefix_lengths, length, sizes)


class Scored(NamedTuple):
    """Tokens to be predicted, [N, R] each; behind a row's last response, whatever comes."""

    targets: jax.Array  # token ids
    predictors: jax.Array  # the place whose hidden state predicts the token: a first token's is the prefix's last
    owners: jax.Array  # 1..C: of which response; -1 behind the last
