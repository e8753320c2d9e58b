"""A quantized base under adapters: only its weights are rounded; nothing else of an update, of sampling or of a mesh is another."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict, FrozenConfigDict
from support.small_model import MIXTURE, SMALL, mesh_of, random_batch

from sami_jax.config import defaults
from sami_jax.contrast.update import accumulate, init_state, make_update, programs, state_shardings
from sami_jax.models.adapters import adapted, init_adapters, trained
from sami_jax.models.decoder import abstract_params, init_params, param_shardings
from sami_jax.models.stack import joined
from sami_jax.quantization.blocks import Quantized, forms, placed
from sami_jax.sampling.decoding import generate
from sami_jax.sampling.drawing import SamplingOptions

KINDS = ("int8", "nf4")
LORA = ConfigDict({"rank": 4, "alpha": 8.0, "targets": ()})


def held_as(kind: str, config, mesh, params: dict, dtype="float32") -> dict:
    """The params as a run that reads them from files holds them."""
    whole = jax.tree.map(np.asarray, params)

    def read(keys, ranges, dtype):
        weight = whole
        for key in keys:
            weight = weight[key]
        return weight[np.ix_(*ranges)].astype(dtype)

    return placed(forms(abstract_params(config), param_shardings(config, mesh), jnp.dtype(dtype), kind), read)


def plainly(held: dict) -> dict:
    """The same numbers in float32."""

    def whole(weight):
        return weight.dequantized(jnp.float32) if isinstance(weight, Quantized) else weight

    return jax.tree.map(whole, held, is_leaf=lambda weight: isinstance(weight, Quantized))


def grown(adapters: dict) -> dict:
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda w: w + 0.1 * rng.standard_normal(w.shape, np.float32), adapters)


def of_update(remat: str, **changes) -> ConfigDict:
    config = defaults()
    config.train.remat = remat
    config.update_from_flattened_dict(changes)
    return config


@pytest.mark.parametrize("base", [SMALL, MIXTURE], ids=["dense", "mixture"])
def test_blocks_matrices_are_quantized_and_nothing_else(base, mesh):
    held = held_as("nf4", base, mesh, init_params(base, 0, mesh))
    found = jax.tree_util.tree_leaves_with_path(held, is_leaf=lambda weight: isinstance(weight, Quantized))
    names = {jax.tree_util.keystr(path, simple=True, separator=".") for path, w in found if isinstance(w, Quantized)}
    mlp = ("gates", "ups", "downs") if base.n_experts else ("gate.weight", "up.weight", "down.weight")
    attention = (f"attention.{name}.weight" for name in ("query", "key", "value", "output"))
    assert names == {f"blocks.{name}" for name in (*attention, *(f"mlp.{name}" for name in mlp))}
    assert {w.dtype for _, w in found if not isinstance(w, Quantized)} == {jnp.dtype("float32")}


@pytest.mark.parametrize(
    ("kind", "remat", "base"),
    [
        pytest.param(*case, SMALL, marks=[] if case == ("nf4", "full") else pytest.mark.slow)
        for case in itertools.product(KINDS, ("full", "dots"))
    ]
    + [pytest.param(kind, "full", MIXTURE, marks=pytest.mark.slow) for kind in KINDS],
)
def test_loss_and_gradient_are_those_of_the_rounded_weights(kind, remat, base, mesh):
    """With a total before, which is added to in place where remat is full, and a KL term that reads the base itself."""
    config = FrozenConfigDict(of_update(remat, **{"objective.kl_weight": 0.5}))
    model = adapted(base, LORA)
    held, adapters = (
        held_as(kind, base, mesh, init_params(base, 0, mesh)),
        grown(init_adapters(model, 0, mesh, "float32")),
    )
    total = jax.tree.map(np.zeros_like, adapters)
    add = jax.jit(accumulate, static_argnums=(3, 5))
    batch = random_batch(1, 4, 2)
    with jax.set_mesh(mesh):
        gradient, metrics = add(adapters, held, total, model, batch, config, held)
        plain = plainly(held)
        expected, expected_metrics = add(adapters, plain, total, model, batch, config, plain)
    assert float(metrics["loss"]) == pytest.approx(float(expected_metrics["loss"]), rel=1e-5)
    assert max(float(jnp.abs(g).max()) for g in jax.tree.leaves(gradient)) > 1e-3
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6, rtol=1e-4), gradient, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_sampling_is_that_of_the_rounded_weights(kind, mesh):
    model = adapted(SMALL, LORA)
    held, adapters = (
        held_as(kind, SMALL, mesh, init_params(SMALL, 0, mesh)),
        grown(init_adapters(model, 0, mesh, "float32")),
    )
    options = SamplingOptions(1.0, 1.0, 0, 6)

    def sampled(params: dict) -> list:
        told = {"end_tokens": (0,), "decode": str, "mesh": mesh, "batch_size": 2}
        return list(generate(joined(params, adapters), model, [[1, 2, 3], [4, 5]], [0, 1], options, **told))

    assert sampled(held) == sampled(plainly(held))


@pytest.mark.parametrize("kind", KINDS)
def test_eight_devices_hold_what_one_holds(kind, mesh):
    """Blocks that a mesh would cut lie whole, and each number is the same."""
    wide = dataclasses.replace(SMALL, d_model=128, d_ff=512, n_heads=4, head_dim=32)
    for config in (SMALL, wide, MIXTURE):
        eight = mesh_of(1, 2, 2, 2) if config.n_experts else mesh_of(2, 2, 2)
        params = jax.tree.map(np.asarray, init_params(config, 0, mesh))
        one, split = (held_as(kind, config, chosen, params) for chosen in (mesh, eight))
        jax.tree.map(np.testing.assert_array_equal, one, split)
    down = held_as(kind, wide, mesh_of(2, 2, 2), init_params(wide, 0, mesh))["blocks"]["mlp"]["down"]["weight"]
    for array in (down.codes, down.scales):  # by rows over the four devices that hold a share of them
        assert array.sharding.shard_shape(array.shape)[1] == array.shape[1] // 4


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_updates_on_eight_devices_equal_one(kind, mesh):
    model, config = adapted(SMALL, LORA), of_update("full", **{"optim.learning_rate": 1e-2, "optim.epsilon": 1e-3})
    params = jax.tree.map(np.asarray, init_params(SMALL, 0, mesh))
    start = jax.tree.map(np.asarray, init_adapters(model, 0, mesh, "float32"))
    found = []
    for chosen in (mesh, mesh_of(2, 2, 2)):
        frozen = held_as(kind, SMALL, chosen, params)
        placed_start = jax.device_put(start, state_shardings(model, config, chosen).params)
        with jax.set_mesh(chosen):
            state, update = init_state(placed_start, model, config, chosen), make_update(model, config, chosen)
            for seed in range(2):
                state, metrics = update(state, [random_batch(10 * seed + i, 8, 2) for i in range(2)], frozen, None)
        found.append((state.params, metrics["loss"]))
    (one, one_loss), (eight, eight_loss) = found
    assert eight_loss == pytest.approx(one_loss, rel=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), eight, one)


@pytest.mark.parametrize("remat", ["full", pytest.param("dots", marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", KINDS)
def test_the_whole_is_never_dequantized(kind, remat, mesh):
    """What a layer more adds to an update's temporaries has no room for its matrices in float32, nor for half of them."""
    model, config = adapted(dataclasses.replace(SMALL, d_model=128, d_ff=512), LORA), of_update(remat)

    def temporaries(layers: int) -> int:
        deep = dataclasses.replace(model, n_layers=layers)
        base = dataclasses.replace(deep, adapter=None)
        frozen = forms(abstract_params(base), param_shardings(base, mesh), jnp.dtype("float32"), kind)
        adapters = trained(deep, abstract_params(deep))
        with jax.set_mesh(mesh):
            add = programs(deep, config, mesh).add
            compiled = add.lower(adapters, frozen, adapters, random_batch(0, 1, 2, 4, 4), None).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    matrices = sum(
        4 * w.size for w in jax.tree.leaves(abstract_params(dataclasses.replace(model, n_layers=8))["blocks"])
    )
    assert temporaries(10) - temporaries(2) < matrices / 2
