"""The key-value cache: for each layer, a ring of slots for each row. The token at position p lies in slot p mod S, so rows may
be at different positions, and a sliding window needs no more slots than it is wide.

A long ring's slots lie in a few blocks, arrays of their own: those behind the longest row need not be read. Attention adds up
block by block, so that what it says is the same to the bit however many are.
"""

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from sami_jax.models.config import ModelConfig
from sami_jax.sharding import constrain, named_sharding

# Of a ring there are so many blocks at most, of so many slots at least: how far is read is known when a program is compiled.
BLOCKS, SMALLEST_BLOCK = 4, 256


class LayerCache(NamedTuple):
    """Keys and values of one layer, laid out as attention's matrix products read them: nothing is transposed."""

    keys: tuple[jax.Array, ...]  # of each block, [R, K, head_dim, slots]
    values: tuple[jax.Array, ...]  # likewise [R, K, slots, head_dim]
    layer: jax.Array | None = None  # number of the layer, where the arrays are those of all, stacked

    @property
    def blocks(self) -> list[slice]:
        """The slots of each."""
        ends = list(itertools.accumulate(values.shape[-2] for values in self.values))
        return [slice(end - values.shape[-2], end) for end, values in zip(ends, self.values, strict=True)]

    @property
    def slots(self) -> int:
        return self.blocks[-1].stop

    def read(self, reach: int) -> list[tuple[slice, jax.Array, jax.Array]]:
        """Each block that begins below `reach`, its keys and its values."""
        every = zip(self.blocks, self.keys, self.values, strict=True)
        return [(block, keys[self._of], values[self._of]) for block, keys, values in every if block.start < reach]

    def texts(self, rows: int) -> tuple[jax.Array, jax.Array]:
        """Keys and values [rows, slots, K, head_dim] of texts as long as there are slots, each of our rows as often as it fits in."""
        _, keys, values = zip(*self.read(self.slots), strict=True)
        keys, values = jnp.concatenate(keys, 3).transpose(0, 3, 1, 2), jnp.concatenate(values, 2).transpose(0, 2, 1, 3)
        each = rows // keys.shape[0]
        return jnp.repeat(keys, each, axis=0), jnp.repeat(values, each, axis=0)

    def write(self, keys: jax.Array, values: jax.Array, positions: jax.Array, reach: int) -> "LayerCache":
        """Puts the keys and values [R, 1, K, head_dim] of one token a row where `positions` [R] belong, in blocks that begin below `reach`."""
        rows, slots = jnp.arange(positions.shape[0]), positions % self.slots
        keys, values = keys[:, 0].astype(self.keys[0].dtype), values[:, 0].astype(self.values[0].dtype)

        def put(block: slice, own_keys: jax.Array, own_values: jax.Array):
            if block.start >= reach:
                return own_keys, own_values
            if self.layer is not None:
                here = slots[:, None] == jnp.arange(block.start, block.stop)[None]
                kept = self._put_back(own_keys, here[:, None, None], keys[..., None])
                return kept, self._put_back(own_values, here[:, None, :, None], values[:, :, None])
            # Before a block is behind it too, where nothing is written.
            place = jnp.where(slots < block.start, block.stop, slots) - block.start
            kept = own_keys.at[rows, :, :, place].set(keys, mode="drop")
            return kept, own_values.at[rows, :, place].set(values, mode="drop")

        return self._with(put)

    def _put_back(self, stacked: jax.Array, here: jax.Array, new: jax.Array) -> jax.Array:
        """All layers' slots, with what is new in this one's where `here` says. The layer's go back whole: for single ones, XLA for TPUs
        would hold a second cache (Mistral-7B on v5e:2x2, compiled: 0.8 GiB)."""
        own = jnp.where(here, new, stacked[self.layer])
        return jax.lax.dynamic_update_index_in_dim(stacked, own, self.layer, 0)

    def admit(self, keys: jax.Array, values: jax.Array, lengths: jax.Array, rows: jax.Array) -> "LayerCache":
        """Fills `rows` [G], those past the last dropped, with prompts of `lengths` [G], by their keys and values [G, P, K, head_dim]."""
        longest = keys.shape[1]
        positions = jnp.clip(slot_positions(lengths - 1, self.slots), 0, longest - 1)[:, :, None, None]

        def put(block: slice, own_keys: jax.Array, own_values: jax.Array):
            if block.start >= longest:
                return own_keys, own_values

            def filled(old: jax.Array, new: jax.Array, axes: tuple[int, ...]) -> jax.Array:
                by_slot = jnp.take_along_axis(new, positions[:, block], axis=1).transpose(axes)
                return old.at[*self._of, rows].set(by_slot.astype(old.dtype), mode="drop")

            return filled(own_keys, keys, (0, 2, 3, 1)), filled(own_values, values, (0, 2, 1, 3))

        return self._with(put)

    @property
    def _of(self) -> tuple[jax.Array, ...]:
        return () if self.layer is None else (self.layer,)

    def _with(self, changed: Callable) -> "LayerCache":
        """With what becomes of each block's slots, keys and values."""
        keys, values = zip(*map(changed, self.blocks, self.keys, self.values), strict=True)
        return self._replace(keys=keys, values=values)


