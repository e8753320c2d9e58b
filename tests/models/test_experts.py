"""The mixture of experts: no token is dropped, S and gradients are the same on a mesh, router losses by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import FrozenConfigDict
from support.small_model import MIXTURE, mesh_of, random_batch

from sami_jax.config import defaults
from sami_jax.contrast.update import accumulate, put_batch
from sami_jax.models import experts
from sami_jax.models.decoder import init_params, param_shardings
from sami_jax.models.experts import Routing, mix_experts


def mixed_plainly(x, weights, experts, gates, ups, downs):
    """Every expert on every token, then the chosen ones."""
    hidden = jax.nn.silu(jnp.einsum("ntd,edf->ntef", x, gates)) * jnp.einsum("ntd,edf->ntef", x, ups)
    each = jnp.einsum("ntef,efd->nted", hidden, downs)
    return jnp.sum(jnp.take_along_axis(each, experts[..., None], axis=2) * weights[..., None], axis=2)


@pytest.fixture
def stacks():
    rng = np.random.default_rng(0)
    return [
        jnp.asarray(rng.normal(size=s) * s[1] ** -0.5, jnp.float32) for s in ((4, 16, 24), (4, 16, 24), (4, 24, 16))
    ]


def choices(kind: str):
    rng = np.random.default_rng(1)
    x = jnp.asarray(rng.normal(size=(8, 6, 16)), jnp.float32)
    weights = jnp.asarray(rng.uniform(0.1, 1, size=(8, 6, 2)), jnp.float32)
    if kind == "all to one":
        return x, weights, jnp.full((8, 6, 2), 3, jnp.int32)
    return x, weights, jnp.asarray(np.argsort(rng.normal(size=(8, 6, 4)))[..., :2], jnp.int32)


@pytest.mark.parametrize("kind", ["spread", "all to one"])
@pytest.mark.parametrize(
    ("sizes", "blocks"),
    [
        *((sizes, False) for sizes in (None, (1, 1, 1, 1), (1, 1, 1, 4), (1, 2, 2, 2), (2, 2, 1, 2))),
        (None, True),
        ((2, 2, 1, 2), True),
    ],
)
def test_every_token_reaches_its_experts(stacks, kind, sizes, blocks, monkeypatch):
    monkeypatch.setattr(experts, "on_gpus", lambda: blocks)
    monkeypatch.setattr(experts, "FEW_ROWS", 0)
    given = choices(kind)

    def value(function):
        def loss(x, weights, *stacks):
            y = function(x, weights, given[2], *stacks)
            return jnp.sum(jnp.sin(y)), y

        return jax.jit(jax.value_and_grad(loss, argnums=range(5), has_aux=True))

    (_, expected), expected_gradients = value(mixed_plainly)(*given[:2], *stacks)
    if sizes is None:
        (_, y), gradients = value(mix_experts)(*given[:2], *stacks)
    else:
        with jax.set_mesh(mesh_of(*sizes)):
            (_, y), gradients = value(mix_experts)(*given[:2], *stacks)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)
    for own, other in zip(gradients, expected_gradients, strict=True):
        np.testing.assert_allclose(own, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("remat", [pytest.param("none", marks=pytest.mark.slow), "full"])
def test_s_and_gradients_on_eight_devices_equal_one(mesh, remat):
    config = defaults()
    config.train.remat = remat
    config.objective.balance_weight = 0.1
    config.objective.router_z_weight = 0.01
    batch = random_batch(0, 8, 2)
    found = []
    add = jax.jit(accumulate, static_argnums=(3, 5))
    for chosen in (mesh, mesh_of(1, 2, 1, 4)):
        params = jax.device_put(init_params(MIXTURE, 0, mesh), param_shardings(MIXTURE, chosen))
        total = jax.tree.map(jnp.zeros_like, params)
        with jax.set_mesh(chosen):
            placed = put_batch(batch, chosen)
            found.append(add(params, {}, total, MIXTURE, placed, FrozenConfigDict(config), None))
    (one, one_metrics), (eight, eight_metrics) = found
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6), eight, one)
    for name in one_metrics:
        assert float(eight_metrics[name]) == pytest.approx(float(one_metrics[name]), rel=1e-5, abs=1e-6), name


def test_places_are_those_of_a_stable_sort():
    numbers = np.random.default_rng(0).integers(0, 5, 200)
    places = np.asarray(experts._sorted_places(jnp.asarray(numbers), 7))
    assert np.argsort(places).tolist() == np.argsort(numbers, stable=True).tolist()


def test_router_losses_by_hand():
    # Token 1 prefers experts 0 and 1, token 2 is padding, token 3 prefers 0 and 2.
    logits = jnp.log(jnp.array([[[0.5, 0.3, 0.1, 0.1], [0.1, 0.1, 0.4, 0.4], [0.6, 0.1, 0.2, 0.1]]]))
    losses = Routing(logits).losses(2, jnp.array([[True, False, True]]))
    fell = np.array([2, 1, 1, 0]) / 4
    likely = np.array([0.55, 0.2, 0.15, 0.1])
    assert float(losses.balance) == pytest.approx(4 * float(fell @ likely))
    assert float(losses.z) == pytest.approx(0, abs=1e-6)
    shifted = Routing(logits + 2).losses(2, jnp.array([[True, False, True]]))
    assert float(shifted.z) == pytest.approx(4)
    even = Routing(jnp.zeros((1, 3, 4))).losses(2, jnp.ones((1, 3), bool))
    assert float(even.balance) == pytest.approx(1)
