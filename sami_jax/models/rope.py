"""The rotary position embedding (Su et al. 2021), and what layers have of their own where they are not alike."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sami_jax.models.config import LongRope, ModelConfig, RopeScaling

FAR = 2**30  # positions; a window that hides nothing


class Kind(NamedTuple):
    """What one layer has of its own; None: what the config says of all. Of all layers, with their axis in front."""

    window: jax.Array | None  # [] int32, latest positions that a token sees
    frequencies: jax.Array | None  # [turned dimensions / 2] float32


def kinds(config: ModelConfig) -> Kind:
    """Of all layers."""
    window = turns = None
    if config.local:
        window = jnp.asarray([FAR if own is None else own for own in config.windows], jnp.int32)
    if config.local_theta is not None:
        local = np.array(config.local)[:, None]
        turns = jnp.where(local, _of_base(config, config.local_theta)[None], frequencies(config)[None])
    if config.rope_layers:  # what has no frequency stays as it is, to the last bit
        every = frequencies(config)[None] if turns is None else turns
        turns = jnp.where(np.array(config.rope_layers)[:, None], every, 0.0)
    return Kind(window, turns)


def frequencies(config: ModelConfig) -> jax.Array:
    """[turned dimensions / 2] float32, radians a position; of layers that are alike, or global."""
    plain = _of_base(config, config.rope_theta)
    if isinstance(config.rope_scaling, RopeScaling):
        return _stretched(plain, config.rope_scaling)
    if isinstance(config.rope_scaling, LongRope):
        return plain / jnp.asarray(config.rope_scaling.factors, jnp.float32)
    return plain


def _of_base(config: ModelConfig, theta: float) -> jax.Array:
    half = config.rotated // 2
    return theta ** (-jnp.arange(half, dtype=jnp.float32) / half)


def _stretched(frequencies: jax.Array, scaling: RopeScaling) -> jax.Array:
    """As in Llama 3.1: what turns often within the original context stays, what turns seldom is slowed by the factor."""
    turns = scaling.original_positions * frequencies / (2 * math.pi)
    kept = (turns - scaling.low_frequency) / (scaling.high_frequency - scaling.low_frequency)
    kept = jnp.clip(kept, 0.0, 1.0)
    return frequencies * (kept + (1 - kept) / scaling.factor)


def rotate(x: jax.Array, positions: jax.Array, frequencies: jax.Array, magnitude: float = 1.0) -> jax.Array:
    """Turns the first dimensions of each head, as many as there are frequencies twice, halves convention (as in Hugging Face Llama).

    Args:
      x: [B, T, heads, head_dim].
      positions: [B, T] int32.
      magnitude: by which what is turned is multiplied.
    """
    turned = 2 * frequencies.shape[0]
    if turned < x.shape[-1]:
        rest = x[..., turned:]
        return jnp.concatenate([rotate(x[..., :turned], positions, frequencies, magnitude), rest], axis=-1)
    angles = positions[..., None, None].astype(jnp.float32) * frequencies[None, None, None, :]
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    if magnitude != 1.0:
        cos, sin = cos * magnitude, sin * magnitude
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1).astype(x.dtype)
