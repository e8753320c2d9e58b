"""Parity with transformers + torch on random small models: logits, greedy text, export; and folders that are refused."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from support.quick import others_slow
from support.small_model import mesh_of
from support.torch_models import MODELS, our_logits, save_random, torch_logits

from sami_jax.errors import UserError
from sami_jax.export.huggingface import copy_companions, export
from sami_jax.models.huggingface import check_weights, load_params, read_config
from sami_jax.models.pretrained import open_model
from sami_jax.sampling.decoding import generate
from sami_jax.sampling.drawing import SamplingOptions

# With layers, norms, windows and caches of every kind between them.
DECODED = ("llama, grouped, untied", "mistral, window", "gemma 2", "smollm 3")
EXPORTED = ("llama, wide heads", "qwen 2.5", "qwen 3 mixture", "gemma 3", "phi 3")


@pytest.fixture(scope="module", params=MODELS, ids=lambda name: name)
def pair(request, tmp_path_factory):
    """(torch model, its folder)."""
    folder = tmp_path_factory.mktemp("model")
    return save_random(request.param, folder), folder


@pytest.fixture(scope="module")
def tokens():
    return np.random.default_rng(0).integers(0, 96, (2, 24))


def test_logits_equal_transformers(pair, tokens, mesh):
    model, folder = pair
    config = read_config(folder)
    ours = our_logits(config, load_params(folder, config, mesh, jnp.float32), tokens)
    assert np.abs(ours - torch_logits(model, tokens)).max() < 1e-4


@pytest.mark.parametrize("pair", others_slow(MODELS, *DECODED), indirect=True)
def test_greedy_text_equals_transformers(pair, tokens, mesh):
    model, folder = pair
    config = read_config(folder)
    params = load_params(folder, config, mesh, jnp.float32)
    options = SamplingOptions(temperature=0.0, max_new_tokens=24)
    prompts = [tokens[0].tolist(), tokens[1, :9].tolist()]
    ours = generate(
        params,
        config,
        prompts,
        [0, 0],
        options,
        end_tokens=(96,),
        decode=lambda ids: " ".join(map(str, ids)),
        mesh=mesh,
        batch_size=2,
    )
    for prompt, response in zip(prompts, ours, strict=True):
        with torch.no_grad():
            theirs = model.generate(
                torch.tensor([prompt]),
                attention_mask=torch.ones(1, len(prompt)),
                max_new_tokens=24,
                do_sample=False,
                pad_token_id=96,
            )
        expected = [token for token in theirs[0, len(prompt) :].tolist() if token != 96]
        assert response.text == " ".join(map(str, expected))
        assert response.tokens == len(expected)


@pytest.mark.parametrize("pair", others_slow(MODELS, *EXPORTED), indirect=True)
def test_export_loads_in_transformers_with_the_same_logits(pair, tokens, mesh, tmp_path):
    model, folder = pair
    config = read_config(folder)
    params = load_params(folder, config, mesh, jnp.float32)
    for name, size in (("single", 2**30), ("sharded", 30_000)):
        export(params, config, tmp_path / name, copy_companions(folder), max_shard_bytes=size)
        assert (tmp_path / name / "model.safetensors.index.json").exists() == (name == "sharded")
        again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / name, attn_implementation="eager")
        assert np.abs(torch_logits(again, tokens) - torch_logits(model, tokens)).max() < 1e-6
        reread = load_params(tmp_path / name, config, mesh, jnp.float32)
        jax.tree.map(np.testing.assert_array_equal, reread, params)


def test_sharded_load_equals_whole_load(pair, mesh):
    _, folder = pair
    config = read_config(folder)
    sizes = (2, 2, 1) if config.n_kv_heads == 1 else (2, 2, 2)
    if config.vocab_size % sizes[2]:
        sizes = (2, 4, 1)
    sharded = load_params(folder, config, mesh_of(*sizes), jnp.float32)
    jax.tree.map(np.testing.assert_array_equal, sharded, load_params(folder, config, mesh, jnp.float32))


def test_new_config_json_round_trips(tmp_path, mesh, small_params):
    from support.small_model import SMALL

    export(small_params, SMALL, tmp_path / "new", lambda folder: None, dtype=jnp.bfloat16)
    assert read_config(tmp_path / "new") == SMALL
    assert json.loads((tmp_path / "new" / "config.json").read_text())["dtype"] == "bfloat16"
    reread = load_params(tmp_path / "new", SMALL, mesh, jnp.float32)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-2), reread, small_params)


@pytest.fixture
def folder(tmp_path):
    save_random("llama, grouped, untied", tmp_path / "model")
    return tmp_path / "model"


def edit_config(folder, **changes):
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(content | changes))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda f: shutil.rmtree(f), "no such model folder"),
        (lambda f: (f / "config.json").unlink(), "config.json is missing"),
        (lambda f: (f / "config.json").write_text("{"), "not readable JSON"),
        (lambda f: edit_config(f, model_type="gpt2"), "model_type 'gpt2' is not supported"),
        (lambda f: edit_config(f, hidden_act="gelu"), "hidden_act='gelu'"),
        (lambda f: edit_config(f, model_type="gemma2"), "hidden_act='silu' is not supported, only 'gelu_pytorch_tanh'"),
        (
            lambda f: edit_config(f, model_type="qwen3_moe", mlp_only_layers=[1]),
            "mlp_only_layers=[1] is not supported",
        ),
        (
            lambda f: edit_config(
                f,
                model_type="gemma2",
                hidden_act="gelu_pytorch_tanh",
                layer_types=["sliding_attention", "chunked_attention", "full_attention"],
            ),
            "layer_types is ['sliding_attention', 'chunked_attention'",
        ),
        (lambda f: edit_config(f, model_type="smollm3", no_rope_layers="all"), "no_rope_layers is 'all'"),
        (lambda f: edit_config(f, model_type="olmo2"), "self_attn.k_norm.weight is missing"),
        (lambda f: edit_config(f, model_type="phi3"), "self_attn.qkv_proj.weight is missing"),
        (
            lambda f: edit_config(f, rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}),
            "rope type 'linear'",
        ),
        (lambda f: edit_config(f, intermediate_size=64), "mlp.down_proj.weight has shape"),
        (lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"), "pickled weights are not loaded"),
        (lambda f: (f / "model.safetensors").unlink(), "no model.safetensors"),
        (lambda f: (f / "model.safetensors").write_bytes(b"\x10"), "damaged weights file"),
        (lambda f: edit_config(f, num_hidden_layers=4), "model.layers.3"),
        (lambda f: edit_config(f, model_type="qwen2", use_sliding_window=True), "use_sliding_window=True"),
        (
            lambda f: edit_config(f, model_type="mixtral", num_local_experts=2),
            "block_sparse_moe",
        ),
    ],
)
def test_unusable_folders_are_refused_in_one_line(folder, damage, words):
    damage(folder)
    with pytest.raises(UserError) as error:
        check_weights(folder, read_config(folder))
    assert words in str(error.value) and "\n" not in str(error.value)


def test_folder_without_tokenizer_is_refused(folder):
    with pytest.raises(UserError, match=r"no tokenizer\.json"):
        open_model(folder)
