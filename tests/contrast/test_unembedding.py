"""Log-probabilities of chosen tokens, chunk by chunk, against jax.nn.log_softmax over everything."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.small_model import mesh_of

from sami_jax.contrast import unembedding
from sami_jax.sharding import named_sharding


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    hidden, table = rng.normal(size=(20, 8)).astype(np.float32), rng.normal(size=(8, 50)).astype(np.float32)
    return hidden, table, rng.integers(0, 50, 20).astype(np.int32), rng.normal(size=20).astype(np.float32)


def parts_of(columns, width, monkeypatch):
    monkeypatch.setattr(unembedding, "TABLE_PART", 4 * width * columns)
    monkeypatch.setattr(unembedding, "LANES", 1)


def by_log_softmax(hidden, table, targets):
    logprobs = jax.nn.log_softmax(hidden @ table, axis=-1)
    return jnp.take_along_axis(logprobs, targets[:, None], axis=1)[:, 0]


@pytest.mark.parametrize("chunk, columns", [(7, 50), (1024, 50), (7, 16)])
def test_value_and_gradient(arrays, chunk, columns, monkeypatch):
    """Also where the last part of the table, of 16 columns as the others, has two new ones alone."""
    parts_of(columns, 8, monkeypatch)
    monkeypatch.setattr(unembedding, "TOKEN_CHUNK", chunk)
    hidden, table, targets, weights = arrays

    def value_and_gradient(function):
        def total(hidden, table):
            return jnp.vdot(function(hidden, table, targets), weights)

        return function(hidden, table, targets), jax.grad(total, argnums=(0, 1))(hidden, table)

    ours, plain = map(value_and_gradient, (unembedding.chosen_logprobs, by_log_softmax))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), ours, plain)


def test_memory_does_not_grow_with_vocabulary_times_tokens():
    def temporary_bytes(tokens):
        hidden, table = jnp.zeros((tokens, 8)), jnp.zeros((8, 5000))
        gradient = jax.grad(lambda h, t: unembedding.chosen_logprobs(h, t, jnp.zeros(tokens, jnp.int32)).sum(), (0, 1))
        return jax.jit(gradient).lower(hidden, table).compile().memory_analysis().temp_size_in_bytes

    assert temporary_bytes(16 * 1024) < 1.2 * temporary_bytes(2 * 1024)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_table_gradient_in_parts_on_eight_devices(dtype, monkeypatch):
    parts_of(20, 32, monkeypatch)
    rng = np.random.default_rng(1)
    hidden = jnp.asarray(rng.normal(size=(64, 32)), dtype)
    table = jnp.asarray(rng.normal(size=(32, 48)), jnp.float32)
    targets = jnp.asarray(rng.integers(0, 48, 64), jnp.int32)

    @jax.jit
    def gradient(hidden, table, targets):
        return jax.grad(lambda h, t: unembedding.chosen_logprobs(h, t, targets).sum(), (0, 1))(hidden, table)

    one = gradient(hidden, table, targets)
    mesh = mesh_of(1, 4, 2)
    rows, columns = named_sharding(mesh, ("batch",)), named_sharding(mesh, ("embed", "vocab"))
    placed = jax.device_put((hidden, table, targets), (rows, columns, rows))
    with jax.set_mesh(mesh):
        parts = unembedding.TableParts(table)
        eight = jax.jit(gradient)(*placed)
    assert (parts.count, parts.size) == (3, 10)  # of the 24 columns that each of two devices has
    tolerance = 1e-5 if dtype == "float32" else 0.05
    jax.tree.map(lambda a, b: np.testing.assert_allclose(np.float32(a), np.float32(b), atol=tolerance), eight, one)


def test_table_gradient_adds_up_in_float32_under_bfloat16(arrays, monkeypatch):
    monkeypatch.setattr(unembedding, "TOKEN_CHUNK", 1)
    hidden, table, targets, weights = (jnp.asarray(a, jnp.bfloat16 if a.ndim == 2 else a.dtype) for a in arrays)

    def gradient(function, *arrays):
        return jax.grad(lambda table: jnp.vdot(function(arrays[0], table, targets), weights))(arrays[1])

    ours = gradient(unembedding.chosen_logprobs, hidden, table).astype(jnp.float32)
    exact = gradient(by_log_softmax, hidden.astype(jnp.float32), table.astype(jnp.float32))
    assert float(jnp.linalg.norm(ours - exact) / jnp.linalg.norm(exact)) < 0.01


def test_softly_capped_logits(arrays, monkeypatch):
    parts_of(16, 8, monkeypatch)
    hidden, table, targets, weights = arrays

    def plain(hidden, table):
        logprobs = jax.nn.log_softmax(1.5 * jnp.tanh(hidden @ table / 1.5), axis=-1)
        return jnp.vdot(jnp.take_along_axis(logprobs, targets[:, None], axis=1)[:, 0], weights)

    def ours(hidden, table):
        return jnp.vdot(unembedding.chosen_logprobs(hidden, table, targets, 1.5), weights)

    found = [jax.value_and_grad(function, (0, 1))(hidden, table) for function in (ours, plain)]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), *found)
