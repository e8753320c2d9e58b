"""Every optimizer: learns, is the same on eight devices and after a restart; the size of its state; rounding by chance."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from jax.experimental import topologies
from support.quick import others_in_faults, others_slow
from support.small_model import SMALL, mesh_of, random_batch

from sami_jax.config import defaults
from sami_jax.contrast.optim import OPTIMIZERS, apply_updates, learning_rate, make_optimizer, stochastic_round
from sami_jax.contrast.update import (
    HOST_MEMORY,
    TrainState,
    abstract_state,
    init_state,
    make_update,
    programs,
    state_shardings,
)
from sami_jax.models.config import ModelConfig
from sami_jax.models.decoder import init_params, param_shardings
from sami_jax.models.published import SHAPES
from sami_jax.sharding import make_mesh
from sami_jax.stages.checkpoint import Checkpoints

# Each with a rate that its kind of update needs.
RATES = {"adamw": 1e-2, "rmsprop": 1e-3, "adafactor": 1e-2, "lion": 1e-3}
MISTRAL = SHAPES["mistral-7b"]
# Wide enough for Adafactor to factor.
WIDE = dataclasses.replace(SMALL, d_model=64, head_dim=64, n_heads=2, n_kv_heads=2, vocab_size=96)


def config_of(name: str, **more):
    config = defaults()
    config.optim.name, config.optim.learning_rate = name, RATES[name]
    config.train.remat = "none"
    config.optim.update(more)
    return config


def trained(config, mesh, updates: int, model=WIDE) -> tuple[TrainState, list[float]]:
    """The state after some updates on one batch, and the loss before each."""
    params = jax.tree.map(lambda w: w.astype(config.train.param_dtype), init_params(model, 0, mesh_of(1, 1, 1)))
    params = jax.device_put(jax.tree.map(np.asarray, params), param_shardings(model, mesh))
    losses = []
    with jax.set_mesh(mesh):
        state = init_state(params, model, config, mesh)
        update = make_update(model, config, mesh)
        for _ in range(updates):
            state, metrics = update(state, [random_batch(0, 8, 2)], {}, None)
            losses.append(float(metrics["loss"]))
    return state, losses


def assert_close(found, expected, **tolerance):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerance), found, expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", others_in_faults(OPTIMIZERS, "adamw", "adafactor"))
def test_the_loss_falls_and_eight_devices_equal_one(name, mesh):
    # Where a gradient is rounding alone, a sign of it is too, and so is its quotient by its own size.
    config = config_of(name, **({} if name in ("lion", "adafactor") else {"epsilon": 1e-3}))
    one, losses = trained(config, mesh, 3)
    assert losses[2] < losses[1] < losses[0]
    eight, eight_losses = trained(config, mesh_of(2, 2, 2), 3)
    np.testing.assert_allclose(eight_losses, losses, rtol=1e-5)
    if name == "lion":
        differ = jax.tree.map(lambda a, b: float(np.mean(np.abs(np.asarray(a) - b) > 1e-5)), eight.params, one.params)
        assert max(jax.tree.leaves(differ)) < 1e-3
    else:
        assert_close(eight.params, one.params, atol=1e-5)


@pytest.mark.parametrize("name", others_slow(OPTIMIZERS, "adamw"))
def test_moments_lie_as_their_weights_do(name):
    config, mesh = config_of(name), mesh_of(2, 2, 2)
    with jax.set_mesh(mesh):
        state, _ = trained(config, mesh, 1)
    wanted = state_shardings(WIDE, config, mesh)
    jax.tree.map(lambda x, s: None if x.sharding.is_equivalent_to(s, x.ndim) else pytest.fail(f"{x}"), state, wanted)
    query = state.params["blocks"]["attention"]["query"]["weight"]  # [layer, embed, heads, head_dim]
    moments = [x for x in jax.tree.leaves(state.opt_state) if x.ndim > 1 and x.size >= query.size // 64]
    if name == "adafactor":
        kept = state.opt_state[1].by_weight["blocks"]["attention"]["query"]["weight"][0]
        row, column = kept.v_row, kept.v_col
        assert {row.shape, column.shape} == {(2, 2, 64), (2, 64, 2)}
        for mean in (row, column):  # the heads' axis is split over tensor, the width's over fsdp
            names = {64: "fsdp", 2: "tensor"} if mean.shape == (2, 64, 2) else {2: "tensor"}
            for axis, part in enumerate(mean.sharding.spec):
                assert axis == 0 or part is None or names[mean.shape[axis]] in np.ravel(part), mean.sharding
        assert row.addressable_shards[0].data.size < row.size
        assert column.addressable_shards[0].data.size < column.size
    else:
        same = [m for m in moments if m.shape == query.shape]
        assert same and all(m.sharding.is_equivalent_to(query.sharding, 4) for m in same)


def bytes_a_weight(name: str, model: ModelConfig, **more) -> float:
    state = abstract_state(model, config_of(name, **more))
    sizes = [math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(state.opt_state)]
    return sum(sizes) / sum(math.prod(x.shape) for x in jax.tree.leaves(state.params))


def test_how_large_the_state_is():
    assert bytes_a_weight("adamw", MISTRAL) == pytest.approx(8, rel=1e-6)
    assert bytes_a_weight("adamw", MISTRAL, moment_dtype="bfloat16") == pytest.approx(4, rel=1e-6)
    assert bytes_a_weight("rmsprop", MISTRAL) == pytest.approx(4, rel=1e-6)
    assert bytes_a_weight("lion", MISTRAL) == pytest.approx(4, rel=1e-6)
    assert bytes_a_weight("adafactor", MISTRAL) < 0.02
    # Heads of 64, as in the smallest Llama 3.
    assert bytes_a_weight("adafactor", dataclasses.replace(MISTRAL, n_heads=64, head_dim=64)) < 0.02


@pytest.mark.slow
@pytest.mark.parametrize("name", others_in_faults(OPTIMIZERS, "adafactor"))
def test_bfloat16_moments_give_nearly_the_same_updates(name, mesh):
    config, halved = config_of(name, epsilon=1e-3), config_of(name, epsilon=1e-3, moment_dtype="bfloat16")
    start = init_params(WIDE, 0, mesh)
    whole, (_, *losses) = trained(config, mesh, 4)
    half, (_, *halved_losses) = trained(halved, mesh, 4)
    floats = [x.dtype for x in jax.tree.leaves(half.opt_state[1]) if jnp.issubdtype(x.dtype, jnp.floating)]
    assert set(floats) == {jnp.dtype("bfloat16")}
    np.testing.assert_allclose(halved_losses, losses, rtol=0.02)
    moved, apart = (
        optax.tree.norm(jax.tree.map(lambda a, b: a - b, *pair))
        for pair in ((whole.params, start), (half.params, whole.params))
    )
    assert 0 < float(apart) < (0.3 if name == "lion" else 0.05) * float(moved)


def test_rmsprop_is_torchs():
    config = config_of("rmsprop", b2=0.99, clip_norm=1e9, epsilon=1e-3)
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(5, 7)).astype(np.float32)
    gradients = [rng.normal(size=(5, 7)).astype(np.float32) * 1e-3 for _ in range(4)]
    theirs = torch.nn.Parameter(torch.tensor(weight))
    torch_rule = torch.optim.RMSprop([theirs], lr=RATES["rmsprop"], alpha=0.99, eps=1e-3)
    rule, params = make_optimizer(config.optim), {"w": jnp.asarray(weight)}
    state = rule.init(params)
    for gradient in gradients:
        theirs.grad = torch.tensor(gradient)
        torch_rule.step()
        updates, state = rule.update({"w": jnp.asarray(gradient)}, state, params)
        params = optax.apply_updates(params, updates)
    np.testing.assert_allclose(params["w"], theirs.detach().numpy(), rtol=1e-6)


@pytest.mark.parametrize(("name", "theirs"), [("adamw", 0.999), ("rmsprop", 0.99), ("lion", 0.99)])
def test_an_optimizer_decays_as_its_authors_have_it_unless_told(name, theirs):
    """The name alone is the rule: b2 of another one would make it another rule."""

    def direction(**more) -> np.ndarray:
        rule, params = make_optimizer(config_of(name, clip_norm=1e9, **more).optim), {"w": jnp.ones(3)}
        state, moved = rule.init(params), []
        for gradient in ([1.0, 1.0, 1.0], [-0.2, -0.05, 3.0]):  # Lion's sign turns at a b2 between 0.99 and 0.999
            updates, state = rule.update({"w": jnp.array(gradient)}, state, params)
            moved.append(updates["w"])
        return np.stack(moved)

    found = direction()
    np.testing.assert_array_equal(found, direction(b2=theirs))
    (another,) = {0.99, 0.999} - {theirs}
    assert (found != direction(b2=another)).any()


@pytest.mark.parametrize(
    ("warmup", "decayed", "rates"),
    [
        (0, 0, [1, 1, 1, 1]),
        (2, 0, [1 / 3, 2 / 3, 1, 1]),
        (0, 4, [1, 3 / 4, 2 / 4, 1 / 4, 0]),
        (1, 3, [1 / 2, 1, 2 / 3, 1 / 3, 0]),
    ],
)
def test_the_rate_rises_and_falls_and_no_update_of_a_stage_has_none(warmup, decayed, rates):
    schedule = learning_rate(config_of("adamw", learning_rate=0.5, warmup_updates=warmup, decay_updates=decayed).optim)
    np.testing.assert_allclose([schedule(count) for count in range(len(rates))], 0.5 * np.array(rates), rtol=1e-6)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_weight_decay_is_times_the_learning_rate(name):
    config = config_of(name, weight_decay=0.1)
    params = {"w": jnp.full((3, 4), 2.0)}
    rule = make_optimizer(config.optim)
    updates, _ = rule.update({"w": jnp.zeros((3, 4))}, rule.init(params), params)
    np.testing.assert_allclose(updates["w"], -RATES[name] * 0.1 * 2.0, rtol=1e-6)


def test_stochastic_rounding_is_exact_on_average():
    count = 40_000
    for exact in (0.1, -0.1, 1.00001, 3e-5, 5e-7, -123.456):
        x = jnp.full(count, exact, jnp.float32)
        rounded = np.asarray(stochastic_round(x, jax.random.key(1)), np.float64)
        low, high = np.unique(rounded)
        assert low < np.float32(exact) < high and high - low <= 2.0**-7 * abs(exact)
        # Six standard errors of a coin that falls on one of two neighbours.
        assert abs(rounded.mean() - np.float32(exact)) < 6 * (high - low) / 2 / math.sqrt(count)
    kept = jnp.array([0.0, 1.5, -2.0, jnp.inf, -jnp.inf], jnp.float32)
    np.testing.assert_array_equal(np.asarray(stochastic_round(kept, jax.random.key(2)), np.float32), kept)
    assert jnp.isnan(stochastic_round(jnp.float32(jnp.nan), jax.random.key(2)))


def test_small_updates_move_bfloat16_weights_by_chance_alone():
    params = {"w": jnp.full(1_000_000, 0.1, jnp.bfloat16)}
    updates = {"w": jnp.full(1_000_000, -5e-7, jnp.float32)}
    nearest = apply_updates(params, updates, False, jax.random.key(0))
    np.testing.assert_array_equal(nearest["w"], params["w"])
    moved = apply_updates(params, updates, True, jax.random.key(0))["w"]
    mean = float(np.mean(np.asarray(moved, np.float64) - np.asarray(params["w"], np.float64)))
    step = 2.0**-11  # between bfloat16 numbers around 0.1
    assert abs(mean + 5e-7) < 6 * math.sqrt(5e-7 / step / 1_000_000) * step


def test_chances_are_others_for_each_leaf_and_update(mesh):
    """Of two leaves alike, and of two updates, the same places round up as often as chance has it."""
    half = jnp.full(20_000, 1 + 2.0**-8, jnp.float32)  # between two neighbours
    like = jnp.ones(20_000, jnp.bfloat16)

    def up(tree):
        return [np.asarray(leaf, np.float32) > 1 for leaf in jax.tree.leaves(tree)]

    params, updates = {"a": like, "b": like}, {"a": half - 1, "b": half - 1}
    keys = [jax.random.fold_in(jax.random.key(seed), step) for seed, step in ((0, 0), (0, 1), (1, 0))]
    rounds = [bits for key in keys for bits in up(apply_updates(params, updates, True, key))]
    # The second moment of Lion's kind, b1 = b2 = 0: the moment is the gradient, rounded.
    rule = make_optimizer(config_of("lion", b2=0.0, moment_dtype="bfloat16", clip_norm=1e9).optim)
    state = rule.init(params)
    for _ in range(2):
        _, state = rule.update({"a": half, "b": half}, state, params)
        rounds += up([state[1].by_weight[name].mu for name in ("a", "b")])
    for i, one in enumerate(rounds):
        assert abs(one.mean() - 0.5) < 6 * 0.5 / math.sqrt(one.size)
        for other in rounds[:i]:
            assert abs((one == other).mean() - 0.5) < 6 * 0.5 / math.sqrt(one.size)


@pytest.mark.slow
def test_stochastic_rounding_is_the_same_on_eight_devices(mesh):
    config = config_of("adamw", epsilon=1e-3)
    config.train.param_dtype, config.train.rounding = "bfloat16", "stochastic"
    one, eight = (trained(config, chosen, 1)[0].params for chosen in (mesh, mesh_of(2, 2, 2)))
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(eight), strict=True):
        assert a.dtype == jnp.bfloat16
        assert np.mean(np.asarray(a) != np.asarray(b)) < 1e-2  # where sums in another order decide


CHECKPOINTED = [(name, {}, "float32") for name in OPTIMIZERS]
CHECKPOINTED += [(name, {"moment_dtype": "bfloat16"}, "bfloat16") for name in ("adamw", "adafactor")]
CHECKPOINTED += [("adamw", {}, "bfloat16"), ("adamw", {"offload": True}, "float32")]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "more", "dtype"), others_in_faults(CHECKPOINTED, *CHECKPOINTED[-3:-1]))
def test_a_restored_state_goes_on_to_the_same_bits(name, more, dtype, tmp_path):
    config, mesh = config_of(name, **more), mesh_of(2, 2, 2)
    config.train.param_dtype = dtype
    with Checkpoints(tmp_path, lambda folder: None) as checkpoints:
        state, _ = trained(config, mesh, 2)
        checkpoints.save(state)
        restored = checkpoints.restore_latest(WIDE, config, mesh)
    jax.tree.map(np.testing.assert_array_equal, restored, state)
    described = [jax.tree.map(lambda x: (x.dtype, x.sharding.memory_kind), s) for s in (restored, state)]
    assert described[0] == described[1]
    with jax.set_mesh(mesh):
        update = make_update(WIDE, config, mesh)
        batch = [random_batch(1, 8, 2)]
        one, other = update(state, batch, {}, None)[0], update(restored, batch, {}, None)[0]
    jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.mark.parametrize("name", others_slow(["adamw", "adafactor"], "adamw"))
def test_moments_in_host_memory_are_the_same_moments(name):
    mesh = mesh_of(2, 2, 2)
    here, _ = trained(config_of(name), mesh, 2)
    there, _ = trained(config_of(name, offload=True), mesh, 2)
    assert_close(there, here, rtol=1e-5, atol=1e-6)
    large = [x for x in jax.tree.leaves(there.opt_state) if x.ndim > 1]
    assert large and {x.sharding.memory_kind for x in large} == {HOST_MEMORY}
    assert {x.sharding.memory_kind for x in jax.tree.leaves(there.params)} == {"device"}


@pytest.mark.faults
def test_on_a_tpu_moments_in_host_memory_leave_the_device(monkeypatch):
    """Compiled for a topology, without a TPU."""
    pytest.importorskip("libtpu")
    monkeypatch.setenv("TPU_SKIP_MDS_QUERY", "1")
    monkeypatch.setenv("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    devices = topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x2").devices
    mesh = make_mesh({"fsdp": 4}, devices)
    model = dataclasses.replace(MISTRAL, d_model=1024, n_heads=8, d_ff=3584, vocab_size=4096)
    used = {}
    for offload in (False, True):
        config = config_of("adamw", offload=offload)
        state = jax.tree.map(
            lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
            abstract_state(model, config),
            state_shardings(model, config, mesh),
        )
        apply = programs(model, config, mesh).apply
        with jax.set_mesh(mesh):
            used[offload] = apply.lower(state, state.params, count=1).compile().memory_analysis()
    moments = 2 * sum(math.prod(x.shape) * 4 for x in jax.tree.leaves(state.params)) / 4  # bytes a device
    here, there = used[False], used[True]
    # Updates take the gradient's place, and at no time are all moments here.
    assert here.temp_size_in_bytes < 0.1 * moments
    assert there.temp_size_in_bytes < 0.8 * moments
    assert there.host_argument_size_in_bytes == pytest.approx(moments, rel=0.01)
    assert here.argument_size_in_bytes - there.argument_size_in_bytes == pytest.approx(moments, rel=0.01)
