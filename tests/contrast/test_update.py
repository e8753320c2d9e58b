"""The update on several meshes, in several microbatches, and against optax by hand."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import FrozenConfigDict
from support.quick import others_slow
from support.small_model import SMALL, mesh_of, random_batch

from sami_jax.config import defaults
from sami_jax.contrast import update as update_module
from sami_jax.contrast.update import (
    SHARED_PREFIX_TOLERANCE,
    Programs,
    TrainState,
    accumulate,
    check_program,
    check_shared_prefix,
    checked,
    init_state,
    make_update,
    mean_metrics,
    put_batch,
    sami_loss,
)
from sami_jax.data.batches import ContrastBatch, ContrastExample, pack, shape_for
from sami_jax.errors import UserError
from sami_jax.ground.display import showing
from sami_jax.ground.work import Work
from sami_jax.models import attention
from sami_jax.models.decoder import abstract_params, init_params, param_shardings

ADD = jax.jit(accumulate, static_argnums=(3, 5))  # one for all, so that what is the same is compiled once


@pytest.fixture
def config():
    config = defaults()
    config.optim.learning_rate = 1e-2
    config.train.remat = "none"
    return config


def in_microbatches(batch: ContrastBatch, count: int) -> list[ContrastBatch]:
    return [jax.tree.map(lambda x, i=i: np.split(x, count)[i], batch) for i in range(count)]


def gradients(params, microbatches, config, mesh, reference=None, model_config=SMALL):
    """Gradient and metrics of a whole batch."""
    total, of_each = None, []
    with jax.set_mesh(mesh):
        for batch in microbatches:
            batch = put_batch(batch, mesh)
            total, metrics = ADD(params, {}, total, model_config, batch, FrozenConfigDict(config), reference)
            of_each.append(metrics)
    return jax.tree.map(lambda gradient: gradient / len(microbatches), total), mean_metrics(of_each)


def relative_difference(a, b) -> float:
    """||a - b|| / ||b|| over whole trees."""
    return float(optax.tree.norm(jax.tree.map(lambda x, y: np.asarray(x) - np.asarray(y), a, b)) / optax.tree.norm(b))


@pytest.mark.parametrize("sizes", [(2, 2, 2), pytest.param((1, 8, 1), marks=pytest.mark.slow)])
def test_s_and_gradient_are_the_same_on_eight_devices(small_params, mesh, config, sizes):
    batch = in_microbatches(random_batch(0, 8, 2), 1)
    one, one_metrics = gradients(small_params, batch, config, mesh)
    eight_mesh = mesh_of(*sizes)
    placed = jax.device_put(jax.tree.map(np.asarray, small_params), param_shardings(SMALL, eight_mesh))
    eight, eight_metrics = gradients(placed, batch, config, eight_mesh)
    assert relative_difference(eight, one) < 1e-5
    for name in one_metrics:
        assert float(eight_metrics[name]) == pytest.approx(float(one_metrics[name]), rel=1e-5, abs=1e-6), name


@pytest.mark.slow
@pytest.mark.parametrize("remat", ["none", "dots", "full"])
@pytest.mark.parametrize("at_once", [0, 1])
def test_four_microbatches_equal_one_batch(small_params, mesh, config, remat, at_once):
    config.train.remat, config.train.constitutions_at_once = remat, at_once
    batch = random_batch(1, 8, 3)
    whole, _ = gradients(small_params, in_microbatches(batch, 1), config, mesh)
    parts, _ = gradients(small_params, in_microbatches(batch, 4), config, mesh)
    assert relative_difference(parts, whole) < 1e-5


def test_gradient_is_that_of_finite_differences(small_params, mesh, config):
    batch = in_microbatches(random_batch(2, 2, 2), 1)
    gradient, _ = gradients(small_params, batch, config, mesh)
    direction = jax.tree.map(
        lambda w: np.random.default_rng(w.size).normal(size=w.shape).astype(np.float32), small_params
    )
    step = 1e-2 / float(optax.tree.norm(direction))

    def loss(sign):
        moved = jax.tree.map(lambda w, d: w + sign * step * d, small_params, direction)
        return float(sami_loss(moved, SMALL, batch[0], config, None)[0])

    slope = sum(
        float(jnp.vdot(g, d)) for g, d in zip(jax.tree.leaves(gradient), jax.tree.leaves(direction), strict=True)
    )
    assert (loss(1) - loss(-1)) / (2 * step) == pytest.approx(slope, rel=0.02)


def test_one_update_is_clip_then_adamw(mesh, config):
    params = init_params(SMALL, 0, mesh)
    start = jax.tree.map(np.asarray, params)
    batch = in_microbatches(random_batch(3, 4, 2), 2)
    gradient, _ = gradients(params, batch, config, mesh)
    with jax.set_mesh(mesh):
        state = init_state(params, SMALL, config, mesh)
        state, metrics = make_update(SMALL, config, mesh)(state, batch, {}, None)
    scale = min(1.0, 1.0 / float(optax.tree.norm(gradient)))

    def adamw_first_step(w, g):
        g = g * scale
        return w - 1e-2 * g / (np.abs(g) + 1e-8)  # both moments, bias-corrected, are those of one gradient

    expected = jax.tree.map(adamw_first_step, start, gradient)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), state.params, expected)
    assert int(state.step) == 1 and float(metrics["gradient_norm"]) == pytest.approx(float(optax.tree.norm(gradient)))


def test_master_weights_stay_float32_under_bfloat16_compute(mesh, config):
    config.train.compute_dtype = "bfloat16"
    config.optim.learning_rate = 5e-7
    params = init_params(SMALL, 0, mesh)
    start = jax.tree.map(np.asarray, params)
    with jax.set_mesh(mesh):
        state = init_state(params, SMALL, config, mesh)
        batch = in_microbatches(random_batch(4, 2, 2), 1)
        state, _ = make_update(SMALL, config, mesh)(state, batch, {}, None)
    moved = jax.tree.map(lambda new, old: float(np.mean(np.asarray(new) != old)), state.params, start)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(state.params))
    # A bfloat16 weight of 0.1 cannot take a step of 5e-7; these can.
    assert min(jax.tree.leaves(moved["blocks"])) > 0.5


def on_the_grid(params: dict) -> dict:
    """As published models are: every weight is a bfloat16 number."""
    return jax.tree.map(lambda w: w.astype(jnp.bfloat16), params)


def some_updates(params, config, mesh, count: int):
    """The weights after updates on one batch, and what was logged of each."""
    params = jax.tree.map(lambda w: jnp.array(w, config.train.param_dtype, copy=True), params)
    batch, logged = in_microbatches(random_batch(6, 4, 2), 1), []
    with jax.set_mesh(mesh):
        state = init_state(params, SMALL, config, mesh)
        update = make_update(SMALL, config, mesh)
        for _ in range(count):
            state, metrics = update(state, batch, {}, None)
            logged.append(metrics)
    return state.params, logged


WAYS = [
    # param_dtype, rounding, compute_dtype, the share of six small updates that arrives, at least and at most
    ("float32", "nearest", "float32", 0.999, 1.001),
    ("float32", "nearest", "bfloat16", 0.0, 0.3),
    ("bfloat16", "nearest", "bfloat16", 0.0, 0.3),
    ("bfloat16", "stochastic", "bfloat16", 0.9, 1.1),
]


@pytest.mark.parametrize(("param_dtype", "rounding", "compute_dtype", "low", "high"), others_slow(WAYS, WAYS[-1]))
def test_how_much_of_small_updates_the_forward_pass_takes_up(
    small_params, mesh, config, param_dtype, rounding, compute_dtype, low, high
):
    config.optim.learning_rate = 2e-5
    config.train.update({"param_dtype": param_dtype, "rounding": rounding, "compute_dtype": compute_dtype})
    start = on_the_grid(small_params)
    exact = defaults()
    exact.update(config.copy_and_resolve_references())
    exact.train.update({"param_dtype": "float32", "compute_dtype": "bfloat16"})
    params, logged = some_updates(start, config, mesh, 6)
    assert low < np.mean([metrics["effective_update"] for metrics in logged]) < high
    # The measure tells the truth: so much of what would have been moved has moved, in what is computed with.
    intended, _ = some_updates(start, exact, mesh, 6)
    intended = jax.tree.map(lambda new, old: new - old.astype(jnp.float32), intended, start)
    moved = jax.tree.map(lambda new, old: (new.astype(compute_dtype) - old).astype(jnp.float32), params, start)
    share = sum(map(jnp.vdot, *map(jax.tree.leaves, (moved, intended)))) / optax.tree.norm(intended) ** 2
    assert low - 0.1 < float(share) < high + 0.1


@pytest.mark.parametrize(("rounding", "learns"), [("nearest", False), ("stochastic", True)])
def test_a_bfloat16_model_learns_by_moves_below_its_steps(small_params, mesh, config, rounding, learns):
    config.optim.learning_rate = 2e-5
    config.train.update({"param_dtype": "bfloat16", "rounding": rounding, "compute_dtype": "bfloat16"})
    _, logged = some_updates(on_the_grid(small_params), config, mesh, 60)
    gain = logged[-1]["mi_lower_bound"] - logged[0]["mi_lower_bound"]
    assert gain > 0.2 if learns else gain < 0.02


def test_the_gradient_of_a_frequent_token_adds_up_in_float32(small_params, mesh, config):
    """Where the weights are bfloat16 too: of 2,000 places, a sum in it would lose most."""
    config.train.compute_dtype = "bfloat16"
    examples = [ContrastExample(((5,) * 110, (5,) * 100), ((6, 7), (8, 9)))] * 8
    batch = [pack(examples, shape_for(examples, 16))]
    kept = on_the_grid(small_params)
    narrow, _ = gradients(kept, batch, config, mesh)
    wide, _ = gradients(jax.tree.map(lambda w: w.astype(jnp.float32), kept), batch, config, mesh)
    assert relative_difference(narrow["embedding"][5], wide["embedding"][5]) < 4e-3


def test_kl_term_pulls_towards_the_reference(small_params, mesh, config):
    config.objective.kl_weight = 0.5
    batch = in_microbatches(random_batch(5, 2, 2), 1)
    other = init_params(SMALL, 7, mesh)
    _, metrics = gradients(small_params, batch, config, mesh, other)
    assert float(metrics["loss"]) == pytest.approx(float(metrics["contrastive_loss"] + 0.5 * metrics["kl"]), rel=1e-5)
    assert float(metrics["kl"]) > 0


def test_training_raises_the_bound(mesh, config):
    batch = in_microbatches(random_batch(6, 4, 2), 1)
    with jax.set_mesh(mesh):
        state = init_state(init_params(SMALL, 0, mesh), SMALL, config, mesh)
        update = make_update(SMALL, config, mesh)
        bounds = []
        for _ in range(10):
            state, metrics = update(state, batch, {}, None)
            bounds.append(float(metrics["mi_lower_bound"]))
    assert bounds[-1] > bounds[0] + 0.1


def self_check(params, config, mesh):
    examples = [ContrastExample(((1, 2, 3), (4, 5)), ((6, 7), (8, 9)))]
    with jax.set_mesh(mesh):
        return check_shared_prefix(params, SMALL, config, examples, mesh)


@pytest.mark.parametrize("dtype", others_slow(["float32", "bfloat16"], "bfloat16"))
def test_the_self_check_passes_on_sound_weights(small_params, mesh, config, dtype):
    config.train.compute_dtype = dtype
    assert self_check(small_params, config, mesh) < SHARED_PREFIX_TOLERANCE[dtype]


def test_the_self_check_stops_a_run_whose_paths_disagree(small_params, mesh, config, monkeypatch):
    # As if responses saw the ones before them: owners that are all the prefix's.
    monkeypatch.setattr(attention, "_hidden_from", lambda owners, keys_owners: jnp.zeros((1, 1, 1), bool))
    with pytest.raises(UserError, match="self-check"):
        self_check(small_params, config, mesh)


def test_the_self_check_reads_no_more_than_its_tokens(config):
    """Ends of prompts and beginnings of responses: it has room wherever training has, however long texts are."""
    long = ContrastExample(tuple((*range(90 + n), 7) * 50 for n in range(5)), ((3, 4) * 2000,) * 5)
    batch = checked([long], config, shards=2)
    assert batch.tokens.shape[:2] == (2, 3) and batch.tokens.shape[2] <= 512
    assert batch.prefix_lengths.tolist() == [[256] * 3] * 2 and batch.response_lengths.tolist() == [[64] * 3] * 2
    assert batch.tokens[0, 0, :256].tolist() == list(long.prompts[0][-256:])
    assert batch.tokens[0, 2, 256:320].tolist() == list(long.responses[0][:64])


@pytest.mark.slow
def test_the_self_check_holds_one_row_at_a_time(config):
    """Its memory does not grow with constitutions: three take about what one does."""
    model_config = dataclasses.replace(SMALL, d_model=64, d_ff=512, n_heads=8, max_positions=1024)
    params = abstract_params(model_config)

    def temporaries(count: int) -> int:
        one = ContrastExample(((1,) * 256,) * count, ((1,) * 64,) * count)
        program = check_program(model_config, config).lower(params, checked([one], config, 1)).compile()
        return program.memory_analysis().temp_size_in_bytes

    assert temporaries(3) < 2 * temporaries(1)


def test_the_self_check_stops_on_nan(mesh, small_params, config):
    broken = jax.tree.map(lambda w: w * float("nan"), small_params)
    with pytest.raises(UserError, match="self-check"):
        self_check(broken, config, mesh)


def test_an_update_moves_with_its_microbatches(monkeypatch, mesh, config):
    """Each is told once it is computed, while the next one is."""
    told = []
    number = jnp.float32(1)
    stand_ins = Programs(
        start=lambda params: number,
        add=lambda *_: (number, {"loss": number}),
        norm=lambda total: number,
        apply=lambda state, total, count: (state, {"update_norm": number}, None),
    )
    monkeypatch.setattr(update_module, "programs", lambda *_: stand_ins)
    monkeypatch.setattr(Work, "tell_within", lambda self, share: told.append(share))
    update = make_update(SMALL, config, mesh)
    state = TrainState({}, None, number)
    with showing(Work("updates", 1)):
        update(state, in_microbatches(random_batch(1, 4, 2), 4), {}, None)
    assert told == [0, 1 / 4, 2 / 4, 3 / 4]
    update(state, in_microbatches(random_batch(1, 4, 2), 4), {}, None)  # nobody watches
    assert len(told) == 4
