"""Vendors' attention against the XLA path: the taking apart and putting together on CPU, Splash in its interpreter."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.quick import others_in_faults
from support.small_model import SMALL, mesh_of, random_batch

from sami_jax.contrast import likelihood
from sami_jax.kernels import attention as kernels
from sami_jax.models.cache import new_cache
from sami_jax.models.decoder import bind, init_params, layers_apart, whole

HEADS_OF_LANES = dataclasses.replace(SMALL, n_layers=1, head_dim=kernels.LANES)


@pytest.fixture
def on_cpu(monkeypatch):
    """The kernels as far as a CPU can run them."""
    monkeypatch.setitem(kernels.KERNELS, "cudnn", functools.partial(kernels.dot_product, implementation="xla"))
    monkeypatch.setitem(kernels.KERNELS, "splash", functools.partial(kernels.splash, interpret=True))


def value_and_gradient(params, config, batch, mesh=None):
    mix = np.random.default_rng(0).normal(size=(2, 2, 2))

    def value(params, batch):
        s = likelihood.likelihoods(params, config, batch).summed
        return jnp.sum(s * mix), s

    compute = jax.jit(jax.value_and_grad(value, has_aux=True))
    if mesh is None:
        return compute(params, batch)
    with jax.set_mesh(mesh):
        return compute(params, batch)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backend", "model", "window"),
    others_in_faults(
        [("cudnn", SMALL, None), ("cudnn", SMALL, 7), ("splash", HEADS_OF_LANES, None), ("splash", HEADS_OF_LANES, 7)],
        ("cudnn", SMALL, 7),
        ("splash", HEADS_OF_LANES, 7),
    ),
)
def test_likelihoods_and_gradients_equal_xla(on_cpu, mesh, backend, model, window):
    model = dataclasses.replace(model, sliding_window=window)
    params, batch = init_params(model, 0, mesh), random_batch(0, 2, 2)
    expected = value_and_gradient(params, model, batch)
    ours = value_and_gradient(params, dataclasses.replace(model, attention=backend), batch)
    np.testing.assert_allclose(ours[0][1], expected[0][1], atol=1e-4)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4, rtol=2e-4), ours[1], expected[1])


@pytest.mark.parametrize(
    ("length", "most", "size"),
    [
        (1, 768, 128),
        (128, 768, 128),
        (300, 768, 384),
        (640, 768, 640),
        (1024, 768, 512),
        (1722, 768, 640),
        (2048, 768, 512),
        (4096, 1024, 1024),
    ],
)
def test_blocks_are_large_and_pad_little(length, most, size):
    assert kernels.block_size(length, most) == size


@pytest.mark.slow
@pytest.mark.parametrize("window", others_in_faults([None, 500], 500))
def test_splash_in_several_blocks_equals_xla(window):
    """Queries that stand behind 1,500 keys, the first of them padding, and their gradients."""
    rng, first = np.random.default_rng(0), jnp.array([130, 0])
    q, k, v = (jnp.asarray(rng.normal(size=(2, n, h, 128)), jnp.float32) for n, h in ((900, 2), (2400, 1), (2400, 1)))
    mix = rng.normal(size=q.shape)

    def results(kernel):
        return jax.value_and_grad(lambda *x: jnp.sum(kernel(*x, first, window) * mix), argnums=(0, 1, 2))(q, k, v)

    expected = results(functools.partial(kernels.dot_product, implementation="xla"))
    ours = results(functools.partial(kernels.splash, interpret=True))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4, rtol=2e-4), ours, expected)


@pytest.mark.slow
def test_splash_works_on_each_devices_own_rows_and_heads(on_cpu):
    mesh = mesh_of(2, 1, 2)
    params, batch = init_params(HEADS_OF_LANES, 0, mesh), random_batch(0, 2, 2)
    splash = dataclasses.replace(HEADS_OF_LANES, attention="splash")
    expected, ours = (value_and_gradient(params, config, batch, mesh) for config in (HEADS_OF_LANES, splash))
    np.testing.assert_allclose(ours[0][1], expected[0][1], atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("ahead", [0, 5])
@pytest.mark.parametrize(
    ("backend", "model"), [("xla", SMALL), ("cudnn", SMALL), ("splash", HEADS_OF_LANES)], ids=["xla", "cudnn", "splash"]
)
def test_prompts_are_read_alike(on_cpu, mesh, backend, model, ahead):
    """Also behind what they share."""
    params = init_params(model, 0, mesh)
    prompts, lengths = np.random.default_rng(0).integers(0, 96, (2, 20)), jnp.array([20, 9])
    prompts[:, :ahead] = prompts[0, :ahead]
    with layers_apart(params) as layers:
        reading, reading_alone = (
            functools.partial(
                bind(config, whole(params, layers)).prefill,
                layers,
                cache=new_cache(config, 2, 20, jnp.float32),
                rows=jnp.arange(2),
            )
            for config in (dataclasses.replace(model, attention=backend), model)
        )
        cache = reading(prompts[:1, :ahead], prompts[:, ahead:], lengths - ahead)
        expected = reading_alone(prompts[:1, :0], prompts, lengths)
    for layer, expected_layer in zip(cache, expected, strict=True):
        ([keys], [values], _), ([expected_keys], [expected_values], _) = layer, expected_layer
        for row, length in enumerate(lengths):
            np.testing.assert_allclose(keys[row, ..., :length], expected_keys[row, ..., :length], atol=1e-4)
            np.testing.assert_allclose(values[row, :, :length], expected_values[row, :, :length], atol=1e-4)
