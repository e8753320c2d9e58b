"""S[b, i, j] = log p(y_j | c_i, x_b): the sharded matrix of conditional log-likelihoods."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from sami_jax.data.batches import ContrastBatch
from sami_jax.models.config import ModelConfig
from sami_jax.models.decoder import Decoder, bind
from sami_jax.packing import PackedRows, Scored
from sami_jax.sharding import constrain
from sami_jax.unembedding import chosen_logprobs, map_chunks


class Likelihoods(NamedTuple):
    summed: jax.Array  # [B, C, C] float32, log p(y_j | c_i, x_b)
    kl: jax.Array | None  # [B, C] float32, KL(policy || reference) summed over the tokens of y_i under c_i, nats


def likelihoods(
    params: dict,
    config: ModelConfig,
    batch: ContrastBatch,
    *,
    reference: dict | None = None,
    compute_dtype="float32",
    remat: str = "none",
    at_once: int = 0,
) -> Likelihoods:
    """Every response under every constitution; the C responses under one (c_i, x_b) share its prefix, computed once.

    Args:
      params: weights in any dtype; cast to `compute_dtype` where they are used, so that gradients add up in theirs.
      reference: weights for the KL term.
      remat: key of `decoder.REMAT_POLICIES`.
      at_once: constitutions computed together. The rest wait for their turn and are computed again in the backward pass, so
        that memory is that of `at_once`. Divides C; 0 takes all.
    """
    b, count = batch.prefix_lengths.shape

    def some(tokens, prefix_lengths, numbers) -> Likelihoods:
        """tokens [B, g, T], prefix_lengths [B, g], numbers [g] of the constitutions in this group."""
        g = numbers.shape[0]
        rows = _rows(tokens, prefix_lengths, batch)
        model = bind(config, _cast(params, compute_dtype))
        logprobs, hidden, scored = _logprobs(model, rows, remat)
        kl = None
        if reference is not None:
            other = bind(config, _cast(reference, compute_dtype))
            kl = _own_kl(model, other, rows, hidden, jnp.tile(numbers, b), remat).reshape(b, g)
        return Likelihoods(_by_response(logprobs, scored.owners, count).reshape(b, g, count), kl)

    if at_once in (0, count):
        return some(batch.tokens, batch.prefix_lengths, jnp.arange(count))

    def in_groups(x, axis):
        shape = (*x.shape[:axis], count // at_once, at_once, *x.shape[axis + 1 :])
        return jnp.moveaxis(x.reshape(shape), axis, 0)

    groups = (in_groups(batch.tokens, 1), in_groups(batch.prefix_lengths, 1), in_groups(jnp.arange(count), 0))
    parts = jax.lax.map(jax.checkpoint(lambda group: some(*group)), groups)
    return jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1).reshape(b, count, *x.shape[3:]), parts)


def plain_likelihoods(params: dict, config: ModelConfig, batch: ContrastBatch, *, compute_dtype="float32") -> jax.Array:
    """`likelihoods`, [B, C, C], with every (i, j) pair a row of its own: B C^2 rows of P + L tokens.

    The reference that the shared prefix is checked against.
    """
    b, count = batch.prefix_lengths.shape
    model = bind(config, _cast(params, compute_dtype))
    shared = _rows(batch.tokens, batch.prefix_lengths, batch)
    each = jax.tree.map(lambda x: jnp.repeat(x, count, axis=0), shared)
    rows = each.alone(jnp.tile(jnp.arange(count), b * count))
    logprobs, _, scored = _logprobs(model, rows)
    return _by_response(logprobs, scored.owners, 1).reshape(b, count, count)


def token_logprobs(params: dict, config: ModelConfig, batch: ContrastBatch, *, compute_dtype="float32") -> jax.Array:
    """log p of each token of the responses under each prompt, not summed: [B, C, R] float32, in the order of the rows.

    Behind the last response stands whatever comes. A batch may have more prompts here than responses, or fewer.
    """
    b, count = batch.prefix_lengths.shape
    model = bind(config, _cast(params, compute_dtype))
    return _logprobs(model, _rows(batch.tokens, batch.prefix_lengths, batch))[0].reshape(b, count, -1)


def normalized(summed: jax.Array, response_lengths: jax.Array, normalize: str) -> jax.Array:
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


def _logprobs(model: Decoder, rows: PackedRows, remat: str = "none") -> tuple[jax.Array, jax.Array, Scored]:
    """Of each scored token [N, R] float32, with the hidden states [N, R, D] that predict them, and what was scored."""
    scored = rows.scored()
    hidden = _at(model.packed(rows, remat), scored.predictors)
    logprobs = chosen_logprobs(hidden.reshape(-1, hidden.shape[-1]), model.table(), scored.targets.reshape(-1))
    return logprobs.reshape(scored.targets.shape), hidden, scored


def _by_response(x: jax.Array, owners: jax.Array, count: int) -> jax.Array:
    """[N, R] of the scored tokens, summed for each of the responses, [N, C]."""
    mine = owners[:, :, None] == jnp.arange(1, count + 1)[None, None]
    return jnp.sum(jnp.where(mine, x[:, :, None], 0.0), axis=1)


def _own_kl(
    model: Decoder, reference: Decoder, rows: PackedRows, hidden: jax.Array, numbers: jax.Array, remat: str
) -> jax.Array:
    """KL over the whole vocabulary, [N] float32, summed over the tokens of response `numbers[n]` of row n.

    The authors' code averages over prompt and padding positions too; here only response tokens count.
    """
    alone = rows.alone(numbers)
    scored = alone.scored()
    offsets = jnp.take_along_axis(rows.starts, numbers[:, None], axis=1) - rows.prefix_lengths[:, None]
    places = jnp.minimum(offsets + jnp.arange(alone.sizes.responses)[None], hidden.shape[1] - 1)
    own = _at(hidden, places)
    other = jax.lax.stop_gradient(_at(reference.packed(alone, remat), scored.predictors))

    table = model.table().astype(jnp.float32)  # so that its gradient adds up in float32

    @jax.checkpoint
    def kl(hidden, other):
        logits = jnp.matmul(hidden, table.astype(hidden.dtype), preferred_element_type=jnp.float32)
        logp = jax.nn.log_softmax(logits, axis=-1)
        logq = jax.nn.log_softmax(reference.unembed(other), axis=-1)
        return jnp.sum(jnp.exp(logp) * (logp - logq), axis=-1)

    d = hidden.shape[-1]
    per_token = map_chunks(kl, own.reshape(-1, d), other.reshape(-1, d)).reshape(places.shape)
    return jnp.sum(jnp.where(scored.owners == 1, per_token, 0.0), axis=1)


def _at(hidden: jax.Array, places: jax.Array) -> jax.Array:
    """Hidden states [N, T, D] at places [N, R]."""
    return jnp.take_along_axis(hidden, places[..., None], axis=1)


def _cast(params: dict, dtype) -> dict:
    return jax.tree.map(lambda w: w.astype(dtype), params)
