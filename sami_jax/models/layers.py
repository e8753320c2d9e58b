"""The decoder's parts: RMSNorm, rotary embedding, attention's projections, SwiGLU, and the block made of them.

Weights are kept in the layout in which they are used ([in, heads, head_dim], ...), so that logical axes name whole
dimensions. Modules compute in the dtype of the weights they are given; norms, softmax and rotation in float32.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from sami_jax.models.attention import Attend
from sami_jax.models.config import ModelConfig
from sami_jax.sharding import constrain


def random_weight(rngs: nnx.Rngs, shape: tuple[int, ...], fan_in: int) -> nnx.Param:
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
        self.query = random_weight(rngs, (d, h, hd), d)
        self.key = random_weight(rngs, (d, k, hd), d)
        self.value = random_weight(rngs, (d, k, hd), d)
        self.output = random_weight(rngs, (h, hd, d), h * hd)

    def __call__(self, x: jax.Array, positions: jax.Array, attend: Attend):
        theta = self.config.rope_theta
        q = rotate(jnp.einsum("btd,dhk->bthk", x, self.query[...]), positions, theta)
        k = rotate(jnp.einsum("btd,dhk->bthk", x, self.key[...]), positions, theta)
        v = jnp.einsum("btd,dhk->bthk", x, self.value[...])
        out, kept = attend(constrain(q, "batch", "sequence", "heads", "head_dim"), k, v)
        return jnp.einsum("bthk,hkd->btd", out, self.output[...]), kept


class SwiGLU(nnx.Module):
    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        d, f = config.d_model, config.d_ff
        self.gate = random_weight(rngs, (d, f), d)
        self.up = random_weight(rngs, (d, f), d)
        self.down = random_weight(rngs, (f, d), f)

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

    def __call__(self, x: jax.Array, positions: jax.Array, attend: Attend):
        """x [B, T, D], positions [B, T] -> like x, and what `attend` keeps of the keys and values."""
        attended, kept = self.attention(self.attention_norm(x), positions, attend)
        x = x + attended
        x = x + self.mlp(self.mlp_norm(x))
        return constrain(x, "batch", "sequence", "activation"), kept
