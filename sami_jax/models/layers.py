"""The decoder's parts: RMSNorm, attention's projections, SwiGLU, and the block made of them.

Weights are kept in the layout in which they are used ([in, heads, head_dim], ...), so that logical axes name whole
dimensions. They may be kept in another dtype than that of the activations, in which everything is computed but norms,
softmax and rotation, which are in float32.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from sami_jax.models.attention import Attend
from sami_jax.models.config import LongRope, LowRank, ModelConfig
from sami_jax.models.experts import Routing, mix_experts
from sami_jax.models.rope import frequencies, rotate
from sami_jax.quantization.blocks import Quantized
from sami_jax.sharding import constrain, shards_here, splits_rows

# Columns of an MLP on each device, at most, where it goes by parts: enough to keep matrix units busy.
MLP_PART = 1024

# Logical axes (into, out of) every projection of a block.
PROJECTIONS = {
    "query": (("embed",), ("heads", "head_dim")),
    "key": (("embed",), ("kv_heads", "head_dim")),
    "value": (("embed",), ("kv_heads", "head_dim")),
    "output": (("heads", "head_dim"), ("embed",)),
    "gate": (("embed",), ("mlp",)),
    "up": (("embed",), ("mlp",)),
    "down": (("mlp",), ("embed",)),
    "router": (("embed",), ("choices",)),
}
# How weights that lead back to the width are split where devices divide that: see `sharding.RULES`.
ROWS = {"heads": "heads_in", "mlp": "mlp_in"}


def random_weight(rngs: nnx.Rngs, shape: tuple[int, ...], fan_in: int) -> nnx.Param:
    return nnx.Param(jax.random.normal(rngs.params(), shape, jnp.float32) * fan_in**-0.5)


def cast(weight: nnx.Param | jax.Array | Quantized, dtype) -> jax.Array:
    """The weight in the dtype of the activations. It is rounded first, which changes nothing but that XLA for TPUs leaves the cast
    within the loop over layers: it would hold all of them in bfloat16 beside the master weights."""
    value = weight.get_value() if isinstance(weight, nnx.Variable) else weight
    if isinstance(value, Quantized):
        return value.dequantized(dtype)
    if dtype == jnp.bfloat16:
        value = jax.lax.reduce_precision(value, exponent_bits=8, mantissa_bits=7)
    return value.astype(dtype)


class RMSNorm(nnx.Module):
    """x / rms(x), times the scale, or times 1 + it."""

    def __init__(self, width: int, config: ModelConfig):
        self.epsilon, self.offset = config.norm_epsilon, config.norm_offset
        self.scale = nnx.Param((jnp.zeros if self.offset else jnp.ones)((width,), jnp.float32))

    def __call__(self, x: jax.Array) -> jax.Array:
        x32 = x.astype(jnp.float32)
        normed = x32 * jax.lax.rsqrt(jnp.mean(x32 * x32, axis=-1, keepdims=True) + self.epsilon)
        if self.offset:
            scale = 1 + self.scale[...].astype(jnp.float32)
            return (normed * jnp.broadcast_to(scale, x.shape)).astype(x.dtype)
        return normed.astype(x.dtype) * jnp.broadcast_to(self.scale[...].astype(x.dtype), x.shape)


class Projection(nnx.Module):
    """A linear map of the last dimensions, with a bias or a low-rank adapter where there is one."""

    def __init__(
        self, name: str, inside: tuple, outside: tuple, *, bias=False, adapter: LowRank | None, rngs: nnx.Rngs
    ):
        """
        Args:
          name: key of PROJECTIONS.
          inside: shape that goes in.
          outside: shape that comes out.
        """
        self.inside = len(inside)
        fan_in = math.prod(inside)
        self.weight = random_weight(rngs, (*inside, *outside), fan_in)
        if bias:
            self.bias = nnx.Param(jnp.zeros(outside, jnp.float32))
        if adapter is not None and name in adapter.targets:
            # B is zero, so that training starts from the frozen model.
            self.scale = adapter.alpha / adapter.rank
            self.lora_a = random_weight(rngs, (*inside, adapter.rank), fan_in)
            self.lora_b = nnx.Param(jnp.zeros((adapter.rank, *outside), jnp.float32))

    def __call__(self, x: jax.Array) -> jax.Array:
        y = _product(x, self.weight, self.inside)
        if hasattr(self, "bias"):
            y += jnp.expand_dims(self.bias[...].astype(x.dtype), (0, 1))
        if hasattr(self, "lora_a"):
            y += _product(_product(x, self.lora_a, self.inside) * self.scale, self.lora_b, 1)
        return y


def _product(x: jax.Array, weight: nnx.Param, inside: int) -> jax.Array:
    """Over the `inside` last dimensions of x. Of two matrices: XLA for CPUs transposes what others' gradients are of as it computes it, slowly."""
    weights = cast(weight, x.dtype)
    matrix = weights.reshape(math.prod(weights.shape[:inside]), -1)
    return (x.reshape(-1, matrix.shape[0]) @ matrix).reshape(*x.shape[: x.ndim - inside], *weights.shape[inside:])


