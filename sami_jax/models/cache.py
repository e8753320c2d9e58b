"""The key-value cache. A token at position p of a row lives in slot p, so rows may be at different positions, and a slot
that is later than a row's position is unwritten or stale and hidden by the causal mask."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from sami_jax.models.config import ModelConfig
from sami_jax.sharding import constrain


class LayerCache(NamedTuple):
    """Keys and values of one layer, each [B, S, K, head_dim]; stacked over layers by `new_cache`."""

    keys: jax.Array
    values: jax.Array

    def write(self, keys: jax.Array, values: jax.Array, positions: jax.Array) -> "LayerCache":
        """Puts [B, T, K, head_dim] at slots `positions` [B, T]."""
        rows = jnp.arange(positions.shape[0])[:, None]
        return LayerCache(
            self.keys.at[rows, positions].set(keys.astype(self.keys.dtype), mode="drop"),
            self.values.at[rows, positions].set(values.astype(self.values.dtype), mode="drop"),
        )


def new_cache(config: ModelConfig, batch: int, slots: int, dtype) -> LayerCache:
    """An empty cache, [layers, batch, slots, K, head_dim] twice."""
    shape = (config.n_layers, batch, slots, config.n_kv_heads, config.head_dim)
    empty = constrain(jnp.zeros(shape, dtype), "layer", "batch", "sequence", "kv_heads", "head_dim")
    return LayerCache(empty, empty)
