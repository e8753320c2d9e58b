"""Optimizers, by name, as one optax chain: clip, then the rule, with a warm-up that never wastes an update."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from sami_jax.models.layers import cast

# Adafactor keeps two means in place of a matrix where both dimensions have this size at least, as heads of 64 or 128 have.
FACTORED_FROM = 64

OWN_DECAY = -1.0  # stands for the optimizer's own b2, which is:
DECAYS = {
    "adamw": 0.999,  # Kingma and Ba, arXiv 1412.6980; optax and torch
    "rmsprop": 0.99,  # torch, as the authors' code has it
    "adafactor": 0.999,  # not looked at: it has a schedule
    "lion": 0.99,  # Chen et al., arXiv 2302.06675
}

# Gradients to the direction of the update, before weight decay and learning rate. What one does to a weight depends on that
# weight alone.
OPTIMIZERS: dict[str, Callable[[ConfigDict], optax.GradientTransformation]] = {
    "adamw": lambda c: optax.scale_by_adam(c.b1, decay(c), c.epsilon),
    # The authors' code: torch.optim.RMSprop with its defaults.
    "rmsprop": lambda c: optax.scale_by_rms(decay(c), c.epsilon, eps_in_sqrt=False),
    # Without the scaling by a weight's own size: a config's learning rate is absolute.
    "adafactor": lambda c: optax.chain(
        optax.scale_by_factored_rms(min_dim_size_to_factor=FACTORED_FROM), optax.clip_by_block_rms(1.0)
    ),
    "lion": lambda c: optax.scale_by_lion(c.b1, decay(c)),
}


def decay(config: ConfigDict) -> float:
    """b2 of the `optim` part of a run's config: the one that it names, else the optimizer's own."""
    return DECAYS[config.name] if config.b2 == OWN_DECAY else config.b2


def learning_rate(config: ConfigDict) -> optax.Schedule:
    """Rises linearly to the full rate at update `warmup_updates`, starting above 0; then stays, or falls linearly over
    `decay_updates`, the last of which is still above 0.

    A schedule that starts at 0 spends one of very few updates on nothing, as an early version of the authors' code did.
    """
    rate, warmup, decayed = config.learning_rate, config.warmup_updates, config.decay_updates
    behind = optax.linear_schedule(rate, 0.0, decayed) if decayed else optax.constant_schedule(rate)
    if warmup == 0:
        return behind
    return optax.join_schedules([optax.linear_schedule(rate / (warmup + 1), rate, warmup), behind], [warmup])


def make_optimizer(config: ConfigDict) -> optax.GradientTransformation:
    """`config` is the `optim` part of a run's config."""
    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        _by_weight(OPTIMIZERS[config.name](config), jnp.dtype(config.moment_dtype), config.offload),
        optax.add_decayed_weights(config.weight_decay),
        optax.scale_by_learning_rate(learning_rate(config)),
    )


def apply_updates(params: dict, updates: optax.Updates, stochastic: bool, key: jax.Array) -> dict:
    """params + updates, rounded to the dtype of the params.

    Args:
      stochastic: round up or down by chance, so that on average nothing is lost: an update of 5e-7 is less than the step
        between bfloat16 numbers around a weight, and the nearest of them is the weight as it was.
      key: another one each time.
    """
    exact = jax.tree.map(lambda p, u: p.astype(jnp.float32) + u.astype(jnp.float32), params, updates)
    if stochastic:
        return _rounded(exact, params, key)
    return jax.tree.map(lambda e, p: e.astype(p.dtype), exact, params)


def effective_update(before: dict, after: dict, updates: optax.Updates, dtype) -> jax.Array:
    """The share of an update that the forward pass takes up, [] float32: <c(after) - c(before), update> / <update, update>, where c
    casts to `dtype`, to the nearest. 1 where all of it arrives; no number where the update is zero.

    Not a quotient of norms: weights rounded by chance move by a whole step or not at all. That noise has a norm far above the
    update's, and no share in the product on average.
    """

    def computed(weight):
        return cast(weight, jnp.dtype(dtype)).astype(jnp.float32)

    def products(before, after, update):
        update = update.astype(jnp.float32)
        moved = computed(after) - computed(before)
        return jnp.stack([jnp.sum(moved * update), jnp.sum(update * update)])

    both = jax.tree.reduce(jnp.add, jax.tree.map(products, before, after, updates))
    return both[0] / both[1]