class Attention(nnx.Module):
    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        self.config = config
        d, heads, kv_heads = config.d_model, (config.n_heads, config.head_dim), (config.n_kv_heads, config.head_dim)
        options = {"adapter": config.adapter, "rngs": rngs}
        self.query = Projection("query", (d,), heads, bias=config.query_bias, **options)
        self.key = Projection("key", (d,), kv_heads, bias=config.query_bias, **options)
        self.value = Projection("value", (d,), kv_heads, bias=config.query_bias, **options)
        self.output = Projection("output", heads, (d,), **options)
        if config.query_norm:
            whole = config.query_norm == "width"
            widths = (math.prod(shape) if whole else config.head_dim for shape in (heads, kv_heads))
            self.query_norm, self.key_norm = (RMSNorm(width, config) for width in widths)

    def __call__(self, x: jax.Array, positions: jax.Array, attend: Attend, turns: jax.Array | None = None):
        q, k, v = self.query(x), self.key(x), self.value(x)
        if self.config.query_norm == "head":
            q, k = self.query_norm(q), self.key_norm(k)
        elif self.config.query_norm == "width":
            q, k = (
                norm(each.reshape(*x.shape[:2], -1)).reshape(each.shape)
                for norm, each in ((self.query_norm, q), (self.key_norm, k))
            )
        if self.config.query_scalar is not None and self.config.query_scalar != self.config.head_dim:
            # Whoever attends divides by the root of head_dim.
            q = q * jnp.asarray((self.config.head_dim / self.config.query_scalar) ** 0.5, q.dtype)
        scaling = self.config.rope_scaling
        magnitude = scaling.magnitude if isinstance(scaling, LongRope) else 1.0
        rope = (positions, frequencies(self.config) if turns is None else turns, magnitude)
        q = constrain(rotate(q, *rope), "batch", "sequence", "heads", "head_dim")
        out, kept = attend(q, rotate(k, *rope), v)
        return self.output(out), kept


ACTIVATIONS = {"silu": jax.nn.silu, "gelu_tanh": functools.partial(jax.nn.gelu, approximate=True)}  # of an MLP's gate


