"""Going through stacked layers with a scan, and back."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

# What the backward pass of a layer may keep instead of recomputing. "none" keeps everything.
REMAT_POLICIES = {
    "none": None,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,  # keep matmul outputs, recompute attention
    "full": jax.checkpoint_policies.nothing_saveable,  # keep only each layer's input
}

# (carry, weights of one layer, context) -> carry
Layer = Callable[..., Any]


def scan_layers(layer: Layer, carry, weights: dict, context, remat: str):
    """The carry after all layers.

    Args:
      weights: stacked, the layers' axis first.
      context: what every layer sees besides; not differentiated.
      remat: key of REMAT_POLICIES.
    """

    def step(carry, weights):
        return layer(carry, weights, context), None

    if REMAT_POLICIES[remat] is not None:
        step = jax.checkpoint(step, policy=REMAT_POLICIES[remat], prevent_cse=False)
    return jax.lax.scan(step, carry, weights)[0]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def accumulate_layers(layer: Layer, carry, weights: dict, context, accumulator: dict) -> tuple[Any, dict]:
    """As `scan_layers` with remat "full", with the gradient of the weights going another way: along `accumulator`, which is
    passed through as it is. The cotangent that comes in for it, the gradient of all that was before, goes out with this
    gradient added, layer by layer, in place. Apart, the two would be held at once.

    Args:
      accumulator: a tree like `weights`, or with a part of its leaves: those that are trained. Its values are not looked at.
    Returns:
      the carry after all layers, and the accumulator.
    """
    return scan_layers(layer, carry, weights, context, "none"), accumulator


def _forward(layer, carry, weights, context, accumulator):
    out, inputs = jax.lax.scan(lambda carry, w: (layer(carry, w, context), carry), carry, weights)
    return (out, accumulator), (inputs, weights, context)


def _backward(layer, saved, cotangents):
    inputs, weights, context = saved
    numbers = jnp.arange(jax.tree.leaves(weights)[0].shape[0])

    def step(cotangents, of_layer):
        carry_cotangent, total = cotangents
        number, carry, weights = of_layer
        trained = part(weights, total)
        _, pull = jax.vjp(lambda carry, trained: layer(carry, joined(weights, trained), context), carry, trained)
        carry_cotangent, gradient = pull(carry_cotangent)
        total = jax.tree.map(lambda sum_, own: sum_.at[number].add(own.astype(sum_.dtype)), total, gradient)
        return (carry_cotangent, total), None

    (carry_cotangent, total), _ = jax.lax.scan(step, cotangents, (numbers, inputs, weights), reverse=True)
    return carry_cotangent, None, None, total


accumulate_layers.defvjp(_forward, _backward)


def part(tree: dict, like: dict) -> dict:
    """The leaves of nested dicts `tree` that `like` has."""
    return {key: part(tree[key], value) if isinstance(value, dict) else tree[key] for key, value in like.items()}


def joined(tree: dict, other: dict) -> dict:
    """Nested dicts with the leaves of both; those of `other` prevail."""
    both = {
        key: joined(tree[key], value) if isinstance(value, dict) and key in tree else value
        for key, value in other.items()
    }
    return {**tree, **both}


@contextlib.contextmanager
def lent(tree: dict, other: dict) -> Iterator[dict]:
    """`joined`; until the block is left, `tree` is empty, so that whoever takes the arrays apart holds them once. It stays so where the
    block fails."""
    whole, like = joined(tree, other), jax.tree.map(lambda _: None, tree)
    tree.clear()
    yield whole
    tree.update(part(whole, like))
