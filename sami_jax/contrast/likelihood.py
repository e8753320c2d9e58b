"""S[b, i, j] = log p(y_j | c_i, x_b): the sharded matrix of conditional log-likelihoods."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from sami_jax.contrast.divergence import divergences
from sami_jax.contrast.unembedding import chosen_logprobs
from sami_jax.data.batches import ContrastBatch
from sami_jax.data.packing import PackedRows, Scored
from sami_jax.models.config import ModelConfig
from sami_jax.models.decoder import Decoder, Packed, bind
from sami_jax.models.experts import RouterLosses
from sami_jax.sharding import constrain

Arrays = jax.Array | np.ndarray


class Likelihoods(NamedTuple):
    summed: jax.Array  # [B, C, C] float32, log p(y_j | c_i, x_b)
    base: jax.Array | None  # [B, C, C] float32, `summed` of the reference
    kl: jax.Array | None  # [B, C] float32, KL(policy || reference) summed over the tokens of y_i under c_i, nats
    router: RouterLosses | None  # of a mixture of experts, means over tokens and layers
    accumulator: dict | None  # the one that was given


def likelihoods(
    params: dict,
    config: ModelConfig,
    batch: ContrastBatch,
    *,
    reference: dict | None = None,
    over_base: bool = False,
    divergence: bool = True,
    compute_dtype="float32",
    remat: str = "none",
    at_once: int = 0,
    accumulator: dict | None = None,
) -> Likelihoods:
    """Every response under every constitution; the C responses under one (c_i, x_b) share its prefix, computed once.

    Args:
      params: weights in any dtype; cast to `compute_dtype` where they are used, so that gradients add up in theirs.
      reference: weights of the base, without adapters. They go through the rows once, whatever is wanted of them.
      over_base: of the reference, compute every response under every constitution.
      divergence: of the reference, compute the KL to it.
      remat: key of `stack.REMAT_POLICIES`.
      at_once: constitutions computed together. The rest wait for their turn and are computed again in the backward pass, so
        that memory is that of `at_once`. Divides C; 0 takes all.
      accumulator: for the gradient of the blocks, see `stack.accumulate_layers`; None for the usual way.
    """
    b, count = batch.prefix_lengths.shape

    def some(accumulator, group, params, reference):
        """Of a group: tokens [B, g, T], prefix_lengths [B, g], numbers [g] of its constitutions."""
        tokens, prefix_lengths, numbers = group
        model, g = bind(config, params), numbers.shape[0]
        rows = _rows(tokens, prefix_lengths, batch)
        logprobs, scored, packed = _logprobs(model, rows, compute_dtype, remat, accumulator)
        summed = _by_response(logprobs, scored.owners, count).reshape(b, g, count)
        base = kl = None
        if reference is not None:
            other, seen = bind(dataclasses.replace(config, adapter=None), reference), None
            if over_base:
                logprobs, _, seen = _logprobs(other, rows, compute_dtype)
                base = _by_response(logprobs, scored.owners, count).reshape(b, g, count)
            if divergence:
                kl = _own_kl(model, other, rows, packed.hidden, seen and seen.hidden, jnp.tile(numbers, b))
                kl = kl.reshape(b, g)
        return packed.accumulator, (summed, base, kl, packed.router)

    everything = (batch.tokens, batch.prefix_lengths, jnp.arange(count))
    if at_once in (0, count):
        accumulator, found = some(accumulator, everything, params, reference)
        return Likelihoods(*found, accumulator)

    def in_turn(accumulator, group):
        # What depends on weights alone is the same for every group: jax would compute it once, before all, and keep it. That is little
        # work and much memory: of each norm's scale, a copy for each token of each layer. So weights are tied to the group.
        group, *weights = jax.lax.optimization_barrier((group, params, reference))
        return some(accumulator, group, *weights)

    def in_groups(x, axis):
        shape = (*x.shape[:axis], count // at_once, at_once, *x.shape[axis + 1 :])
        return jnp.moveaxis(x.reshape(shape), axis, 0)

    groups = tuple(in_groups(x, axis) for x, axis in zip(everything, (1, 1, 0), strict=True))
    accumulator, (*by_row, router) = jax.lax.scan(jax.checkpoint(in_turn), accumulator, groups)
    summed, base, kl = jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1).reshape(b, count, *x.shape[3:]), by_row)
    return Likelihoods(summed, base, kl, jax.tree.map(jnp.mean, router), accumulator)


def plain_likelihoods(
    params: dict, config: ModelConfig, batch: ContrastBatch, *, compute_dtype="float32", in_turn: bool = False
) -> jax.Array:
    """`likelihoods`, [B, C, C], with every (i, j) pair a row of its own: B C^2 rows of P + L tokens.

    The reference that the shared prefix is checked against.

    Args:
      in_turn: compute B rows at a time, one of each query; else all at once.
    """
    b, count = batch.prefix_lengths.shape
    model = bind(config, params)
    shared = _rows(batch.tokens, batch.prefix_lengths, batch)
    each = jax.tree.map(lambda x: jnp.repeat(x, count, axis=0), shared)
    rows = each.alone(jnp.tile(jnp.arange(count), b * count))

    def summed(rows: PackedRows) -> jax.Array:
        logprobs, scored, _ = _logprobs(model, rows, compute_dtype)
        return _by_response(logprobs, scored.owners, 1)[:, 0]

    if not in_turn:
        return summed(rows).reshape(b, count, count)
    turns = jax.tree.map(lambda x: jnp.moveaxis(x.reshape(b, count * count, *x.shape[1:]), 1, 0), rows)
    return jax.lax.map(summed, turns).T.reshape(b, count, count)


def token_logprobs(params: dict, config: ModelConfig, batch: ContrastBatch, *, compute_dtype="float32") -> jax.Array:
    """log p of each token of the responses under each prompt, not summed: [B, C, R] float32, in the order of the rows.

    Behind the last response stands whatever comes. A batch may have more prompts here than responses, or fewer.
    """
    b, count = batch.prefix_lengths.shape
    rows = _rows(batch.tokens, batch.prefix_lengths, batch)
    return _logprobs(bind(config, params), rows, compute_dtype)[0].reshape(b, count, -1)


def normalized(
    summed: Float[Arrays, "*batch C C"], response_lengths: Int[Arrays, "*batch C"], normalize: str
) -> Float[Arrays, "*batch C C"]:
    """S [..., C, C] as the objective takes it, from summed log-probs and response lengths [..., C].

    Args:
      normalize: "sum" is log p as the paper writes it; "mean" divides by the response's length, as the authors' code does.
    """
    if normalize == "sum":
        return summed
    return summed / jnp.maximum(response_lengths, 1)[..., None, :].astype(summed.dtype)


def _rows(tokens, prefix_lengths, batch: ContrastBatch) -> PackedRows:
    b, g, t = tokens.shape
    lengths = jnp.broadcast_to(batch.response_lengths[:, None], (b, g, batch.response_lengths.shape[1]))
    return PackedRows(
        constrain(tokens.reshape(b * g, t), "batch", "sequence"),
        prefix_lengths.reshape(-1),
        lengths.reshape(b * g, -1),
        batch.sizes,
    )


def _logprobs(
    model: Decoder, rows: PackedRows, dtype, remat: str = "none", accumulator: dict | None = None
) -> tuple[jax.Array, Scored, Packed]:
    """Of each scored token [N, R] float32, what was scored, and what is left of the pass, with the hidden states [N, R, D] that
    predict them."""
    scored = rows.scored()
    packed = model.packed(rows, dtype, remat, accumulator)
    packed = packed._replace(hidden=_at(packed.hidden, scored.predictors))
    hidden = packed.hidden.reshape(-1, packed.hidden.shape[-1])
    logprobs: Any = chosen_logprobs(hidden, model.table(), scored.targets.reshape(-1), model.config.logit_cap)
    return logprobs.reshape(scored.targets.shape), scored, packed


def _by_response(x: jax.Array, owners: jax.Array, count: int) -> jax.Array:
    """[N, R] of the scored tokens, summed for each of the responses, [N, C]."""
    mine = owners[:, :, None] == jnp.arange(1, count + 1)[None, None]
    return jnp.sum(jnp.where(mine, x[:, :, None], 0.0), axis=1)


def _own_kl(
    model: Decoder,
    reference: Decoder,
    rows: PackedRows,
    hidden: jax.Array,
    reference_hidden: jax.Array | None,
    numbers: jax.Array,
) -> jax.Array:
    """KL over the whole vocabulary, [N] float32, summed over the tokens of response `numbers[n]` of row n.

    The authors' code averages over prompt and padding positions too; here only response tokens count.

    Args:
      hidden: those that predict the rows' scored tokens.
      reference_hidden: the reference's; where None, it reads the one response of each row that is wanted.
    """
    alone = rows.alone(numbers)
    scored = alone.scored()
    offsets = jnp.take_along_axis(rows.starts, numbers[:, None], axis=1) - rows.prefix_lengths[:, None]
    places = jnp.minimum(offsets + jnp.arange(alone.sizes.responses)[None], hidden.shape[1] - 1)
    own = _at(hidden, places)
    if reference_hidden is None:
        other = _at(reference.packed(alone, hidden.dtype).hidden, scored.predictors)
    else:
        other = _at(reference_hidden, places)
    d = hidden.shape[-1]
    # Of a function with a gradient of its own, no type is known.
    per_token: Any = divergences(
        own.reshape(-1, d), model.table(), other.reshape(-1, d), reference.table(), model.config.logit_cap
    )
    per_token = per_token.reshape(places.shape)
    return jnp.sum(jnp.where(scored.owners == 1, per_token, 0.0), axis=1)


def _at(hidden: jax.Array, places: jax.Array) -> jax.Array:
    """Hidden states [N, T, D] at places [N, R]."""
    return jnp.take_along_axis(hidden, places[..., None], axis=1)
