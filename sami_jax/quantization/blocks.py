"""Weights in 8 or 4 bits: in blocks along the dimension that a matmul sums over, each with a scale of its own.

int8 keeps whole multiples of a scale; nf4 keeps numbers of 16 levels, NormalFloat of QLoRA (Dettmers et al. 2023, arXiv 2305.14314),
two to a byte. Scales are bfloat16, and rounded before they are divided by, so that their rounding costs nothing. In blocks of 64 a weight
takes 8.25 or 4.25 bits. The library qwix has such arrays too, but gives nf4 numbers to pure functions a byte each on CPUs, looks levels up
one by one, and makes its models by rewriting modules while they are called; our decoder is a function of a tree of arrays.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from sami_jax.errors import UserError
from sami_jax.sharding import put_parts

KINDS = ("int8", "nf4")
BLOCK = 64  # weights that share a scale, at most
LARGEST = 127  # of int8's numbers: -128 is left out, so that both signs reach equally far
# Levels of nf4 (QLoRA, appendix E): quantiles of a normal distribution, scaled to [-1, 1]; one is 0.
LEVELS = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip
_BETWEEN = ((np.array(LEVELS[1:]) + np.array(LEVELS[:-1])) / 2).astype(np.float32)
# What multiplies tokens in a block, nearly all of a model, with the dimensions that come out of it. The rest stays in the compute dtype:
# norms and biases are small, of a router little decides much, and of embeddings rows are looked up.
OUTSIDE = {"query": 2, "key": 2, "value": 2, "output": 1, "gate": 1, "up": 1, "down": 1, "gates": 1, "ups": 1, "downs": 1}  # fmt: skip


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Quantized:
    """A weight [..., K, *outside] of which K is summed over, in K / b blocks of b. What it holds may be shapes or shardings too."""

    codes: Any  # [..., K / b, b, *outside] int8; or [..., K / b, b / 2, *outside] uint8, a block's first half in the lower bits
    scales: Any  # [..., K / b, 1, *outside] bfloat16
    outside: int = dataclasses.field(metadata={"static": True})  # dimensions behind K

    def dequantized(self, dtype) -> jax.Array:
        """The weight, [..., K, *outside]. It is computed in float32, and rounded once."""
        codes, axis = self.codes, self.codes.ndim - self.outside - 1
        if codes.dtype == jnp.uint8:
            values = _levels(jnp.concatenate((codes & 15, codes >> 4), axis))
        else:
            values = codes.astype(jnp.float32)
        weight = values * self.scales.astype(jnp.float32)
        return weight.reshape(*weight.shape[: axis - 1], -1, *weight.shape[axis + 1 :]).astype(dtype)


def _levels(numbers: jax.Array) -> jax.Array:
    """The level of each number, by halves: TPUs have no table to look one up in."""
    values: list = [jnp.float32(level) for level in LEVELS]
    for bit in range(4):
        odd = (numbers >> bit) & 1 == 1
        values = [jnp.where(odd, high, low) for low, high in zip(values[::2], values[1::2], strict=True)]
    return values[0]


def quantize(weight: np.ndarray, outside: int, kind: str) -> Quantized:
    """A weight [..., K, *outside], each of it rounded to the nearest there is. What is no number has a scale that is none.

    Raises:
      UserError: K is odd.
    """
    axis = weight.ndim - outside  # within a block
    block = block_of(weight.shape[axis - 1])
    split = weight.astype(np.float32).reshape(*weight.shape[: axis - 1], -1, block, *weight.shape[axis:])
    largest = np.abs(split).max(axis, keepdims=True)
    scales = (largest / (LARGEST if kind == "int8" else 1)).astype(ml_dtypes.bfloat16)
    with np.errstate(invalid="ignore"):
        units = split / np.where(scales == 0, 1, scales).astype(np.float32)
        if kind == "int8":
            return Quantized(np.clip(np.rint(units), -LARGEST, LARGEST).astype(np.int8), scales, outside)
    low, high = np.split(np.searchsorted(_BETWEEN, units).astype(np.uint8), 2, axis)
    return Quantized(low | high << 4, scales, outside)


def block_of(size: int) -> int:
    """How many weights along a dimension share a scale: an even number, which divides it."""
    if size % 2:
        raise UserError(f"config.lora.base: a dimension of {size} weights makes no even blocks; set it to bfloat16")
    return max(block for block in range(2, BLOCK + 1, 2) if size % block == 0)


def forms(weights: dict, shardings: dict, dtype, held: str = "") -> dict:
    """How weights lie in memory: of their tree of shapes, without adapters, one with shape, dtype and sharding of each array; of a quantized
    one, of both its arrays. `held` is as `config.lora.base`, and all that it does not speak of has `dtype`."""

    def form(path, weight, sharding: NamedSharding):
        *_, above, name = "", *(key.key for key in path)
        outside = OUTSIDE.get(above if name == "weight" else name)
        if not held or outside is None or held not in KINDS:
            own = jnp.dtype(held if held and outside else dtype)
            return jax.ShapeDtypeStruct(weight.shape, own, sharding=sharding)
        axis = len(weight.shape) - outside - 1
        block = block_of(weight.shape[axis])
        blocks = weight.shape[axis] // block
        # Blocks lie as their weights do, each of them whole.
        spec = [*sharding.spec, *[None] * (len(weight.shape) - len(sharding.spec))]
        split = (spec[axis],) if isinstance(spec[axis], str) else spec[axis] or ()
        fits = blocks % math.prod(sharding.mesh.shape[name] for name in split) == 0
        spec[axis : axis + 1] = [spec[axis] if fits else None, None]
        there = NamedSharding(sharding.mesh, PartitionSpec(*spec))

        def array(within: int, dtype) -> jax.ShapeDtypeStruct:
            shape = (*weight.shape[:axis], blocks, within, *weight.shape[axis + 1 :])
            return jax.ShapeDtypeStruct(shape, dtype, sharding=there)

        codes = array(block, jnp.int8) if held == "int8" else array(block // 2, jnp.uint8)
        return Quantized(codes, array(1, jnp.bfloat16), outside)

    return jax.tree_util.tree_map_with_path(form, weights, shardings)


def placed(forms: Any, read: Callable[..., np.ndarray]) -> Any:
    """A weight of a form, or a tree of them, in their shards. The host holds a device's part of one, of a quantized one a layer of that.

    Args:
      read: (keys of a weight, ranges of its dimensions, dtype) -> that part of it.
    """

    def place(path, form):
        arrays, structure = jax.tree.flatten(form)
        reads = functools.partial(read, tuple(key.key for key in path))
        return structure.unflatten(put_parts(arrays, lambda ranges: jax.tree.leaves(_part(form, ranges, reads))))

    return jax.tree_util.tree_map_with_path(place, forms, is_leaf=lambda form: isinstance(form, Quantized))


def _part(form, ranges: tuple[range, ...], read: Callable[..., np.ndarray]):
    """What these ranges of its first array hold."""
    if not isinstance(form, Quantized):
        return read(ranges, form.dtype)
    kind, axis = KINDS[form.codes.dtype == jnp.uint8], len(ranges) - form.outside - 2
    block = form.codes.shape[axis + 1] * (2 if kind == "nf4" else 1)
    along = range(ranges[axis].start * block, ranges[axis].stop * block)
    layers, *others = [*ranges[:axis], along, *ranges[axis + 2 :]]
    of_each = (read((range(layer, layer + 1), *others), np.dtype("float32")) for layer in layers)
    return jax.tree.map(lambda *parts: np.concatenate(parts), *(quantize(one, form.outside, kind) for one in of_each))
