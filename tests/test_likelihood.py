"""S against one forward pass per pair over the unpadded text, with full logits."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import SMALL, random_batch

from sami_jax import likelihood
from sami_jax.data.batches import ContrastBatch
from sami_jax.models.decoder import bind, init_params

LONGEST = 24  # of all texts here; causal attention does not see the padding behind a text


@jax.jit
def padded_logits(params, tokens):
    model = bind(SMALL, params)
    return model.unembed(model(tokens[None], jnp.arange(LONGEST)[None]))[0]


def full_logits(params, tokens) -> np.ndarray:
    """[T, V] logits of one text."""
    padded = np.zeros(LONGEST, np.int32)
    padded[: len(tokens)] = tokens
    return np.asarray(padded_logits(params, padded), np.float64)[: len(tokens)]


token_logprobs = jax.jit(likelihood.token_logprobs, static_argnums=(1, 3))


def log_softmax(x: np.ndarray) -> np.ndarray:
    x = x - x.max(axis=-1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def brute_force(params, batch: ContrastBatch, normalize: str) -> np.ndarray:
    b, c = batch.prefix_lengths.shape
    s = np.zeros((b, c, c))
    for q in range(b):
        for i in range(c):
            for j in range(c):
                prefix = batch.prefixes[q, i, : batch.prefix_lengths[q, i]]
                response = batch.responses[q, j, : batch.response_lengths[q, j]]
                logprobs = log_softmax(full_logits(params, np.concatenate([prefix, response])))
                chosen = [logprobs[len(prefix) + t - 1, token] for t, token in enumerate(response)]
                s[q, i, j] = sum(chosen) if normalize == "sum" else sum(chosen) / len(chosen)
    return s


@pytest.mark.parametrize("normalize", ["mean", "sum"])
@pytest.mark.parametrize("count", [1, 3])
def test_equals_one_forward_pass_per_pair(small_params, normalize, count):
    batch = random_batch(count, 2, count)
    logprobs = token_logprobs(small_params, SMALL, batch)
    s = likelihood.conditional_loglikelihoods(logprobs, jnp.asarray(batch.response_lengths), normalize)
    np.testing.assert_allclose(s, brute_force(small_params, batch, normalize), atol=2e-5)


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("window", [None, 7])
def test_shared_prefix_equals_a_row_per_pair_in_value_and_gradient(small_params, count, window):
    config = dataclasses.replace(SMALL, sliding_window=window)
    batch = random_batch(count, 2, count)
    scored = np.arange(9)[None, None, None] < batch.response_lengths[:, None, :, None]
    mix = np.random.default_rng(0).normal(size=(2, count, count, 9, SMALL.d_model)) * scored[..., None]

    def value_and_gradient(states):
        def value(params):
            hidden = states(bind(config, params), batch)
            return jnp.sum(hidden * mix), hidden * scored[..., None]

        (_, hidden), gradient = jax.jit(jax.value_and_grad(value, has_aux=True))(small_params)
        return hidden, gradient

    shared, plain = map(value_and_gradient, (likelihood.pair_hidden_states, likelihood.plain_pair_hidden_states))
    np.testing.assert_allclose(shared[0], plain[0], atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4, rtol=1e-4), shared[1], plain[1])


def test_padding_changes_nothing(small_params):
    batch = random_batch(0, 2, 2)
    rng = np.random.default_rng(1)
    wider = ContrastBatch(
        np.concatenate([batch.prefixes, rng.integers(0, 96, (2, 2, 5)).astype(np.int32)], axis=-1),
        batch.prefix_lengths,
        np.concatenate([batch.responses, rng.integers(0, 96, (2, 2, 6)).astype(np.int32)], axis=-1),
        batch.response_lengths,
    )
    narrow = token_logprobs(small_params, SMALL, batch).sum(-1)
    np.testing.assert_allclose(narrow, token_logprobs(small_params, SMALL, wider).sum(-1), atol=1e-5)


@pytest.mark.parametrize("length", [0, 1])
def test_shortest_responses_give_finite_values_and_gradients(small_params, length):
    batch = random_batch(2, 1, 2)._replace(response_lengths=np.full((1, 2), length, np.int32))

    def total(params):
        logprobs = likelihood.token_logprobs(params, SMALL, batch)
        return likelihood.conditional_loglikelihoods(logprobs, jnp.asarray(batch.response_lengths), "mean").sum()

    value, gradient = jax.jit(jax.value_and_grad(total))(small_params)
    assert np.isfinite(value) and all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    assert (value == 0) == (length == 0)


@pytest.mark.parametrize("remat", ["dots", "full"])
def test_rematerialisation_changes_no_gradient(small_params, remat):
    batch = random_batch(3, 1, 2)

    def gradient(remat):
        return jax.jit(jax.grad(lambda params: likelihood.token_logprobs(params, SMALL, batch, remat).sum()))(
            small_params
        )

    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), gradient("none"), gradient(remat))


def test_chunks_of_tokens_equal_one_piece(small_params, monkeypatch):
    batch = random_batch(4, 1, 2)
    whole = likelihood.token_logprobs(small_params, SMALL, batch)
    monkeypatch.setattr(likelihood, "TOKEN_CHUNK", 5)
    np.testing.assert_allclose(likelihood.token_logprobs(small_params, SMALL, batch), whole, atol=1e-6)


def test_kl_is_the_mean_over_response_tokens_of_the_exact_divergence(small_params, mesh):
    batch = random_batch(5, 2, 2)
    other = init_params(SMALL, 1, mesh)
    expected = []
    for q in range(2):
        for c in range(2):
            prefix = batch.prefixes[q, c, : batch.prefix_lengths[q, c]]
            text = np.concatenate([prefix, batch.responses[q, c, : batch.response_lengths[q, c]]])
            logp, logq = (
                log_softmax(full_logits(params, text))[len(prefix) - 1 : -1] for params in (small_params, other)
            )
            expected += list((np.exp(logp) * (logp - logq)).sum(-1))
    model, reference = bind(SMALL, small_params), bind(SMALL, other)
    hidden = likelihood.own_hidden_states(model, batch)
    assert float(likelihood.kl_divergence(model, reference, batch, hidden)) == pytest.approx(
        np.mean(expected), rel=1e-4
    )
    assert float(likelihood.kl_divergence(model, model, batch, hidden)) == pytest.approx(0.0, abs=1e-6)
