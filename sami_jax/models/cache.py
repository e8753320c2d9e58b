"""The key-value cache: a ring of slots for each row. The token at position p lies in slot p mod S, so rows may be at
different positions, and a sliding window needs no more slots than it is wide."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from sami_jax.models.config import ModelConfig
from sami_jax.sharding import constrain


class Cache(NamedTuple):
    """Keys and values of all layers, each [layers, R, S, K, head_dim]."""

    keys: jax.Array
    values: jax.Array

    def write(self, layer: jax.Array, keys: jax.Array, values: jax.Array, positions: jax.Array) -> "Cache":
        """Puts one layer's keys and values [R, T, K, head_dim] where `positions` [R, T] belong."""
        rows, slots = jnp.arange(positions.shape[0])[:, None], positions % self.keys.shape[2]
        return Cache(
            self.keys.at[layer, rows, slots].set(keys.astype(self.keys.dtype)),
            self.values.at[layer, rows, slots].set(values.astype(self.values.dtype)),
        )

    def admit(self, prompts: "Cache", lengths: jax.Array, rows: jax.Array) -> "Cache":
        """Fills `rows` [G] with prompts of `lengths` [G], whose keys and values lie at their positions.

        Rows past the last one are dropped.
        """
        positions = jnp.maximum(slot_positions(lengths - 1, self.keys.shape[2]), 0)
        positions = jnp.minimum(positions, prompts.keys.shape[2] - 1)[None, :, :, None, None]
        return Cache(
            self.keys.at[:, rows].set(jnp.take_along_axis(prompts.keys, positions, axis=2), mode="drop"),
            self.values.at[:, rows].set(jnp.take_along_axis(prompts.values, positions, axis=2), mode="drop"),
        )


def slot_positions(latest: jax.Array, slots: int) -> jax.Array:
    """[R, S]: the position whose token lies in each slot, once that of `latest` [R] is written; negative where none is."""
    return latest[:, None] - (latest[:, None] - jnp.arange(slots)[None]) % slots


def new_cache(config: ModelConfig, rows: int, positions: int, dtype) -> Cache:
    """An empty cache for texts of up to `positions` tokens."""
    slots = positions if config.sliding_window is None else min(positions, config.sliding_window)
    shape = (config.n_layers, rows, slots, config.n_kv_heads, config.head_dim)
    empty = constrain(jnp.zeros(shape, dtype), "layer", "batch", "sequence", "kv_heads", "head_dim")
    return Cache(empty, empty)
