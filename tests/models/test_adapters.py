"""LoRA: adapters start as nothing, are all that is trained, and are the same folded, in peft, on a mesh and after a restart."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import peft
import pytest
import safetensors.numpy
import transformers
from ml_collections import ConfigDict, FrozenConfigDict
from support.quick import others_slow
from support.small_model import MIXTURE, SMALL, mesh_of, random_batch
from support.torch_models import our_logits, save_random, torch_logits

from sami_jax.cli import main
from sami_jax.config import defaults
from sami_jax.contrast.likelihood import likelihoods
from sami_jax.contrast.update import accumulate, init_state, make_update, sami_loss, state_shardings
from sami_jax.errors import UserError
from sami_jax.export.huggingface import copy_companions, export
from sami_jax.export.peft import export_adapters
from sami_jax.models.adapters import RECORD, adapted, folded, init_adapters, trained, write_record
from sami_jax.models.decoder import init_params, layers_apart, param_shardings
from sami_jax.models.huggingface import load_params, read_config
from sami_jax.models.pretrained import ModelFolder
from sami_jax.models.stack import joined, lent
from sami_jax.stages.checkpoint import Checkpoints

RANK = 4


def lora(**changes) -> ConfigDict:
    return ConfigDict({"rank": RANK, "alpha": 8.0, "targets": ()} | changes)


def grown(adapters: dict) -> dict:
    """Adapters that have learnt something: no part of them is zero."""
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda w: np.asarray(w) + 0.1 * rng.standard_normal(w.shape, np.float32), adapters)


@pytest.fixture
def config():
    config = defaults()
    config.optim.learning_rate = 1e-2
    config.train.remat = "none"
    return config


@pytest.fixture(scope="module")
def small():
    return adapted(SMALL, lora())


def state_of(adapters, model_config, config, mesh):
    return init_state(jax.tree.map(jnp.array, adapters), model_config, config, mesh)


def test_at_the_start_adapters_change_nothing(small, small_params, mesh):
    params = joined(small_params, init_adapters(small, 0, mesh, "float32"))
    tokens = np.arange(24).reshape(2, 12)
    np.testing.assert_array_equal(our_logits(small, params, tokens), our_logits(SMALL, small_params, tokens))


@pytest.mark.parametrize("remat", others_slow(["none", "full"], "full"))
def test_adapters_alone_are_trained(small, small_params, mesh, config, remat):
    """In two microbatches, of which the second is added in place where remat is full."""
    config.train.remat = remat
    frozen = jax.tree.map(np.asarray, small_params)
    start = init_adapters(small, 0, mesh, "float32")
    state = state_of(start, small, config, mesh)
    batches = [random_batch(seed, 4, 2) for seed in (0, 1)]
    with jax.set_mesh(mesh):
        update = make_update(small, config, mesh)
        bounds = []
        for _ in range(8):
            state, metrics = update(state, batches, small_params, None)
            bounds.append(float(metrics["mi_lower_bound"]))
    assert bounds[-1] > bounds[0] + 0.01
    jax.tree.map(np.testing.assert_array_equal, small_params, frozen)
    assert jax.tree.structure(state.params) == jax.tree.structure(start)
    assert {path[-1].key for path, _ in jax.tree_util.tree_leaves_with_path(state.params)} == {"lora_a", "lora_b"}
    for new, old in zip(jax.tree.leaves(state.params), jax.tree.leaves(start), strict=True):
        assert np.abs(new - old).max() > 1e-3


def test_the_gradient_is_that_of_the_whole_model_at_the_adapters(small, small_params, mesh, config):
    adapters = grown(init_adapters(small, 0, mesh, "float32"))
    batch = random_batch(2, 4, 2)
    add = jax.jit(accumulate, static_argnums=(3, 5))
    frozen_config = FrozenConfigDict(config)
    with jax.set_mesh(mesh):
        gradient, _ = add(adapters, small_params, None, small, batch, frozen_config, None)
        whole, _ = add(joined(small_params, adapters), {}, None, small, batch, frozen_config, None)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), gradient, trained(small, whole))


def test_s_equals_that_of_the_folded_model(small, small_params, mesh):
    adapters = grown(init_adapters(small, 0, mesh, "float32"))
    batch = random_batch(3, 4, 2)
    s = jax.jit(lambda params, config: likelihoods(params, config, batch).summed, static_argnums=1)
    ours = s(joined(small_params, adapters), small)
    whole = folded(small, small_params, adapters, mesh)
    assert jax.tree.structure(whole) == jax.tree.structure(small_params)
    np.testing.assert_allclose(ours, s(whole, SMALL), atol=1e-4)
    assert np.abs(ours - s(small_params, SMALL)).max() > 0.1


@pytest.mark.slow
def test_the_frozen_model_is_the_base_of_the_objective(small, small_params, mesh, config):
    config.objective.kl_weight, config.objective.over_base = 0.5, True
    batch = random_batch(4, 4, 2)
    fresh = init_adapters(small, 0, mesh, "float32")
    adapters = grown(fresh)

    def metrics(params, model_config):
        return sami_loss(params, model_config, batch, config, small_params)[1]

    first, moved = (metrics(joined(small_params, trained), small) for trained in (fresh, adapters))
    whole = metrics(folded(small, small_params, adapters, mesh), SMALL)
    for name in ("kl", "own_over_base"):
        assert float(first[name]) == pytest.approx(0, abs=1e-6)
        assert abs(float(moved[name])) > 0.01 and float(moved[name]) == pytest.approx(float(whole[name]), rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("base", [SMALL, MIXTURE], ids=["dense", "mixture"])
def test_updates_on_eight_devices_equal_one(base, mesh, config):
    model_config = adapted(base, lora())
    params = jax.tree.map(np.asarray, init_params(base, 0, mesh))
    start = jax.tree.map(np.asarray, init_adapters(model_config, 0, mesh, "float32"))
    config.train.remat, config.optim.epsilon = "full", 1e-3
    found = []
    for chosen in (mesh, mesh_of(1, 4, 2) if base is SMALL else mesh_of(1, 2, 1, 4)):
        frozen = jax.device_put(params, param_shardings(base, chosen))
        placed = jax.device_put(start, state_shardings(model_config, config, chosen).params)
        with jax.set_mesh(chosen):
            state = init_state(placed, model_config, config, chosen)
            update = make_update(model_config, config, chosen)
            for seed in range(2):
                batches = [random_batch(10 * seed + i, 8, 2) for i in range(2)]
                state, metrics = update(state, batches, frozen, None)
        found.append((state.params, float(metrics["loss"]), folded(model_config, frozen, state.params, chosen)))
    (one, one_loss, one_whole), (eight, eight_loss, eight_whole) = found
    assert eight_loss == pytest.approx(one_loss, rel=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), eight, one)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), eight_whole, one_whole)


def test_frozen_weights_in_bfloat16(small, small_params, mesh, config):
    """As on accelerators. Adapters stay in float32, and are folded in float32."""
    config.train.compute_dtype = "bfloat16"
    frozen = jax.tree.map(lambda w: w.astype(jnp.bfloat16), small_params)
    state = state_of(init_adapters(small, 0, mesh, "float32"), small, config, mesh)
    with jax.set_mesh(mesh):
        update = make_update(small, config, mesh)
        state, metrics = update(state, [random_batch(0, 4, 2)], frozen, None)
    assert np.isfinite(float(metrics["loss"]))
    assert {leaf.dtype for leaf in jax.tree.leaves(state.params)} == {jnp.dtype("float32")}
    query = folded(small, frozen, state.params, mesh)["blocks"]["attention"]["query"]["weight"]
    own = state.params["blocks"]["attention"]["query"]
    added = 8.0 / RANK * np.einsum("ldr,lrhk->ldhk", own["lora_a"], own["lora_b"])
    expected = np.asarray(frozen["blocks"]["attention"]["query"]["weight"], np.float32) + added
    np.testing.assert_allclose(query, expected, atol=1e-6)


FAMILIES = {
    "llama, wide heads": (),
    "mistral, window": ("query", "value"),
    "qwen 2.5": (),
    "qwen 3": ("output", "down"),
    "mixtral": (),
    "qwen 3 mixture": (),
    "olmo 2": (),
    "smollm 3": ("query", "up"),
    "phi 3": (),
    "phi 4 mini": ("key", "down"),
    "gemma 2": (),
    "gemma 3": ("query", "key", "gate"),
}
QUICK = ("llama, wide heads", "gemma 3")


@pytest.mark.parametrize("name", others_slow(FAMILIES, *QUICK))
def test_peft_and_transformers_compute_the_same(name, mesh, tmp_path):
    base = tmp_path / "base"
    save_random(name, base)
    plain = read_config(base)
    config = adapted(plain, lora(targets=FAMILIES[name]))
    frozen = load_params(base, plain, mesh, jnp.float32)
    adapters = grown(init_adapters(config, 0, mesh, "float32"))
    tokens = np.random.default_rng(0).integers(0, 96, (2, 24))
    ours = our_logits(config, joined(frozen, adapters), tokens)
    assert np.abs(ours - our_logits(plain, frozen, tokens)).max() > 0.1

    export(folded(config, frozen, adapters, mesh), plain, tmp_path / "whole", copy_companions(base))
    whole = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "whole")
    assert np.abs(torch_logits(whole, tokens) - ours).max() < 1e-4

    export_adapters(config, adapters, base, tmp_path / "adapter")
    path = json.loads((tmp_path / "adapter/adapter_config.json").read_text())["base_model_name_or_path"]
    assert path == str(base)
    model = transformers.AutoModelForCausalLM.from_pretrained(path)
    model = peft.PeftModel.from_pretrained(model, tmp_path / "adapter").eval()
    assert np.abs(torch_logits(model, tokens) - ours).max() < 1e-4
    with_adapter = {name.rsplit(".", 3)[0] for name, _ in model.named_parameters() if "lora_A" in name}
    written = safetensors.numpy.load_file(tmp_path / "adapter/adapter_model.safetensors")
    assert len(with_adapter) == len(written) // 2

    again = ModelFolder(base, plain, None, (0,)).with_adapter(tmp_path / "adapter")
    assert np.abs(our_logits(again.config, again.load(mesh, "float32"), tokens) - ours).max() < 1e-4


def test_lent_weights_are_held_once_and_come_back(small, small_params, mesh):
    frozen, adapters = {**small_params}, init_adapters(small, 0, mesh, "float32")
    with lent(frozen, adapters) as whole:
        assert not frozen and jax.tree.structure(whole) == jax.tree.structure(joined(small_params, adapters))
        with layers_apart(whole):
            assert "blocks" not in whole
    assert jax.tree.structure(frozen) == jax.tree.structure(small_params)
    jax.tree.map(np.testing.assert_array_equal, frozen, small_params)


def test_experts_have_no_adapters():
    assert adapted(MIXTURE, lora()).adapter.targets == ("query", "key", "value", "output")
    assert adapted(MIXTURE, lora(targets=("value", "query"))).adapter.targets == ("query", "value")
    with pytest.raises(UserError, match=r"whose experts have no adapters: up; choose of query, key, value, output"):
        adapted(MIXTURE, lora(targets=("query", "up")))
    assert adapted(SMALL, lora()).adapter.targets == ("query", "key", "value", "output", "gate", "up", "down")
    assert adapted(SMALL, lora(rank=0)) is SMALL


@pytest.fixture
def stage(mesh, tmp_path, config):
    """A base folder, and checkpoints of two updates of adapters beside it."""
    base = tmp_path / "base"
    save_random("llama, grouped, untied", base)
    model_config = adapted(read_config(base), lora())
    frozen = load_params(base, read_config(base), mesh, jnp.float32)
    adapters = init_adapters(model_config, 0, mesh, "float32")
    write_record(tmp_path / "checkpoints", model_config, base)
    with jax.set_mesh(mesh), Checkpoints(tmp_path / "checkpoints", copy_companions(base)) as checkpoints:
        state = init_state(adapters, model_config, config, mesh)
        update = make_update(model_config, config, mesh)
        for seed in range(2):
            state, _ = update(state, [random_batch(seed, 4, 2)], frozen, None)
        checkpoints.save(state)
    return base, tmp_path / "checkpoints", model_config, frozen, state


def test_a_restart_has_the_same_bits(stage, mesh, config):
    base, folder, model_config, _, state = stage
    with Checkpoints(folder, copy_companions(base)) as checkpoints:
        again = checkpoints.restore_latest(model_config, config, mesh)
    jax.tree.map(np.testing.assert_array_equal, again, state)


def test_export_of_a_checkpoint_folds_its_adapters(stage, mesh, tmp_path, capsys):
    base, folder, model_config, frozen, state = stage
    output = tmp_path / "model"
    argv = ["export", "--checkpoint", str(folder), "--output", str(output)]
    assert main(argv) == 0
    plain = dataclasses.replace(model_config, adapter=None)
    expected = folded(model_config, frozen, state.params, mesh)
    found = load_params(output, plain, mesh, jnp.float32)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), found, expected)
    # A base that has moved, and one that is another model.
    moved = base.rename(tmp_path / "moved")
    capsys.readouterr()
    assert main(argv) == 2
    assert f"the base model {base} is not there" in capsys.readouterr().err
    save_random("qwen 3", base)
    assert main(argv) == 2
    assert "is not the model that these adapters belong to" in capsys.readouterr().err
    record = json.loads((folder / RECORD).read_text())
    (folder / RECORD).write_text(json.dumps(record | {"base": str(moved)}))
    assert main(argv) == 0
