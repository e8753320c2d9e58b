"""S against one forward pass per pair over the unpadded text, with full logits."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.quick import others_slow
from support.small_model import SMALL, random_batch

from sami_jax.contrast import likelihood
from sami_jax.data.batches import ContrastBatch
from sami_jax.data.packing import Sizes
from sami_jax.models import attention
from sami_jax.models.decoder import bind, init_params

LONGEST = 24  # of all texts here; causal attention does not see the padding behind a text


@jax.jit
def padded_logits(params, tokens):
    model = bind(SMALL, params)
    return model.unembed(model(tokens[None]))[0]


def full_logits(params, tokens) -> np.ndarray:
    """[T, V] logits of one text."""
    padded = np.zeros(LONGEST, np.int32)
    padded[: len(tokens)] = tokens
    return np.asarray(padded_logits(params, padded), np.float64)[: len(tokens)]


def texts(batch: ContrastBatch, b: int, i: int, j: int) -> tuple[list[int], list[int]]:
    """Prefix i and response j of query b, cut out of row i."""
    row, p, lengths = batch.tokens[b, i].tolist(), batch.prefix_lengths[b, i], batch.response_lengths[b]
    start = p + lengths[:j].sum()
    return row[:p], row[start : start + lengths[j]]


likelihoods = jax.jit(likelihood.likelihoods, static_argnums=1, static_argnames=("remat", "at_once", "compute_dtype"))
plain_likelihoods = jax.jit(likelihood.plain_likelihoods, static_argnums=1)


def summed(params, batch, config=SMALL, **options):
    return likelihoods(params, config, batch, **options).summed


def log_softmax(x: np.ndarray) -> np.ndarray:
    x = x - x.max(axis=-1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def brute_force(params, batch: ContrastBatch) -> np.ndarray:
    b, c = batch.prefix_lengths.shape
    s = np.zeros((b, c, c))
    for q, i, j in itertools.product(range(b), range(c), range(c)):
        prefix, response = texts(batch, q, i, j)
        logprobs = log_softmax(full_logits(params, prefix + response))
        s[q, i, j] = sum(logprobs[len(prefix) + t - 1, token] for t, token in enumerate(response))
    return s


@pytest.mark.parametrize("count", others_slow([1, 3], 3))
def test_equals_one_forward_pass_per_pair(small_params, count):
    batch = random_batch(count, 2, count)
    expected = brute_force(small_params, batch)
    np.testing.assert_allclose(summed(small_params, batch), expected, atol=1e-4)
    np.testing.assert_allclose(plain_likelihoods(small_params, SMALL, batch), expected, atol=1e-4)


def test_each_token_equals_one_forward_pass_per_pair(small_params):
    batch = random_batch(6, 2, 3)
    logprobs = jax.jit(likelihood.token_logprobs, static_argnums=1)(small_params, SMALL, batch)
    assert logprobs.shape == (2, 3, batch.sizes.responses)
    for q, i in itertools.product(range(2), range(3)):
        expected = []
        for j in range(3):
            prefix, response = texts(batch, q, i, j)
            rows = log_softmax(full_logits(small_params, prefix + response))[len(prefix) - 1 : -1]
            expected += rows[range(len(response)), response].tolist()
        np.testing.assert_allclose(logprobs[q, i, : len(expected)], expected, atol=1e-5)


def test_normalization_by_length():
    summed, lengths = jnp.array([[[-6.0, -2.0], [-3.0, -8.0]]]), jnp.array([[3, 0]])
    assert likelihood.normalized(summed, lengths, "mean").tolist() == [[[-2, -2], [-1, -8]]]
    assert likelihood.normalized(summed, lengths, "sum") is summed


def value_and_gradient(function, params, batch):
    """Of a random mix of S, so that no part of it cancels."""
    mix = np.random.default_rng(0).normal(size=batch.prefix_lengths.shape + batch.prefix_lengths.shape[1:])

    def value(params):
        s = function(params)
        return jnp.sum(s * mix), s

    (_, s), gradient = jax.jit(jax.value_and_grad(value, has_aux=True))(params)
    return s, gradient


def assert_same(a, b):
    np.testing.assert_allclose(a[0], b[0], atol=1e-4)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=2e-4, rtol=2e-4), a[1], b[1])


# Small blocks of queries leave keys out between the prefix and the own response.
@pytest.mark.parametrize(
    ("count", "window", "block"),
    others_slow([(1, 7, 8), (2, None, 128), (2, 7, 8), (5, None, 8), (5, 7, 8)], (2, None, 128), (5, 7, 8)),
)
def test_shared_prefix_equals_a_row_per_pair_in_value_and_gradient(small_params, count, window, block, monkeypatch):
    config = dataclasses.replace(SMALL, sliding_window=window)
    batch = random_batch(count, 2, count)
    plain = value_and_gradient(lambda params: likelihood.plain_likelihoods(params, config, batch), small_params, batch)
    monkeypatch.setattr(attention, "SMALLEST_BLOCK", block)
    shared = value_and_gradient(lambda params: summed(params, batch, config), small_params, batch)
    assert_same(shared, plain)


def test_in_turn_nothing_of_weights_alone_is_kept_for_each_token(small_params):
    batch = random_batch(9, 2, 4)

    def value(params):
        return jnp.sum(likelihood.likelihoods(params, SMALL, batch, at_once=1).summed)

    before = jax.make_jaxpr(jax.grad(value))(small_params).jaxpr.eqns
    turns, _ = [place for place, eqn in enumerate(before) if eqn.primitive.name == "scan"]
    by_layer_and_token = SMALL.n_layers * batch.tokens.size // batch.tokens.shape[1]
    kept = [var.aval.shape for eqn in before[:turns] for var in eqn.outvars if SMALL.d_model in var.aval.shape[1:]]
    assert not [shape for shape in kept if np.prod(shape[:-1]) >= by_layer_and_token], kept


@pytest.mark.slow
@pytest.mark.parametrize("at_once", [1, 2])
def test_constitutions_in_turn_equal_all_at_once(small_params, at_once):
    batch = random_batch(9, 2, 4)
    together = value_and_gradient(lambda params: summed(params, batch), small_params, batch)
    in_turn = value_and_gradient(lambda params: summed(params, batch, at_once=at_once), small_params, batch)
    assert_same(in_turn, together)
    reference = jax.tree.map(lambda w: w * 1.1, small_params)
    one, other = (likelihoods(small_params, SMALL, batch, reference=reference, at_once=g).kl for g in (0, at_once))
    np.testing.assert_allclose(one, other, rtol=1e-4)


@pytest.mark.slow
def test_memory_for_sixteen_constitutions_is_that_of_two(mesh):
    config = dataclasses.replace(SMALL, n_layers=4, d_model=64, d_ff=256, sliding_window=None)
    params = init_params(config, 0, mesh)

    def temporary_bytes(count, at_once):
        batch = random_batch(0, 1, count, prefix=256, response=16)
        gradient = jax.jit(jax.grad(lambda params: summed(params, batch, config, at_once=at_once).sum()))
        return gradient.lower(params).compile().memory_analysis().temp_size_in_bytes

    two = temporary_bytes(2, 0)
    assert temporary_bytes(16, 1) < 1.1 * two
    assert temporary_bytes(16, 0) > 4 * two


def test_padding_changes_nothing(small_params):
    batch = random_batch(0, 2, 2)
    padding = np.random.default_rng(1).integers(0, 96, (2, 2, 11)).astype(np.int32)
    tokens = np.concatenate([batch.tokens, padding], axis=-1)
    wider = ContrastBatch(tokens, batch.prefix_lengths, batch.response_lengths, Sizes(20, 15, 26))
    np.testing.assert_allclose(summed(small_params, batch), summed(small_params, wider), atol=1e-4)


@pytest.mark.parametrize("length", [0, 1])
def test_shortest_responses_give_finite_values_and_gradients(small_params, length):
    batch = random_batch(2, 1, 2)
    batch = dataclasses.replace(batch, response_lengths=np.full((1, 2), length, np.int32))

    def total(params):
        return likelihood.normalized(summed(params, batch), jnp.asarray(batch.response_lengths), "mean").sum()

    value, gradient = jax.jit(jax.value_and_grad(total))(small_params)
    assert np.isfinite(value) and all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    assert (value == 0) == (length == 0)


@pytest.mark.parametrize("remat", others_slow(["dots", "full"], "full"))
def test_rematerialisation_changes_no_gradient(small_params, remat):
    batch = random_batch(3, 1, 2)

    def gradient(remat):
        return jax.jit(jax.grad(lambda params: summed(params, batch, remat=remat).sum()))(small_params)

    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), gradient("none"), gradient(remat))


def test_kl_is_the_sum_over_response_tokens_of_the_exact_divergence(small_params, mesh):
    batch = random_batch(5, 2, 2)
    other = init_params(SMALL, 1, mesh)
    expected = np.zeros((2, 2))
    for q, c in itertools.product(range(2), range(2)):
        prefix, response = texts(batch, q, c, c)
        logp, logq = (
            log_softmax(full_logits(params, prefix + response))[len(prefix) - 1 : -1]
            for params in (small_params, other)
        )
        expected[q, c] = (np.exp(logp) * (logp - logq)).sum()
    np.testing.assert_allclose(likelihoods(small_params, SMALL, batch, reference=other).kl, expected, rtol=1e-4)
    np.testing.assert_allclose(likelihoods(small_params, SMALL, batch, reference=small_params).kl, 0, atol=1e-5)
