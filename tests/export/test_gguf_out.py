"""GGUF files that are written: read again, they are the model they were made from."""

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from support.complaint import complaint
from support.gguf_files import byte_vocabulary, entries_of, piece_vocabulary, random_model, tensors_of
from support.gguf_files import write_gguf as write_by_hand
from support.quick import others_slow
from zoo.zoo_texts import TEXTS

from sami_jax import miniature
from sami_jax.cli import main
from sami_jax.config import defaults
from sami_jax.contrast.update import init_state
from sami_jax.errors import UserError
from sami_jax.export.gguf import gguf_entries, write_gguf
from sami_jax.export.huggingface import copy_companions
from sami_jax.ground.digests import file_digest
from sami_jax.imports.gguf import import_gguf
from sami_jax.imports.header import read_header
from sami_jax.models.config import LongRope, RopeScaling
from sami_jax.models.pretrained import ModelFolder, open_model
from sami_jax.stages.checkpoint import Checkpoints

LLAMA_3 = {"rope_theta": 1e4, "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
           "original_max_position_embeddings": 8192}  # fmt: skip
CASES = {
    "llama": ("llama", "gpt-2", {}),
    "llama, tied, digits": ("llama", "smollm", dict(tied=True)),
    "llama 3": ("llama", "llama-bpe", {}),
    "tekken": ("llama", "tekken", {}),
    "pieces": ("llama", None, {}),
    "qwen2": ("qwen2", "qwen2", dict(tied=True)),
    "qwen3": ("qwen3", "qwen2", {}),
    "gemma2": ("gemma2", None, dict(tied=True)),
}


def folder_of(place: Path, arch: str, pre: str | None, **options) -> Path:
    place.mkdir(exist_ok=True)
    vocabulary = piece_vocabulary() if pre is None else byte_vocabulary() | {"tokenizer.ggml.pre": pre}
    model = random_model(arch, len(vocabulary["tokenizer.ggml.tokens"]), **options)
    file = write_by_hand(place / "first.gguf", arch, vocabulary | entries_of(model, arch), tensors_of(model, arch))
    import_gguf(file, place / "first")
    return place / "first"


def written(model: ModelFolder, mesh, place: Path, kind: str = "f32") -> Path:
    write_gguf(model.load(mesh), model, kind, place / "second.gguf", gguf_entries(model))
    return place / "second.gguf"


def weights(folder: Path) -> dict[str, np.ndarray]:
    return safetensors.numpy.load_file(folder / "model.safetensors")


@pytest.mark.parametrize(
    ("arch", "pre", "options"), others_slow(CASES.values(), CASES["pieces"], CASES["qwen3"]), ids=CASES
)
def test_read_again_it_is_the_same(arch, pre, options, tmp_path, mesh):
    model = open_model(folder_of(tmp_path, arch, pre, **options))
    import_gguf(written(model, mesh, tmp_path), tmp_path / "second")
    again = open_model(tmp_path / "second")
    before, after = weights(tmp_path / "first"), weights(tmp_path / "second")
    assert before.keys() == after.keys()
    for name, weight in before.items():
        np.testing.assert_array_equal(after[name], weight, name)
    for name in ("config.json", "generation_config.json"):
        assert json.loads((tmp_path / "second" / name).read_text()) == json.loads(
            (tmp_path / "first" / name).read_text()
        )
    assert [again.tokenizer.encode(text) for text in TEXTS] == [model.tokenizer.encode(text) for text in TEXTS]
    assert again.end_tokens == model.end_tokens
    assert getattr(again.tokenizer, "chat_template", None) == getattr(model.tokenizer, "chat_template", None)


@pytest.mark.parametrize(
    ("kind", "dtype", "largest"), [("f16", np.float16, 0), ("bf16", ml_dtypes.bfloat16, 0), ("q8_0", np.float32, 4e-3)]
)
def test_fewer_bits(kind, dtype, largest, tmp_path, mesh):
    model = open_model(folder_of(tmp_path, "llama", "gpt-2"))
    import_gguf(written(model, mesh, tmp_path, kind), tmp_path / "second")
    before, after = weights(tmp_path / "first"), weights(tmp_path / "second")
    for name, weight in before.items():
        kept = weight if weight.ndim == 1 else weight.astype(dtype)
        assert np.abs(after[name].astype(np.float32) - kept.astype(np.float32)).max() <= largest, name


def test_rope_of_llama_3_1(tmp_path, mesh):
    model = open_model(folder_of(tmp_path, "llama", "llama-bpe"))
    config = json.loads((model.folder / "config.json").read_text()) | {"rope_parameters": LLAMA_3}
    (model.folder / "config.json").write_text(json.dumps(config))
    import_gguf(written(open_model(model.folder), mesh, tmp_path), tmp_path / "second")
    assert (
        open_model(tmp_path / "second").config.rope_scaling == open_model(model.folder).config.rope_scaling is not None
    )


