"""GGUF files made into model folders: the same weights and logits as transformers reads, and as the model they were made from has."""

from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch
import transformers
from support.gguf_files import GEMMA2, byte_vocabulary, entries_of, random_model, tensors_of, write_gguf
from support.quick import others_slow
from support.torch_models import our_logits, torch_logits

from sami_jax.imports.gguf import import_gguf
from sami_jax.models.pretrained import open_model

TOKENS = np.random.default_rng(1).integers(0, 460, (2, 40))
CASES = {
    "llama": ("llama", {}),
    "llama, tied": ("llama", dict(tied=True)),
    "llama, all heads its own": (
        "llama",
        dict(num_key_value_heads=4, rope_parameters={"rope_theta": 5e5, "rope_type": "default"}),
    ),
    "qwen2": ("qwen2", dict()),
    "qwen3": ("qwen3", dict(tied=True)),
    "gemma2": ("gemma2", dict(tied=True)),
}


def files(folder: Path, arch: str, kind: str = "F32", **options):
    vocabulary = byte_vocabulary() | {"tokenizer.ggml.pre": "gpt-2" if arch == "llama" else "qwen2"}
    model = random_model(arch, len(vocabulary["tokenizer.ggml.tokens"]), **options)
    entries = vocabulary | entries_of(model, arch)
    return model, write_gguf(folder / "model.gguf", arch, entries, tensors_of(model, arch), kind)


def as_transformers_reads(file: Path, arch: str = "") -> torch.nn.Module:
    options = dict(gguf_file=file.name, dtype=torch.float32, local_files_only=True)
    if arch == "gemma2":  # whose caps and window it does not ask the file for
        options |= GEMMA2
    return transformers.AutoModelForCausalLM.from_pretrained(file.parent, **options).eval()


def logits(folder: Path, mesh) -> np.ndarray:
    model = open_model(folder)
    return our_logits(model.config, model.load(mesh), TOKENS)


@pytest.mark.parametrize(("arch", "options"), others_slow(CASES.values(), CASES["llama"], CASES["qwen3"]), ids=CASES)
def test_logits_are_those_of_the_model_and_of_transformers_reading(arch, options, tmp_path, mesh):
    model, file = files(tmp_path, arch, **options)
    import_gguf(file, tmp_path / "made")
    ours = logits(tmp_path / "made", mesh)
    assert np.abs(ours).max() > 3
    np.testing.assert_allclose(ours, torch_logits(model, TOKENS), atol=1e-4)
    np.testing.assert_allclose(ours, torch_logits(as_transformers_reads(file, arch), TOKENS), atol=1e-4)


KINDS = [
    "F16",
    "BF16",
    "Q8_0",
    "Q4_0",
    "Q4_1",
    "Q5_0",
    "Q5_1",
    "Q2_K",
    "Q3_K",
    "Q4_K",
    "Q5_K",
    "Q6_K",
    "IQ4_NL",
    "IQ4_XS",
]


@pytest.mark.parametrize("kind", others_slow(KINDS, "F16", "Q4_1", "Q6_K", "IQ4_NL"))
def test_every_type_of_numbers(kind, tmp_path, mesh):
    arch = "llama" if KINDS.index(kind) % 2 else "qwen3"
    _, file = files(tmp_path, arch, kind)
    made = import_gguf(file, tmp_path / "made")
    assert made.dtype == {"F16": "float16", "BF16": "bfloat16"}.get(kind, "float32")
    theirs = as_transformers_reads(file)
    stored = safetensors.numpy.load_file(tmp_path / "made/model.safetensors")
    for name, weight in theirs.state_dict().items():
        np.testing.assert_array_equal(stored[name].astype(np.float32), weight.numpy(), name)
    np.testing.assert_allclose(logits(tmp_path / "made", mesh), torch_logits(theirs, TOKENS), atol=1e-4)
