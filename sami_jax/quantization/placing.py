"""Weights on their way into the memory of devices: the form that each has there, and its parts."""

import collections
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from sami_jax.quantization.blocks import KINDS, Quantized, block_of, quantize

# What multiplies tokens in a block, nearly all of a model, with the dimensions that come out of it. The rest stays in the compute dtype:
# norms and biases are small, of a router little decides much, and of embeddings rows are looked up.
OUTSIDE = {"query": 2, "key": 2, "value": 2, "output": 1, "gate": 1, "up": 1, "down": 1, "gates": 1, "ups": 1, "downs": 1}  # fmt: skip


def forms(weights: dict, shardings: dict, dtype, held: str = "") -> dict:
    """How weights lie in memory: their tree with shape, dtype and sharding in place of each array; of a quantized one, of both its
    arrays.

    Args:
      weights: tree of shapes, without adapters.
      dtype: of all that `held` does not speak of.
      held: as `config.lora.base`.
    Raises:
      UserError: a dimension that cannot be quantized.
    """

    def form(path, weight, sharding: NamedSharding):
        *_, above, name = "", *(key.key for key in path)
        outside = OUTSIDE.get(above if name == "weight" else name)
        if not held or outside is None:
            return jax.ShapeDtypeStruct(weight.shape, dtype, sharding=sharding)
        if held not in KINDS:
            return jax.ShapeDtypeStruct(weight.shape, jnp.dtype(held), sharding=sharding)
        axis = len(weight.shape) - outside - 1
        before, size, behind = weight.shape[:axis], weight.shape[axis], weight.shape[axis + 1 :]
        block = block_of(size)
        # Blocks lie as their weights do, each of them whole.
        spec = [*sharding.spec, *[None] * (len(weight.shape) - len(sharding.spec))]
        split = (spec[axis],) if isinstance(spec[axis], str) else spec[axis] or ()
        whole = size // block % math.prod(sharding.mesh.shape[name] for name in split)
        spec[axis : axis + 1] = [None if whole else spec[axis], None]
        there = NamedSharding(sharding.mesh, PartitionSpec(*spec))

        def array(within: int, dtype) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct((*before, size // block, within, *behind), dtype, sharding=there)

        codes = array(block, jnp.int8) if held == "int8" else array(block // 2, jnp.uint8)
        return Quantized(codes, array(1, jnp.bfloat16), outside)

    return jax.tree_util.tree_map_with_path(form, weights, shardings)


def placed(forms: Any, read: Callable) -> Any:
    """A weight of a form, or a tree of them, in their shards. The host holds one device's part of one at a time; of a quantized one, a layer of that.

    Args:
      read: (keys of a weight, ranges of its dimensions, dtype) -> that part of it.
    """

    def place(path, form):
        arrays, structure = jax.tree.flatten(form)
        shards, by_part = [[] for _ in arrays], collections.defaultdict(list)
        for device, index in arrays[0].sharding.addressable_devices_indices_map(arrays[0].shape).items():
            part = tuple(part.indices(size) for part, size in zip(index, arrays[0].shape, strict=True))
            by_part[part].append(device)
        for part, devices in by_part.items():
            keys, ranges = tuple(key.key for key in path), [range(*bounds) for bounds in part]
            pieces = jax.tree.leaves(_part(form, ranges, lambda *wanted, keys=keys: read(keys, *wanted)))
            for own, piece in zip(shards, pieces, strict=True):
                own += jax.block_until_ready([jax.device_put(piece, device) for device in devices])
        made = [
            jax.make_array_from_single_device_arrays(array.shape, array.sharding, own)
            for array, own in zip(arrays, shards, strict=True)
        ]
        return structure.unflatten(made)

    return jax.tree_util.tree_map_with_path(place, forms, is_leaf=lambda form: isinstance(form, Quantized))


def _part(form, ranges: list[range], read: Callable[[list[range], np.dtype], np.ndarray]):
    """What these ranges of its first array hold."""
    if not isinstance(form, Quantized):
        return read(ranges, form.dtype)
    kind, axis = KINDS[form.codes.dtype == jnp.uint8], len(ranges) - form.outside - 2
    block = form.codes.shape[axis + 1] * (2 if kind == "nf4" else 1)
    along = range(ranges[axis].start * block, ranges[axis].stop * block)
    layers, *others = [*ranges[:axis], along, *ranges[axis + 2 :]]
    of_each = (read([range(layer, layer + 1), *others], np.dtype("float32")) for layer in layers)
    quantized = [quantize(layer, form.outside, kind) for layer in of_each]
    return jax.tree.map(lambda *parts: np.concatenate(parts), *quantized)
