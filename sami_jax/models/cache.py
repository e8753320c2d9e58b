"""The key-value cache: for each layer, a ring of slots for each row. The token at position p lies in slot p mod S, so rows may
be at different positions, and a sliding window needs no more slots than it is wide."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from sami_jax.models.config import ModelConfig
from sami_jax.sharding import constrain, named_sharding


class LayerCache(NamedTuple):
    """Keys and values of one layer, laid out as attention's matrix products read them: nothing is transposed."""

    keys: jax.Array  # [R, K, head_dim, S]
    values: jax.Array  # [R, K, S, head_dim]

    @property
    def slots(self) -> int:
        return self.values.shape[2]

    def write(self, keys: jax.Array, values: jax.Array, positions: jax.Array) -> "LayerCache":
        """Puts the keys and values [R, 1, K, head_dim] of one token a row where `positions` [R] belong."""
        rows, slots = jnp.arange(positions.shape[0]), positions % self.slots
        return LayerCache(
            self.keys.at[rows, :, :, slots].set(keys[:, 0].astype(self.keys.dtype)),
            self.values.at[rows, :, slots].set(values[:, 0].astype(self.values.dtype)),
        )

    def admit(self, keys: jax.Array, values: jax.Array, lengths: jax.Array, rows: jax.Array) -> "LayerCache":
        """Fills `rows` [G] with prompts of `lengths` [G], whose keys and values [G, P, K, head_dim] lie at their positions.

        Rows past the last one are dropped.
        """
        positions = jnp.maximum(slot_positions(lengths - 1, self.slots), 0)
        positions = jnp.minimum(positions, keys.shape[1] - 1)[:, :, None, None]

        def put(old: jax.Array, new: jax.Array, axes: tuple[int, ...]) -> jax.Array:
            by_slot = jnp.take_along_axis(new, positions, axis=1).transpose(axes)
            return old.at[rows].set(by_slot.astype(old.dtype), mode="drop")

        return LayerCache(put(self.keys, keys, (0, 2, 3, 1)), put(self.values, values, (0, 2, 1, 3)))


# Each layer's, or one that holds all layers, stacked.
Cache = tuple[LayerCache, ...] | LayerCache

_AXES = LayerCache._make((("batch", "kv_heads", "head_dim", "sequence"), ("batch", "kv_heads", "sequence", "head_dim")))


def slot_positions(latest: jax.Array, slots: int) -> jax.Array:
    """[R, S]: the position whose token lies in each slot, once that of `latest` [R] is written; negative where none is."""
    return latest[:, None] - (latest[:, None] - jnp.arange(slots)[None]) % slots


def new_cache(config: ModelConfig, rows: int, positions: int, dtype, stacked: bool = False) -> Cache:
    """An empty cache for texts of up to `positions` tokens."""

    def of(slots: int) -> LayerCache:
        layers = (config.n_layers,) if stacked else ()
        keys = (*layers, rows, config.n_kv_heads, config.head_dim, slots)
        values = (*layers, rows, config.n_kv_heads, slots, config.head_dim)
        arrays = (
            constrain(jnp.zeros(shape, dtype), *_layers(stacked), *axes)
            for shape, axes in zip((keys, values), _AXES, strict=True)
        )
        return LayerCache(*arrays)

    slots = [min(positions, window or positions) for window in config.windows]
    by_slots = {count: of(count) for count in ({max(slots)} if stacked else set(slots))}
    return by_slots[max(slots)] if stacked else tuple(by_slots[count] for count in slots)


def cache_shardings(cache: Cache, mesh: Mesh) -> Cache:
    """The cache with shardings in place of arrays: as it lies on `mesh`."""
    stacked = isinstance(cache, LayerCache)
    layer = LayerCache._make(named_sharding(mesh, (*_layers(stacked), *axes)) for axes in _AXES)
    return layer if stacked else (layer,) * len(cache)


def _layers(stacked: bool) -> tuple[str, ...]:
    return ("layer",) if stacked else ()