def test_a_window_is_said_and_the_context_cut_to_it(tmp_path, mesh, capsys):
    model = open_model(folder_of(tmp_path, "llama", "llama-bpe"))
    config = json.loads((model.folder / "config.json").read_text()) | {"model_type": "mistral", "sliding_window": 16}
    (model.folder / "config.json").write_text(json.dumps(config))
    file = written(open_model(model.folder), mesh, tmp_path)
    assert "window of 16 tokens" in capsys.readouterr().err
    assert read_header(file).metadata.count("llama.context_length") == 16


@pytest.fixture
def checkpoint(tmp_path, mesh) -> Path:
    """Of a model that GGUF can tell, before its first update."""
    base = folder_of(tmp_path, "llama", "gpt-2")
    (base / "principles.json").write_text("[]")
    model, folder = open_model(base), tmp_path / "checkpoints"

    def write_side_files(output: Path) -> None:
        copy_companions(base)(output)
        shutil.copyfile(base / "principles.json", output / "principles.json")

    with jax.set_mesh(mesh), Checkpoints(folder, write_side_files) as checkpoints:
        checkpoints.save(init_state(model.load(mesh), model.config, defaults(), mesh))
    return folder


def test_a_checkpoint_with_its_principles_and_modelfile(checkpoint, tmp_path, capsys):
    argv = ["export", "--checkpoint", str(checkpoint), "--output", str(tmp_path / "out"), "--gguf", "f16", "--json"]
    assert main(argv) == 0
    file = tmp_path / "out/model-f16.gguf"
    assert json.loads(capsys.readouterr().out)["gguf"] == str(file)
    assert read_header(file).metadata.text("sami.principles.sha256") == file_digest(
        checkpoint.parent / "first/principles.json"
    )
    assert (tmp_path / "out/Modelfile").read_text().startswith("FROM ./model-f16.gguf\nTEMPLATE ")
    import_gguf(file, tmp_path / "second")
    for name, weight in weights(tmp_path / "out").items():
        kept = weight if weight.ndim == 1 else weight.astype(np.float16)
        np.testing.assert_array_equal(weights(tmp_path / "second")[name], kept, name)


def test_a_checkpoint_that_gguf_cannot_tell_leaves_nothing(checkpoint, tmp_path, capsys):
    file = next(checkpoint.rglob("tokenizer.json"))
    file.write_text(json.dumps(json.loads(file.read_text()) | {"pre_tokenizer": {"type": "Whitespace"}}))
    argv = ["export", "--checkpoint", str(checkpoint), "--output", str(tmp_path / "out"), "--gguf", "f16"]
    assert "GGUF has no name" in complaint(capsys, *argv)
    assert not list(tmp_path.glob("out*"))


def test_what_cannot_be_written_is_refused(tmp_path, mesh):
    with pytest.raises(UserError, match="its tokenizer is of the kind WordLevel"):
        gguf_entries(open_model(miniature.BASE))
    model = open_model(folder_of(tmp_path, "llama", "gpt-2"))
    with pytest.raises(UserError, match="no GGUF is written of mixtral"):
        gguf_entries(dataclasses.replace(model, config=dataclasses.replace(model.config, family="mixtral")))
    gemma = open_model(folder_of(tmp_path / "gemma", "gemma2", None, tied=True))
    for field, value in (("query_scalar", 11), ("attention_cap", None), ("local", (False, True))):
        with pytest.raises(UserError, match=f"{field} is .* is computed; export without --gguf"):
            gguf_entries(dataclasses.replace(gemma, config=dataclasses.replace(gemma.config, **{field: value})))
    for one, scaling in ((gemma, RopeScaling(8.0, 1.0, 4.0, 8192)), (model, LongRope((1.0, 2.0), 1.0))):
        with pytest.raises(UserError, match="its stretched rope has no place in a GGUF file"):
            gguf_entries(dataclasses.replace(one, config=dataclasses.replace(one.config, rope_scaling=scaling)))
    state = json.loads((model.folder / "tokenizer.json").read_text())
    cuts = state["pre_tokenizer"]["pretokenizers"]
    for changed in (
        state | {"normalizer": {"type": "Lowercase"}},
        state | {"pre_tokenizer": {"type": "Whitespace"}},
        state | {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Whitespace"}, *cuts]}},
        state | {"added_tokens": [token | {"lstrip": True} for token in state["added_tokens"]]},
    ):
        (model.folder / "tokenizer.json").write_text(json.dumps(changed))
        with pytest.raises(UserError, match=r"GGUF has no name|GGUF file would not give"):
            gguf_entries(open_model(model.folder))
    params = model.load(mesh)
    params["embedding"] = params["embedding"] * 1e6
    with pytest.raises(UserError, match=r"tensor token_embd\.weight holds weights beyond F16"):
        write_gguf(params, model, "f16", tmp_path / "large.gguf", {})
    assert not list(tmp_path.glob("large*"))
