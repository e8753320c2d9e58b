"""KL over the vocabulary, part by part, against two whole softmaxes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax
from support.quick import others_slow
from support.small_model import mesh_of

from sami_jax.contrast import unembedding
from sami_jax.contrast.divergence import divergences
from sami_jax.sharding import named_sharding

MIB = 2**20


def arrays(tokens=20, width=8, vocabulary=50, dtype="float32"):
    rng = np.random.default_rng(0)
    shapes = ((tokens, width), (width, vocabulary), (tokens, width), (width, vocabulary), (tokens,))
    return [jnp.asarray(rng.normal(size=shape), dtype) for shape in shapes]


def parts_of(columns, width, monkeypatch):
    monkeypatch.setattr(unembedding, "TABLE_PART", 4 * width * columns)
    monkeypatch.setattr(unembedding, "LANES", 1)


def by_softmax(hidden, table, other, other_table):
    logp, logq = jax.nn.log_softmax(hidden @ table, axis=-1), jax.nn.log_softmax(other @ other_table, axis=-1)
    return jnp.sum(jnp.exp(logp) * (logp - logq), axis=-1)


def value_and_gradient(function, hidden, table, other, other_table, weights):
    def total(hidden, table):
        return jnp.vdot(function(hidden, table, other, other_table), weights)

    return function(hidden, table, other, other_table), jax.grad(total, argnums=(0, 1))(hidden, table)


@pytest.mark.parametrize("chunk, columns", [(7, 50), (1024, 50), (7, 16)])
def test_value_and_gradient(chunk, columns, monkeypatch):
    """Also where the last part of the tables, of 16 columns as the others, has two new ones alone."""
    parts_of(columns, 8, monkeypatch)
    monkeypatch.setattr(unembedding, "TOKEN_CHUNK", chunk)
    ours, plain = (value_and_gradient(function, *arrays()) for function in (divergences, by_softmax))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), ours, plain)


def test_a_small_divergence_is_as_exact_as_that_of_whole_softmaxes(monkeypatch):
    """A policy near its reference, as SAMI's is: what is small is not lost between large logits."""
    parts_of(16, 8, monkeypatch)
    hidden, table, other, _, _ = (3 * x for x in arrays())  # logits of some tens
    near = hidden + 1e-3 * other
    logp, logq = (log_softmax(np.float64(x) @ np.float64(table), axis=-1) for x in (hidden, near))
    exact = np.sum(np.exp(logp) * (logp - logq), axis=-1)
    errors = [np.abs(f(hidden, table, near, table) - exact).max() for f in (divergences, by_softmax)]
    assert errors[0] < 2 * errors[1], errors


def test_the_reference_has_no_gradient():
    hidden, table, other, other_table, _ = arrays()
    gradients = jax.grad(lambda *reference: divergences(hidden, table, *reference).sum(), (0, 1))(other, other_table)
    assert not any(map(np.any, gradients))


@pytest.mark.parametrize("dtype", others_slow(["float32", "bfloat16"], "bfloat16"))
def test_on_eight_devices(dtype, monkeypatch):
    parts_of(20, 32, monkeypatch)
    given = arrays(64, 32, 48)
    given[0], given[2] = given[0].astype(dtype), given[2].astype(dtype)

    @jax.jit
    def compute(*given):
        return value_and_gradient(divergences, *given)

    one = compute(*given)
    mesh = mesh_of(1, 4, 2)
    rows, columns = named_sharding(mesh, ("batch",)), named_sharding(mesh, ("embed", "vocab"))
    placed = jax.device_put(given, [rows, columns, rows, columns, rows])
    with jax.set_mesh(mesh):
        assert unembedding.TableParts(given[1]).count == 3
        eight = jax.jit(compute)(*placed)
    tolerance = 2e-4 if dtype == "float32" else 0.2
    jax.tree.map(lambda a, b: np.testing.assert_allclose(np.float32(a), np.float32(b), atol=tolerance), eight, one)


def test_no_table_is_held_whole():
    """Eight devices, a table of 64 MiB in float32, kept in eight shards: neither it nor its gradient is gathered."""
    mesh = mesh_of(1, 8, 1)
    tokens, width, vocabulary = 64, 256, 65536
    rows, columns = named_sharding(mesh, ("batch",)), named_sharding(mesh, ("embed", "vocab"))
    specs = [
        jax.ShapeDtypeStruct(shape, jnp.bfloat16 if shape[0] == tokens else jnp.float32, sharding=sharding)
        for shape, sharding in (((tokens, width), rows), ((width, vocabulary), columns)) * 2
    ]
    gradient = jax.grad(lambda *given: divergences(*given).sum(), (0, 1))
    with jax.set_mesh(mesh), pytest.MonkeyPatch.context() as patch:
        patch.setattr(unembedding, "TABLE_PART", 4 * MIB)
        compiled = jax.jit(gradient, out_shardings=(rows, columns)).lower(*specs).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 40 * MIB


def test_softly_capped_logits(monkeypatch):
    parts_of(16, 8, monkeypatch)

    def capped(hidden, table):
        return 1.5 * jnp.tanh(hidden @ table / 1.5)

    def plain(hidden, table, other, other_table):
        logp, logq = (jax.nn.log_softmax(capped(*pair), axis=-1) for pair in ((hidden, table), (other, other_table)))
        return jnp.sum(jnp.exp(logp) * (logp - logq), axis=-1)

    def ours(*given):
        return divergences(*given, 1.5)

    found = [value_and_gradient(function, *arrays()) for function in (ours, plain)]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), *found)
