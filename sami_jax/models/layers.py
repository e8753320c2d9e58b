"""The decoder's parts: RMSNorm, rotary embedding, grouped-query attention, SwiGLU, and the block made of them.

Weights are kept in the layout in which they are used ([in, heads, head_dim], ...), so that logical axes name whole
dimensions. Modules compute in the dtype of the weights they are given; norms, softmax and rotation in float32.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from sami_jax.models.cache import LayerCache
from sami_jax.models.config import ModelConfig
from sami_jax.sharding import constrain

# Finite, so that a row with nothing to attend to (padding) gives a uniform softmax instead of NaN.
MASKED = -1e30


def _param(rngs: nnx.Rngs, shape: tuple[int, ...], fan_in: int) -> nnx.Param:
    return nnx.Param(jax.random.normal(rngs.params(), shape, jnp.float32) * fan_in**-0.5)


def rotate(x: jax.Array, positions: jax.Array, theta: float) -> jax.Array:
    """Rotary position embedding, halves convention (Su et al. 2021; as in Hugging Face Llama).

    Args:
      x: [B, T, heads, head_dim].
      positions: [B, T] int32.
    """
    half = x.shape[-1] // 2
    frequencies = theta ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angles = positions[..., None, None].astype(jnp.float32) * frequencies[None, None, None, :]
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1).astype(x.dtype)


def attention_mask(
    q_positions: jax.Array, kv_positions: jax.Array, kv_valid: jax.Array | None, window: int | None
) -> jax.Array:
    """[B, T, S] True where query t may see key s: not later, inside the window, and not padding."""
    distance = q_positions[:, :, None] - kv_positions[:, None, :]
    mask = distance >= 0
    if window is not None:
        mask &= distance < window
    if kv_valid is not None:
        mask &= kv_valid[:, None, :]
    return mask


def attend(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array) -> jax.Array:
    """Grouped-query attention. q [B, T, H, head_dim], k and v [B, S, K, head_dim], mask [B, T, S] -> like q."""
    batch, time, heads, head_dim = q.shape
    grouped = q.reshape(batch, time, k.shape[2], heads // k.shape[2], head_dim)
    scores = jnp.einsum("btkgh,bskh->bkgts", grouped, k, preferred_element_type=jnp.float32) * head_dim**-0.5
    weights = jax.nn.softmax(jnp.where(mask[:, None, None], scores, MASKED), axis=-1).astype(v.dtype)
    return jnp.einsum("bkgts,bskh->btkgh", weights, v).reshape(q.shape)


class RMSNorm(nnx.Module):
    def __init__(self, config: ModelConfig):
        self.epsilon = config.norm_epsilon
        self.scale = nnx.Param(jnp.ones((config.d_model,), jnp.float32))

    def __call__(self, x: jax.Array) -> jax.Array:
        x32 = x.astype(jnp.float32)
        normed = x32 * jax.lax.rsqrt(jnp.mean(x32 * x32, axis=-1, keepdims=True) + self.epsilon)
        return normed.astype(x.dtype) * jnp.broadcast_to(self.scale[...], x.shape)


class Attention(nnx.Module):
    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        self.config = config
        d, h, k, hd = config.d_model, config.n_heads, config.n_kv_heads, config.head_dim
        self.query = _param(rngs, (d, h, hd), d)
        self.key = _param(rngs, (d, k, hd), d)
        self.value = _param(rngs, (d, k, hd), d)
        self.output = _param(rngs, (h, hd, d), h * hd)

    def __call__(self, x: jax.Array, positions: jax.Array, mask: jax.Array, cache: LayerCache | None):
        theta = self.config.rope_theta
        q = rotate(jnp.einsum("btd,dhk->bthk", x, self.query[...]), positions, theta)
        k = rotate(jnp.einsum("btd,dhk->bthk", x, self.key[...]), positions, theta)
        v = jnp.einsum("btd,dhk->bthk", x, self.value[...])
        q = constrain(q, "batch", "sequence", "heads", "head_dim")
        if cache is not None:
            cache = cache.write(k, v, positions)
            k, v = cache
        out = attend(q, k, v, mask)
        return jnp.einsum("bthk,hkd->btd", out, self.output[...]), cache


class SwiGLU(nnx.Module):
    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        d, f = config.d_model, config.d_ff
        self.gate = _param(rngs, (d, f), d)
        self.up = _param(rngs, (d, f), d)
        self.down = _param(rngs, (f, d), f)

    def __call__(self, x: jax.Array) -> jax.Array:
        hidden = jax.nn.silu(x @ self.gate[...]) * (x @ self.up[...])
        return constrain(hidden, "batch", "sequence", "mlp") @ self.down[...]


class Block(nnx.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        self.attention_norm = RMSNorm(config)
        self.attention = Attention(config, rngs=rngs)
        self.mlp_norm = RMSNorm(config)
        self.mlp = SwiGLU(config, rngs=rngs)

    def __call__(self, x: jax.Array, positions: jax.Array, mask: jax.Array, cache: LayerCache | None):
        attended, cache = self.attention(self.attention_norm(x), positions, mask, cache)
        x = x + attended
        x = x + self.mlp(self.mlp_norm(x))
        return constrain(x, "batch", "sequence", "activation"), cache
