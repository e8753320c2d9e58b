"""Weights in 8 and 4 bits: against numpy, element by element, and against QLoRA's table."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from scipy.stats import norm

from sami_jax.errors import UserError
from sami_jax.quantization.blocks import LEVELS, block_of, quantize

# Shapes [..., K, *outside], with how many dimensions come out.
SHAPES = [((128, 4, 8), 2), ((3, 130, 6), 1), ((2, 4, 16, 12), 1), ((5, 2, 64, 3), 1)]


def weight_of(shape) -> np.ndarray:
    """Of many sizes, with a block of zeros."""
    rng = np.random.default_rng(0)
    weight = rng.standard_normal(shape, np.float32) * rng.lognormal(0, 2, shape).astype(np.float32)
    weight[..., 0] = 0
    return weight


def by_hand(weight: np.ndarray, outside: int, kind: str) -> np.ndarray:
    """Each block of numbers by itself, each number to the nearest of all that its scale allows."""
    axis = weight.ndim - outside - 1
    columns = np.moveaxis(weight, axis, -1)
    found = np.empty(columns.shape, np.float64)
    size = block_of(columns.shape[-1])
    for place in np.ndindex(columns.shape[:-1]):
        for start in range(0, columns.shape[-1], size):
            block = columns[place][start : start + size].astype(np.float64)
            scale = float(
                (np.float32(np.abs(block).max()) / np.float32(127 if kind == "int8" else 1)).astype(ml_dtypes.bfloat16)
            )
            allowed = scale * (np.arange(-127, 128) if kind == "int8" else np.array(LEVELS))
            found[place][start : start + size] = allowed[np.abs(block[:, None] - allowed[None]).argmin(1)]
    return np.moveaxis(found, -1, axis)


@pytest.mark.parametrize("kind", ["int8", "nf4"])
@pytest.mark.parametrize(("shape", "outside"), SHAPES)
def test_each_number_becomes_the_nearest(shape, outside, kind):
    weight = weight_of(shape)
    quantized = quantize(weight, outside, kind)
    found = np.asarray(quantized.dequantized(jnp.float32))
    assert found.shape == weight.shape
    expected = by_hand(weight, outside, kind)
    # Between two that are about equally near, either will do.
    rounding = 1e-6 * np.abs(weight).max(weight.ndim - outside - 1, keepdims=True)
    assert (np.abs(found - weight) <= np.abs(expected - weight) + rounding).all()
    rounded = quantized.dequantized(jnp.bfloat16)
    np.testing.assert_array_equal(rounded, jnp.asarray(found).astype(jnp.bfloat16))


@pytest.mark.parametrize(("kind", "share"), [("int8", 0.5 / 127), ("nf4", 0.153)])
def test_the_error_is_bounded_by_the_largest_of_a_block(kind, share):
    """By half a step: of int8 all are alike, the widest of nf4 is the first."""
    weight = weight_of((128, 6))
    largest = np.abs(weight.reshape(2, 64, 6)).max(1, keepdims=True)
    error = np.abs(np.asarray(quantize(weight, 1, kind).dequantized(jnp.float32)) - weight).reshape(2, 64, 6)
    assert (error <= share * largest * 1.005).all()


def test_bits_a_weight():
    for kind, bits in (("int8", 8.25), ("nf4", 4.25)):
        held = quantize(weight_of((128, 4, 8)), 2, kind)
        assert 8 * (held.codes.nbytes + held.scales.nbytes) / (128 * 4 * 8) == bits


def test_the_levels_are_those_of_the_paper():
    """Appendix E; and the quantiles that section 3 describes, of seven parts below zero and eight above."""
    offset = 0.9677083
    above = norm.ppf(np.linspace(offset, 0.5, 9)[:-1])
    below = -norm.ppf(np.linspace(offset, 0.5, 8)[:-1])
    quantiles = np.sort([*above, 0, *below])
    np.testing.assert_allclose(LEVELS, quantiles / quantiles.max(), atol=2e-6)
    published = "-1.0 -0.6961928 -0.5250731 -0.3949175 -0.2844414 -0.1847734 -0.0910500 0.0 "
    published += "0.0795803 0.1609302 0.2461123 0.3379152 0.4407098 0.5626170 0.7229568 1.0"
    np.testing.assert_allclose(LEVELS, [float(level) for level in published.split()], atol=1e-7)


def test_numbers_of_nf4_lie_two_to_a_byte_and_come_back():
    weight = np.tile(np.array(LEVELS, np.float32), 8)[:, None]
    held = quantize(weight, 1, "nf4")
    assert held.codes.dtype == np.uint8 and held.codes.shape == (2, 32, 1)
    np.testing.assert_array_equal(jax.jit(lambda held: held.dequantized(jnp.float32))(held), weight)


def test_what_is_no_number_stays_none():
    weight = weight_of((64, 2))
    weight[3, 1] = np.nan
    for kind in ("int8", "nf4"):
        assert np.isnan(np.asarray(quantize(weight, 1, kind).scales, np.float32)).any()


def test_an_odd_dimension_is_refused():
    with pytest.raises(UserError, match="a dimension of 9 weights makes no even blocks"):
        quantize(np.ones((9, 2), np.float32), 1, "int8")