class SwiGLU(nnx.Module):
    """down(activation(gate(x)) * up(x))."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        d, f, options = (config.d_model,), (config.d_ff,), {"adapter": config.adapter, "rngs": rngs}
        self.gate = Projection("gate", d, f, **options)
        self.up = Projection("up", d, f, **options)
        self.down = Projection("down", f, d, **options)
        self.activation, self.width = config.activation, config.d_ff

    def __call__(self, x: jax.Array, by_parts: bool = False) -> tuple[jax.Array, None]:
        """
        Args:
          by_parts: of a wide one, to hold a part of its weights, activations and gradients at a time, and to compute each part
            again in the backward pass.
        """
        parts = _mlp_parts(self.width) if by_parts else 1
        return self._in_parts(x, parts) if parts > 1 else self._whole(x), None

    def _whole(self, x: jax.Array) -> jax.Array:
        hidden = ACTIVATIONS[self.activation](self.gate(x)) * self.up(x)
        return self.down(constrain(hidden, "batch", "sequence", "mlp"))

    def _in_parts(self, x: jax.Array, parts: int) -> jax.Array:
        """A SwiGLU is the sum of narrower ones, which have a share of the width each."""
        graphdef, weights = nnx.split(self)
        # What is cut has its gradient from one part alone; the rest, of an adapter, stays as it is, so that theirs adds up in its dtype.
        weights = {
            projection: {
                name: cast(weight, x.dtype) if "mlp" in projection_axes(projection, name, by_rows=False) else weight
                for name, weight in own.items()
            }
            for projection, own in nnx.to_pure_dict(weights).items()
        }

        def narrow(x, weights, number):
            own = {name: _mlp_part(name, projection, parts, number) for name, projection in weights.items()}
            return nnx.merge(graphdef, own)._whole(x)

        return _added(narrow, parts, x, weights)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _added(function: Callable, count: int, x: jax.Array, weights: dict) -> jax.Array:
    """The sum of function(x, weights, number), like x, over the numbers below `count`. The backward pass keeps none of what they
    compute; the gradient of x adds up in float32, as the sum does."""

    def add(total, number):
        return total + function(x, weights, number).astype(jnp.float32), None

    return jax.lax.scan(add, jnp.zeros(x.shape, jnp.float32), jnp.arange(count))[0].astype(x.dtype)


def _added_backward(function, count, saved, cotangent):
    def add(total, number):
        _, pull = jax.vjp(lambda x, weights: function(x, weights, number), *saved)
        return jax.tree.map(lambda sum_, own: sum_ + own.astype(sum_.dtype), total, pull(cotangent)), None

    x, weights = saved
    start = jnp.zeros(x.shape, jnp.float32), jax.tree.map(jnp.zeros_like, weights)
    (gradient, weights_gradient), _ = jax.lax.scan(add, start, jnp.arange(count))
    return gradient.astype(x.dtype), weights_gradient


_added.defvjp(lambda function, count, x, weights: (_added(function, count, x, weights), (x, weights)), _added_backward)


def _mlp_parts(width: int) -> int:
    """Into how many parts the width goes, each of which takes an equal share of every device's."""
    devices = _mlp_devices(width)
    own, gathered = width // devices, devices // shards_here("mlp")
    fitting = (parts for parts in range(1, own) if own % parts == 0 and own // parts * gathered <= MLP_PART)
    return next(fitting, own)


def _mlp_devices(width: int) -> int:
    """Over how many devices some weight splits it. A part is cut from the share of each, so that no more is gathered."""
    rows = width % shards_here("mlp_in") == 0 and splits_rows(jax.sharding.get_abstract_mesh())
    return shards_here("mlp_in" if rows else "mlp")


def _mlp_part(projection: str, weights: dict, parts: int, number: jax.Array) -> dict:
    """A projection's weights, those along the MLP's width cut to part `number`."""

    def cut(name: str, weight: jax.Array) -> jax.Array:
        if "mlp" not in (axes := projection_axes(projection, name, by_rows=False)):
            return weight
        axis = axes.index("mlp")
        devices = _mlp_devices(weight.shape[axis])
        axes = projection_axes(projection, name, by_rows=devices == shards_here("mlp_in"))
        apart = weight.reshape(*weight.shape[:axis], devices, -1, *weight.shape[axis + 1 :])
        size = apart.shape[axis + 1] // parts
        own = jax.lax.dynamic_slice_in_dim(apart, number * size, size, axis + 1)
        return constrain(own.reshape(*weight.shape[:axis], -1, *weight.shape[axis + 1 :]), *axes)

    return {name: cut(name, weight) for name, weight in weights.items()}


def projection_axes(projection: str, name: str, by_rows: bool = True) -> tuple[str, ...]:
    """Logical axes of a projection's weight of this name, by rows where it may be."""
    inside, outside = PROJECTIONS[projection]
    rows = by_rows and inside[0] in ROWS
    return {
        "weight": (ROWS[inside[0]], *inside[1:], "activation") if rows else (*inside, *outside),
        "bias": outside,
        "lora_a": (*inside, "rank"),
        "lora_b": ("rank", *outside),
    }[name]


class Experts(nnx.Module):
    """A sparse mixture of SwiGLUs (Mixtral, arXiv 2401.04088): a router chooses a few for each token and weighs them."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        self.chosen, self.renormalized = config.experts_per_token, config.renormalized
        e, d, f = config.n_experts, config.d_model, config.d_ff
        self.router = Projection("router", (d,), (e,), adapter=None, rngs=rngs)
        self.gates = random_weight(rngs, (e, d, f), d)
        self.ups = random_weight(rngs, (e, d, f), d)
        self.downs = random_weight(rngs, (e, f, d), f)

    def __call__(self, x: jax.Array, by_parts: bool = False) -> tuple[jax.Array, Routing]:
        """x [B, T, D] -> like x, and the router's choices. `by_parts` is as `SwiGLU` has it and changes nothing here."""
        routing = Routing(self.router(x).astype(jnp.float32))
        weights, experts = routing.choose(self.chosen, self.renormalized)
        stacks = (cast(stack, x.dtype) for stack in (self.gates, self.ups, self.downs))
        return mix_experts(x, weights.astype(x.dtype), experts, *stacks), routing


class Block(nnx.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)); or with norms behind them, or both before and behind."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        before, behind = config.norms != "behind", config.norms != "before"
        if before:
            self.attention_norm = RMSNorm(config.d_model, config)
        self.attention = Attention(config, rngs=rngs)
        if behind:
            self.attention_post_norm = RMSNorm(config.d_model, config)
        if before:
            self.mlp_norm = RMSNorm(config.d_model, config)
        self.mlp = (Experts if config.n_experts else SwiGLU)(config, rngs=rngs)
        if behind:
            self.mlp_post_norm = RMSNorm(config.d_model, config)

    def __call__(
        self,
        x: jax.Array,
        positions: jax.Array,
        attend: Attend,
        by_parts: bool = False,
        turns: jax.Array | None = None,
    ):
        """x [B, T, D], positions [B, T] -> like x, what `attend` keeps of the keys and values, and the router's choices, if any.

        Args:
          by_parts: of the MLP, as in `SwiGLU`.
          turns: this layer's `rope.frequencies`, where they are its own.
        """
        attended, kept = self.attention(self._normed("attention_norm", x), positions, attend, turns)
        x = x + self._normed("attention_post_norm", attended)
        y, routing = self.mlp(self._normed("mlp_norm", x), by_parts)
        return constrain(x + self._normed("mlp_post_norm", y), "batch", "sequence", "activation"), kept, routing

    def _normed(self, name: str, x: jax.Array) -> jax.Array:
        """x, normed where this block has such a norm."""
        return getattr(self, name)(x) if hasattr(self, name) else x
