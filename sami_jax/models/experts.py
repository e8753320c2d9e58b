"""A sparse mixture of experts without capacity: every token reaches the experts chosen for it, however unevenly they are.

Tokens are sorted by expert and multiplied as ragged groups, on GPUs in blocks. On a mesh each device holds the experts of its place along the
expert axis: it gathers the tokens of that axis, computes its own experts' share, and the shares are added up on their way
back.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from sami_jax.kernels.grouped import grouped_swiglu
from sami_jax.sharding import EXPERT_AXIS, FSDP_AXIS, TENSOR_AXIS, on_gpus, partition_spec

FEW_ROWS = 512  # on GPUs, every expert on every row costs little for fewer, and less than blocks


class RouterLosses(NamedTuple):
    """Means over tokens, [] float32 each: E sum_e (share of choices that fell on e) (mean probability of e), where 1 is even (Switch,
    arXiv 2101.03961, eq. 4), and logsumexp of the router's logits, squared (ST-MoE, arXiv 2202.08906, eq. 5)."""

    balance: jax.Array
    z: jax.Array


class Routing(NamedTuple):
    logits: jax.Array  # [N, T, E] float32, the router's

    def choose(self, count: int, renormalized: bool = True) -> tuple[jax.Array, jax.Array]:
        """The likeliest experts of each token [N, T, count], their weights first: which add up to 1, or are probabilities among all."""
        probabilities, experts = jax.lax.top_k(jax.nn.softmax(self.logits, axis=-1), count)
        if not renormalized:
            return probabilities, experts
        return probabilities / jnp.sum(probabilities, axis=-1, keepdims=True), experts

    def losses(self, count: int, real: jax.Array) -> RouterLosses:
        """Of `count` experts chosen for each token; `real` [N, T] bool is False at padding."""
        share = real / jnp.maximum(jnp.sum(real), 1)
        chosen = jax.nn.one_hot(self.choose(count)[1], self.logits.shape[-1]).mean(axis=2)
        fell, likely = (
            jnp.einsum("nt,nte->e", share, x) for x in (jax.lax.stop_gradient(chosen), jax.nn.softmax(self.logits))
        )
        z = jnp.sum(share * jnp.square(jax.nn.logsumexp(self.logits, axis=-1)))
        return RouterLosses(self.logits.shape[-1] * jnp.sum(fell * likely), z)


def mix_experts(x, weights, experts, gates, ups, downs) -> jax.Array:
    """sum_k weights[..., k] SwiGLU_{experts[..., k]}(x), [N, T, D].

    Args:
      x: [N, T, D].
      weights: [N, T, k].
      experts: [N, T, k] int32.
      gates: [E, D, F], as `ups`; `downs` is [E, F, D].
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return _own_share(x, weights, experts, gates, ups, downs, 0)
    rows = partition_spec(("batch", None, None))
    into, out = partition_spec(("experts", "expert_embed", "mlp")), partition_spec(("experts", "mlp", "expert_embed"))
    on_devices = functools.partial(jax.shard_map, in_specs=(rows, rows, rows, into, into, out), out_specs=rows)

    @functools.partial(on_devices, check_vma=False)
    def share(x, weights, experts, gates, ups, downs):
        x, weights, experts = (
            jax.lax.all_gather(rows, EXPERT_AXIS, axis=0, tiled=True) for rows in (x, weights, experts)
        )
        gates, ups, downs = _whole(gates, 1), _whole(ups, 1), _whole(downs, 2)
        first = jax.lax.axis_index(EXPERT_AXIS) * gates.shape[0]
        y = jax.lax.psum(_own_share(x, weights, experts, gates, ups, downs, first), TENSOR_AXIS)
        return jax.lax.psum_scatter(y, EXPERT_AXIS, scatter_dimension=0, tiled=True)

    return share(x, weights, experts, gates, ups, downs)


def _whole(stack: jax.Array, axis: int) -> jax.Array:
    """A layer's stack, gathered along its split axis. For GPUs as a dimension in front, as these gather, else XLA keeps a copy of all layers
    with that axis in front."""
    if not on_gpus():
        return jax.lax.all_gather(stack, FSDP_AXIS, axis=axis, tiled=True)
    parts = jnp.moveaxis(jax.lax.all_gather(stack, FSDP_AXIS), 0, axis)
    return parts.reshape(*stack.shape[:axis], -1, *stack.shape[axis + 1 :])


def _own_share(x, weights, experts, gates, ups, downs, first) -> jax.Array:
    """What experts `first` and following, whose stacks are given, add to the mixture."""
    count, groups = experts.shape[-1], gates.shape[0]
    own = experts.reshape(-1) - first
    # Choices of other devices' experts come behind, where no group reaches.
    own = jnp.where((own >= 0) & (own < groups), own, groups)
    back = _sorted_places(own, groups + 1)
    order = jnp.zeros_like(back).at[back].set(jnp.arange(back.shape[0], dtype=back.dtype), unique_indices=True)
    sizes = jnp.bincount(own, length=groups + 1)[:-1].astype(jnp.int32)
    reached = (jnp.arange(own.shape[0]) < jnp.sum(sizes))[:, None]
    each = jnp.repeat(x.reshape(-1, x.shape[-1]), count, axis=0)
    swiglu = grouped_swiglu if on_gpus() and own.shape[0] >= FEW_ROWS else _ragged_swiglu
    y = swiglu(_permute(each, order, back), sizes, gates, ups, downs)
    y = _permute(jnp.where(reached, y, 0), back, order)
    return jnp.sum(y.reshape(*experts.shape, -1) * weights[..., None], axis=2)


def _sorted_places(numbers: jax.Array, bound: int) -> jax.Array:
    """Where each of [R] numbers below `bound`, which is small, stands when they are sorted, equal ones in their order. By counting: for
    GPUs a sort of many is compiled by a library that wants to see one."""
    counts = jnp.cumsum(jax.nn.one_hot(numbers, bound, dtype=jnp.int32), axis=0)
    before = jnp.cumsum(counts[-1]) - counts[-1]
    return before[numbers] + jnp.take_along_axis(counts, numbers[:, None], axis=1)[:, 0] - 1


def _ragged_swiglu(rows, sizes, gates, ups, downs) -> jax.Array:
    """As `grouped_swiglu`."""
    hidden = jax.nn.silu(jax.lax.ragged_dot(rows, gates, sizes)) * jax.lax.ragged_dot(rows, ups, sizes)
    reached = (jnp.arange(rows.shape[0]) < jnp.sum(sizes))[:, None]
    return jax.lax.ragged_dot(jnp.where(reached, hidden, 0), downs, sizes)


@jax.custom_vjp
def _permute(x: jax.Array, order: jax.Array, back: jax.Array) -> jax.Array:
    """x[order]. Its gradient is the permutation back, which is faster than the scatter that a gather's gradient is."""
    return x[order]


_permute.defvjp(
    lambda x, order, back: (x[order], (order, back)),
    lambda saved, gradient: (gradient[saved[1]], None, None),
)