def stochastic_round(x: jax.Array, key: jax.Array) -> jax.Array:
    """float32 to bfloat16, to one of the two neighbours, the nearer the likelier: its mean is x."""
    bits = jax.lax.bitcast_convert_type(x, jnp.uint32)
    # A bfloat16 is the upper half of a float32. What is added to the lower half carries over with the right probability.
    bits += jax.random.bits(key, x.shape, jnp.uint16).astype(jnp.uint32)
    cut = jax.lax.bitcast_convert_type(bits & jnp.uint32(0xFFFF0000), jnp.float32)
    return jnp.where(jnp.isfinite(x), cut, x).astype(jnp.bfloat16)


class Moments(NamedTuple):
    by_weight: Any  # like the params, in place of each weight what the rule keeps of it
    count: jax.Array  # [] int32, updates made


def _by_weight(rule: optax.GradientTransformation, dtype, offloaded: bool) -> optax.GradientTransformation:
    """The rule on each weight of each layer for itself, computed in float32, its moments kept in `dtype` between updates. To
    bfloat16 they are rounded by chance: a moment that moves by a thousandth would otherwise never move.

    Args:
      offloaded: moments come from host memory and go back there, layer by layer, so that the device never holds them all.
    """

    def init_one(weight):
        return _floats(rule.init(weight.astype(jnp.float32)), dtype)

    def update_one(gradient, old, weight, key):
        if offloaded:
            old = _moved(old, jax.memory.Space.Device)
        change, new = rule.update(gradient, _floats(old, jnp.float32), weight.astype(jnp.float32))
        new = _rounded(new, old, key)
        return change, _moved(new, jax.memory.Space.Host) if offloaded else new

    def update_layers(gradient, old, weight, key):
        each = gradient, old, weight, jax.random.split(key, len(gradient))
        if offloaded:
            return jax.lax.scan(lambda _, layer: (None, update_one(*layer)), None, each)[1]
        return jax.vmap(update_one)(*each)

    def init(params):
        def of_weight(path, weight):
            return (jax.vmap(init_one) if _stacked(path) else init_one)(weight)

        return Moments(jax.tree_util.tree_map_with_path(of_weight, params), jnp.int32(0))

    def update(updates, state, params=None):
        moments: Moments = state
        leaves, structure = jax.tree_util.tree_flatten_with_path(updates)
        # No run has a seed of -1, so that no weight is rounded by the same chances.
        keys = jax.random.split(jax.random.fold_in(jax.random.key(-1), moments.count), len(leaves))
        trees = structure.flatten_up_to(moments.by_weight), structure.flatten_up_to(params)
        pairs = [
            (update_layers if _stacked(path) else update_one)(gradient, *others)
            for (path, gradient), *others in zip(leaves, *trees, keys, strict=True)
        ]
        changes, kept = (structure.unflatten(part) for part in zip(*pairs, strict=True))
        return changes, Moments(kept, moments.count + 1)

    return optax.GradientTransformation(init, update)


def _stacked(path) -> bool:
    """Whether a weight's first axis is the layer."""
    return path[0].key == "blocks"


def _moved(tree, space):
    """Moments in another memory, of `jax.memory.Space`; counts stay."""
    return jax.tree.map(lambda x: jax.device_put(x, space) if _is_float(x) else x, tree)


def _rounded(tree, like, key: jax.Array):
    """Rounds by chance where `like` is bfloat16, each leaf with a key of its own."""
    leaves, structure = jax.tree.flatten(tree)
    keys = jax.random.split(key, len(leaves))
    return jax.tree.unflatten(
        structure,
        [
            stochastic_round(leaf, own) if old.dtype == jnp.bfloat16 else leaf.astype(old.dtype)
            for leaf, old, own in zip(leaves, jax.tree.leaves(like), keys, strict=True)
        ],
    )


def _floats(tree, dtype):
    """The tree with its floats cast."""
    return jax.tree.map(lambda x: x.astype(dtype) if _is_float(x) else x, tree)


def _is_float(x) -> bool:
    return jnp.issubdtype(x.dtype, jnp.floating)
