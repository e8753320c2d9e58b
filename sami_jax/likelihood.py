"""S[b, i, j] = log p(y_j | c_i, x_b): the sharded matrix of conditional log-likelihoods."""

import jax
import jax.numpy as jnp

from sami_jax.data.batches import ContrastBatch
from sami_jax.models.config import ModelConfig
from sami_jax.models.decoder import Decoder, bind
from sami_jax.sharding import constrain

# Tokens unembedded at a time: bounds the logits in memory to TOKEN_CHUNK x V.
TOKEN_CHUNK = 1024


def token_logprobs(params: dict, config: ModelConfig, batch: ContrastBatch, remat: str = "none") -> jax.Array:
    """log p(token t of y_j | c_i, x_b, y_j before t), [B, C, C, L] float32, 0 at padding."""
    model = bind(config, params)
    return logprobs_at(model, pair_hidden_states(model, batch, remat), batch)


def logprobs_at(model: Decoder, hidden: jax.Array, batch: ContrastBatch) -> jax.Array:
    """As `token_logprobs`, from hidden states [B, C, C, L, D] that predict the response tokens."""
    targets = jnp.broadcast_to(batch.responses[:, None], hidden.shape[:-1])
    logprobs = chosen_logprobs(model, hidden.reshape(-1, hidden.shape[-1]), targets.reshape(-1))
    return jnp.where(_scored(batch)[:, None], logprobs.reshape(targets.shape), 0.0)


def conditional_loglikelihoods(token_logprobs: jax.Array, response_lengths: jax.Array, normalize: str) -> jax.Array:
    """S [B, C, C] from token log-probs [B, C, C, L] and response lengths [B, C].

    Args:
      normalize: "sum" is log p as the paper writes it; "mean" divides by the response's length, as the authors' code does.
    """
    total = jnp.sum(token_logprobs, axis=-1)
    if normalize == "sum":
        return total
    return total / jnp.maximum(response_lengths, 1)[:, None, :].astype(total.dtype)


def pair_hidden_states(model: Decoder, batch: ContrastBatch, remat: str = "none") -> jax.Array:
    """Hidden states that predict each token of y_j after (c_i, x_b), [B, C, C, L, D].

    The C responses under one (c_i, x_b) share its prefix, which is computed once: B C rows of P + C L tokens.
    """
    b, c, p = batch.prefixes.shape
    length = batch.responses.shape[-1]
    responses = jnp.broadcast_to(batch.responses[:, None], (b, c, c, length)).reshape(b * c, c, length)
    prefixes = constrain(batch.prefixes.reshape(b * c, p), "batch", "sequence")
    hidden = model.after_shared_prefix(prefixes, batch.prefix_lengths.reshape(-1), responses, remat)
    return hidden.reshape(b, c, c, length, -1)


def plain_pair_hidden_states(model: Decoder, batch: ContrastBatch, remat: str = "none") -> jax.Array:
    """As `pair_hidden_states`, with every (i, j) pair a row of its own: B C^2 rows of P + L tokens.

    The reference that the shared prefix is checked against.
    """
    b, c, p = batch.prefixes.shape
    length = batch.responses.shape[-1]
    prefixes = jnp.broadcast_to(batch.prefixes[:, :, None], (b, c, c, p)).reshape(-1, p)
    lengths = jnp.broadcast_to(batch.prefix_lengths[:, :, None], (b, c, c)).reshape(-1, 1)
    responses = jnp.broadcast_to(batch.responses[:, None], (b, c, c, length)).reshape(-1, length)
    # Padding stays between prefix and response; positions and the mask carry on across it.
    steps = jnp.arange(p + length)[None]
    positions = jnp.where(steps < p, steps, steps - p + lengths)
    valid = (steps < lengths) | (steps >= p)
    tokens = constrain(jnp.concatenate([prefixes, responses], axis=1), "batch", "sequence")
    hidden = model(tokens, positions, valid, remat)
    last = jnp.take_along_axis(hidden, lengths[..., None] - 1, axis=1)
    return jnp.concatenate([last, hidden[:, p:-1]], axis=1).reshape(b, c, c, length, -1)


def own_hidden_states(model: Decoder, batch: ContrastBatch, remat: str = "none") -> jax.Array:
    """The diagonal of `pair_hidden_states`, each response under its own constitution, [B, C, L, D]."""
    b, c, p = batch.prefixes.shape
    rows = (batch.prefixes.reshape(-1, p), batch.prefix_lengths.reshape(-1), batch.responses.reshape(b * c, 1, -1))
    return model.after_shared_prefix(*rows, remat).reshape(b, c, batch.responses.shape[-1], -1)


def chosen_logprobs(model: Decoder, hidden: jax.Array, targets: jax.Array) -> jax.Array:
    """log softmax(unembed(hidden))[target] for hidden [N, D] and targets [N] -> [N] float32."""

    def logprobs(hidden, targets):
        logits = model.unembed(hidden)
        chosen = jnp.take_along_axis(logits, targets[:, None], axis=1)[:, 0]
        return chosen - jax.nn.logsumexp(logits, axis=-1)

    return _by_chunk(logprobs, hidden, targets)


def kl_divergence(
    model: Decoder, reference: Decoder, batch: ContrastBatch, hidden: jax.Array, remat: str = "none"
) -> jax.Array:
    """KL(policy || reference) over the whole vocabulary, mean over response tokens, [] float32, nats.

    Args:
      hidden: the policy's hidden states [B, C, L, D] at each response under its own constitution. The authors' code
        averages over prompt and padding positions too; here only response tokens count.
    """
    reference_hidden = jax.lax.stop_gradient(own_hidden_states(reference, batch, remat))

    def kl(hidden, reference_hidden):
        logp = jax.nn.log_softmax(model.unembed(hidden), axis=-1)
        logq = jax.nn.log_softmax(reference.unembed(reference_hidden), axis=-1)
        return jnp.sum(jnp.exp(logp) * (logp - logq), axis=-1)

    d = hidden.shape[-1]
    per_token = _by_chunk(kl, hidden.reshape(-1, d), reference_hidden.reshape(-1, d))
    scored = _scored(batch).reshape(-1).astype(per_token.dtype)
    return jnp.sum(per_token * scored) / jnp.maximum(jnp.sum(scored), 1.0)


def _scored(batch: ContrastBatch) -> jax.Array:
    """[B, C, L] True at response tokens that count."""
    return jnp.arange(batch.responses.shape[-1])[None, None] < batch.response_lengths[..., None]


def _by_chunk(function, *arrays: jax.Array) -> jax.Array:
    """Maps over TOKEN_CHUNK rows of [N, ...] arrays at a time and recomputes each chunk's insides in the backward pass,
    so that no [N, V] array ever exists."""
    n = arrays[0].shape[0]
    chunk = min(TOKEN_CHUNK, n)
    chunks = -(-n // chunk)

    def split(x):
        padding = ((0, chunks * chunk - n),) + ((0, 0),) * (x.ndim - 1)
        return jnp.pad(x, padding).reshape(chunks, chunk, *x.shape[1:])

    mapped = jax.lax.map(jax.checkpoint(lambda chunked: function(*chunked)), tuple(map(split, arrays)))
    return mapped.reshape(-1)[:n]
