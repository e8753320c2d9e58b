"""What families switch, in every way through the decoder: packed rows, meshes, caches and kernels."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from ml_collections import FrozenConfigDict
from support.quick import others_in_faults
from support.small_model import mesh_of, random_batch
from support.torch_models import save_random

from sami_jax.config import defaults
from sami_jax.contrast.likelihood import likelihoods
from sami_jax.contrast.update import accumulate, put_batch
from sami_jax.errors import UserError
from sami_jax.kernels import attention as kernels
from sami_jax.models.cache import new_cache
from sami_jax.models.decoder import param_shardings
from sami_jax.models.huggingface import load_params, read_config
from sami_jax.models.published import SHAPES
from sami_jax.sampling.decoding import SamplingOptions, generate

SWITCHED = (
    "qwen 3 mixture, not renormalized",
    "olmo 2",
    "smollm 3",
    "phi 3",
    "phi 4 mini",
    "gemma 2",
    "gemma 3",
)
MOST_UNLIKE = ("qwen 3 mixture, not renormalized", "gemma 3")
some_quick = [pytest.param(name, marks=[pytest.mark.slow] * (name not in ("smollm 3", "gemma 2"))) for name in SWITCHED]


@functools.cache
def made(name: str, folder):
    """A random model of torch and ours, whose vocabulary two devices can share."""
    model = save_random(name, folder / name, vocab_size=96 + 2)
    config = read_config(folder / name)
    return model, config, load_params(folder / name, config, mesh_of(1, 1, 1), jnp.float32)


@pytest.fixture(scope="module")
def random(tmp_path_factory):
    return functools.partial(made, folder=tmp_path_factory.mktemp("models"))


@pytest.mark.parametrize("name", some_quick)
def test_scores_of_shared_prefixes_equal_transformers(random, name):
    model, config, params = random(name)
    batch = random_batch(0, 1, 2, prefix=20, response=12)
    ours = jax.jit(likelihoods, static_argnums=1)(params, config, batch).summed[0]
    lengths, starts = batch.response_lengths[0], np.cumsum([0, *batch.response_lengths[0]])
    for i, prefix in enumerate(batch.prefix_lengths[0]):
        row = batch.tokens[0, i]
        for j in range(2):
            text = [*row[:prefix], *row[prefix + starts[j] : prefix + starts[j + 1]]]
            with torch.no_grad():
                logprobs = torch.log_softmax(model(torch.tensor(np.array([text]))).logits[0].double(), dim=-1)
            expected = sum(logprobs[prefix + n - 1, text[prefix + n]].item() for n in range(lengths[j]))
            assert float(ours[i, j]) == pytest.approx(expected, abs=1e-4)


def value_and_gradient(params, config, batch, mesh):
    settings = defaults()
    settings.train.remat = "full"
    with jax.set_mesh(mesh):
        add = jax.jit(accumulate, static_argnums=(3, 5))
        zeros = jax.tree.map(jnp.zeros_like, params)
        options = (config, put_batch(batch, mesh), FrozenConfigDict(settings), None)
        return add(params, {}, zeros, *options)


@pytest.mark.slow
@pytest.mark.parametrize("name", others_in_faults(SWITCHED, *MOST_UNLIKE))
def test_eight_devices_equal_one(random, name):
    _, config, params = random(name)
    batch = random_batch(0, 4, 2, prefix=20, response=12)
    mesh = mesh_of(2, 2, 2)
    placed = jax.device_put(params, param_shardings(config, mesh))
    one, eight = (
        value_and_gradient(params, config, batch, mesh_of(1, 1, 1)),
        value_and_gradient(placed, config, batch, mesh),
    )
    assert float(eight[1]["loss"]) == pytest.approx(float(one[1]["loss"]), rel=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4, rtol=1e-3), eight[0], one[0])


@pytest.mark.slow
@pytest.mark.parametrize("name", others_in_faults(SWITCHED, *MOST_UNLIKE))
def test_text_on_eight_devices_equals_that_on_one(random, name):
    """There layers are stacked, here they are apart."""
    _, config, params = random(name)
    prompts = [[5, 3, 9] * 7, [1, 2], [40, 41, 42, 43], [7] * 12]
    found = []
    for mesh in (mesh_of(1, 1, 1), mesh_of(2, 2, 2)):
        placed = jax.device_put(jax.tree.map(np.asarray, params), param_shardings(config, mesh))
        options = SamplingOptions(temperature=0.0, max_new_tokens=16)
        spelled = {"end_tokens": (96,), "decode": lambda ids: " ".join(map(str, ids)), "mesh": mesh, "batch_size": 4}
        found.append([one.text for one in generate(placed, config, prompts, [0] * 4, options, **spelled)])
    assert found[0] == found[1] and all(found[0])


def test_local_layers_keep_no_more_than_their_window(random):
    _, config, _ = random("gemma 3")
    assert [layer.slots for layer in new_cache(config, 1, 40, jnp.float32)] == [5, 40, 5]
    assert new_cache(config, 1, 40, jnp.float32, stacked=True).slots == 40


@pytest.mark.slow
def test_a_kernel_attends_in_both_kinds_of_layers(random, monkeypatch):
    monkeypatch.setitem(kernels.KERNELS, "cudnn", functools.partial(kernels.dot_product, implementation="xla"))
    _, config, params = random("gemma 3")
    batch = random_batch(0, 2, 2, prefix=20, response=12)
    expected, ours = (
        jax.jit(likelihoods, static_argnums=1)(params, dataclasses.replace(config, attention=name), batch).summed
        for name in ("xla", "cudnn")
    )
    np.testing.assert_allclose(ours, expected, atol=1e-4)


def test_kernels_without_soft_caps_are_refused():
    with pytest.raises(UserError, match="'splash': knows no soft cap of attention's scores, which this gemma2 model"):
        dataclasses.replace(SHAPES["gemma-2-2b"], attention="splash")
    dataclasses.replace(SHAPES["gemma-3-1b"], attention="splash")