# Each layer's, or one that holds all layers, stacked.
Cache = tuple[LayerCache, ...] | LayerCache


def of_layer(cache: Cache, number: Any) -> LayerCache:
    return cache._replace(layer=number) if isinstance(cache, LayerCache) else cache[number]


_KEYS, _VALUES = ("batch", "kv_heads", "head_dim", "sequence"), ("batch", "kv_heads", "sequence", "head_dim")


def slot_positions(latest: jax.Array, slots: int) -> jax.Array:
    """[R, S]: the position whose token lies in each slot, once that of `latest` [R] is written; negative where none is."""
    return latest[:, None] - (latest[:, None] - jnp.arange(slots)[None]) % slots


def reach_of(taken: int, positions: int) -> int:
    """How far a cache for texts of up to `positions` tokens is read where the longest row has `taken`, or will have next."""
    size = _block_size(positions)
    return min(size * -(-taken // size), positions)


def _block_size(positions: int) -> int:
    return max(SMALLEST_BLOCK, 128 * -(-positions // (128 * BLOCKS)))


def new_cache(config: ModelConfig, rows: int, positions: int, dtype, stacked: bool = False) -> Cache:
    """An empty cache for texts of up to `positions` tokens."""
    shape = *(config.n_layers,) * stacked, rows, config.n_kv_heads
    block = _block_size(positions)

    def of(slots: int) -> LayerCache:
        sizes = [min(block, slots - start) for start in range(0, slots, block)]
        keys = (jnp.zeros((*shape, config.head_dim, size), dtype) for size in sizes)
        values = (jnp.zeros((*shape, size, config.head_dim), dtype) for size in sizes)
        return LayerCache(
            tuple(constrain(x, *_axes(_KEYS, stacked)) for x in keys),
            tuple(constrain(x, *_axes(_VALUES, stacked)) for x in values),
        )

    slots = [min(positions, window or positions) for window in config.windows]
    by_slots = {count: of(count) for count in ({max(slots)} if stacked else set(slots))}
    return by_slots[max(slots)] if stacked else tuple(by_slots[count] for count in slots)


def cache_shardings(cache: Cache, mesh: Mesh) -> Cache:
    """The cache with shardings in place of arrays: as it lies on `mesh`."""
    stacked = isinstance(cache, LayerCache)
    keys, values = (named_sharding(mesh, _axes(axes, stacked)) for axes in (_KEYS, _VALUES))

    def of(layer: LayerCache) -> LayerCache:
        return layer._replace(keys=(keys,) * len(layer.keys), values=(values,) * len(layer.values))

    return of(cache) if stacked else tuple(map(of, cache))


def _axes(own: tuple[str, ...], stacked: bool) -> tuple[str, ...]:
    return ("layer", *own) if stacked else own
