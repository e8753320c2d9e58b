"""What lies in a model's folder and is not the model's: neither read, nor compared, nor copied."""

import shutil

import numpy as np
import pytest
import safetensors.numpy

from sami_jax import miniature
from sami_jax.data.jsonl import read_json, write_json
from sami_jax.errors import UserError
from sami_jax.export.huggingface import companions, copy_companions, export
from sami_jax.ground.digests import file_digests
from sami_jax.models.files import model_files
from sami_jax.models.huggingface import load_params, read_config
from sami_jax.models.pretrained import open_model

# What people's folders hold beside a model.
LEFT_OVER = {
    "a file manager's": ".DS_Store",
    "a file manager's, of a file": "._config.json",
    "a download's books": ".cache/huggingface/download/config.json.metadata",
    "an editor's copy": ".tokenizer.json.swp",
    "git's": ".gitattributes",
    "a card": "README.md",
    "a licence": "LICENSE.txt",
    "a training's adapters": "adapter_config.json",
    "their weights": "adapter_model.safetensors",
    "a trainer's state": "trainer_state.json",
    "all results": "all_results.json",
    "its requirements": "requirements.txt",
    "an optimizer's state": "optimizer.pt",
    "another run's principles": "principles.json",
    "an index of pickled weights": "pytorch_model.bin.index.json",
    "a checkpoint's folder": "checkpoint-500/config.json",
    "a conversion": "onnx/model.onnx",
    "weights of another program": "consolidated.safetensors",
}


@pytest.fixture
def base(tmp_path):
    return shutil.copytree(miniature.BASE, tmp_path / "base")


@pytest.mark.parametrize("name", LEFT_OVER.values(), ids=LEFT_OVER)
def test_left_over_files_are_not_the_models(base, tmp_path, name):
    before = file_digests(model_files(base), base)
    (base / name).parent.mkdir(parents=True, exist_ok=True)
    (base / name).write_bytes(b"left over")
    assert file_digests(model_files(base), base) == before
    copy_companions(base)(tmp_path)
    assert not (tmp_path / name).exists() and (tmp_path / "tokenizer.json").exists()


def test_what_is_read_is_compared(base):
    before = file_digests(model_files(base), base)
    assert set(before) == {file.name for file in miniature.BASE.iterdir()}
    (base / "generation_config.json").write_text("{}")
    assert file_digests(model_files(base), base).keys() - before.keys() == {"generation_config.json"}


def test_hidden_files_have_no_digest(base):
    """As of a run's models and checkpoints, which may be looked at in a file manager."""
    before = file_digests([base], base)
    for name in (".DS_Store", ".cache/huggingface/x"):
        (base / name).parent.mkdir(parents=True, exist_ok=True)
        (base / name).touch()
    assert file_digests([base], base) == before


def test_an_index_beside_the_one_file_is_an_older_saves(base, mesh):
    """transformers loads the file, whether the index's shard is there still or gone."""
    config = read_config(base)
    wanted = load_params(base, config, mesh, np.float32)
    weights = safetensors.numpy.load_file(base / "model.safetensors")
    shard = "model-00001-of-00001.safetensors"
    write_json(base / "model.safetensors.index.json", {"metadata": {}, "weight_map": dict.fromkeys(weights, shard)})
    for old in ({name: weight + 1 for name, weight in weights.items()}, None):
        if old is None:
            (base / shard).unlink()
        else:
            safetensors.numpy.save_file(old, base / shard)
        found = load_params(base, config, mesh, np.float32)
        np.testing.assert_array_equal(found["embedding"], wanted["embedding"])
        assert not {shard, "model.safetensors.index.json"} & {file.name for file in model_files(base)}
    (base / "model.safetensors").unlink()
    with pytest.raises(UserError, match=f"{shard}: weights file is missing"):
        load_params(base, config, mesh, np.float32)


def test_what_another_program_would_make_of_a_folder_is_said(base, tmp_path, mesh, capsys):
    write_json(base / "adapter_config.json", {"peft_type": "LORA"})
    settings = read_json(base / "config.json", "")
    write_json(base / "config.json", settings | {"quantization_config": {"load_in_4bit": True}})
    model = open_model(base)
    told = capsys.readouterr().err
    assert "adapter_config.json names are not applied" in told and "quantization_config" in told
    export(model.load(mesh), model.config, tmp_path / "saved", companions(model))
    exported = read_json(tmp_path / "saved/config.json", "")
    assert "quantization_config" not in exported and exported["vocab_size"] == model.config.vocab_size
    assert not (tmp_path / "saved/adapter_config.json").exists()
