"""Weights in 8 or 4 bits: in blocks along the dimension that a matmul sums over, each with a scale of its own.

int8 keeps whole multiples of a scale; nf4 keeps the numbers of 16 levels, NormalFloat of QLoRA (Dettmers et al. 2023, arXiv 2305.14314),
two to a byte. Scales are bfloat16, and rounded before they are divided by, so that their rounding costs nothing: 8.25 and 4.25 bits a
weight in blocks of 64. The library qwix has such arrays too; what it gives to pure functions keeps a byte for each nf4 number on CPUs
and GPUs, and looks levels up one by one, and its models are made by rewriting modules as they are called, which ours never are whole.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np

from sami_jax.errors import UserError

KINDS = ("int8", "nf4")
BLOCK = 64  # weights that share a scale, at most
LARGEST = 127  # of int8's numbers; -128 is left out, so that both signs reach equally far
# Levels of nf4 (QLoRA, appendix E): means of equally likely parts of a normal distribution, scaled to [-1, 1]; one is 0.
LEVELS = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip
_BETWEEN = ((np.array(LEVELS[1:]) + np.array(LEVELS[:-1])) / 2).astype(np.float32)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Quantized:
    """A weight [..., K, *outside] of which K is summed over, in K / b blocks of b. What it holds may be shapes or shardings too."""

    codes: Any  # [..., K / b, b, *outside] int8; or [..., K / b, b / 2, *outside] uint8, a block's first half in the lower bits
    scales: Any  # [..., K / b, 1, *outside] bfloat16
    outside: int = dataclasses.field(metadata={"static": True})  # dimensions behind K

    def dequantized(self, dtype) -> jax.Array:
        """The weight, [..., K, *outside]. It is computed in float32, and rounded once."""
        numbers = self.codes
        if numbers.dtype == jnp.uint8:
            both = numbers & 15, numbers >> 4
            values = _levels(jnp.concatenate(both, numbers.ndim - self.outside - 1))
        else:
            values = numbers.astype(jnp.float32)
        weight = values * self.scales.astype(jnp.float32)
        before = weight.shape[: weight.ndim - self.outside - 2]
        return weight.reshape(*before, -1, *weight.shape[weight.ndim - self.outside :]).astype(dtype)


def _levels(numbers: jax.Array) -> jax.Array:
    """The level of each number, by halves: TPUs have no table to look one up in."""
    values: list = [jnp.float32(level) for level in LEVELS]
    for bit in range(4):
        odd = (numbers >> bit) & 1 == 1
        values = [jnp.where(odd, high, low) for low, high in zip(values[::2], values[1::2], strict=True)]
    return values[0]


def quantize(weight: np.ndarray, outside: int, kind: str) -> Quantized:
    """A weight [..., K, *outside], rounded to the nearest there is, on the host. What is no number has scales that are none.

    Args:
      kind: of KINDS.
    Raises:
      UserError: K is odd.
    """
    axis = weight.ndim - outside - 1
    block = block_of(weight.shape[axis])
    split = weight.astype(np.float32).reshape(*weight.shape[:axis], -1, block, *weight.shape[axis + 1 :])
    largest = np.abs(split).max(axis + 1, keepdims=True)
    scales = (largest / (LARGEST if kind == "int8" else 1)).astype(ml_dtypes.bfloat16)
    with np.errstate(invalid="ignore"):
        units = split / np.where(scales == 0, 1, scales).astype(np.float32)
        if kind == "int8":
            return Quantized(np.clip(np.rint(units), -LARGEST, LARGEST).astype(np.int8), scales, outside)
    low, high = np.split(np.searchsorted(_BETWEEN, units).astype(np.uint8), 2, axis + 1)
    return Quantized(low | high << 4, scales, outside)


def block_of(size: int) -> int:
    """How many weights of a dimension share a scale: an even number, which divides it.

    Raises:
      UserError: the dimension is odd.
    """
    if size % 2:
        raise UserError(f"config.lora.base: a dimension of {size} weights makes no even blocks; set it to bfloat16")
    return max(block for block in range(2, BLOCK + 1, 2) if size % block == 0)
