"""The shape of a model by its GGUF file, and what of it is refused by name."""

import dataclasses

import gguf
import numpy as np
import pytest
from support.gguf_files import byte_vocabulary, entries_of, random_model, tensors_of, write_gguf
from support.torch_models import our_logits, torch_logits

from sami_jax.errors import UserError
from sami_jax.imports.gguf import import_gguf
from sami_jax.imports.header import Tensor, read_header
from sami_jax.imports.shape import read_shape
from sami_jax.imports.weights import Planned, _rows, planned
from sami_jax.models.config import RopeScaling
from sami_jax.models.pretrained import open_model

TOKENS = np.random.default_rng(1).integers(0, 460, (1, 60))
LLAMA_3 = {"rope_theta": 1e4, "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}


@pytest.fixture(scope="module")
def llama():
    vocabulary = byte_vocabulary()
    model = random_model("llama", len(vocabulary["tokenizer.ggml.tokens"]))
    return vocabulary | entries_of(model, "llama"), tensors_of(model, "llama")


def refusal(folder, entries: dict, tensors: dict, arch: str = "llama") -> str:
    file = write_gguf(folder / "model.gguf", arch, entries, tensors)
    header = read_header(file)
    with pytest.raises(UserError) as refused:
        planned(file, header, read_shape(file, header))
    return str(refused.value)


CHANGES = {
    "a size that is missing": ({"llama.block_count": None}, "'llama.block_count' is missing"),
    "a size of 0": ({"llama.block_count": 0}, "is 0, no count"),
    "a size for each layer": ({"llama.feed_forward_length": [256, 256]}, "is a list of 2, no count"),
    "more layers than tensors": ({"llama.block_count": 10**6}, "its sizes ask for"),
    "layers as wide as the sky": ({"llama.feed_forward_length": 2**24}, "its sizes ask for"),
    "another width": ({"llama.embedding_length": 128, "llama.attention.head_count": 2}, "has shape"),
    "other heads": ({"llama.attention.head_count_kv": 3}, "head_count_kv does not divide"),
    "odd heads": ({"llama.attention.key_length": 63}, "63, is odd"),
    "epsilon missing": ({"llama.attention.layer_norm_rms_epsilon": None}, "layer_norm_rms_epsilon' is missing"),
    "epsilon of no number": ({"llama.attention.layer_norm_rms_epsilon": float("nan")}, "is nan, no number above 0"),
    "a mixture of experts": (
        {"llama.expert_count": 8},
        "'llama.expert_count' is 8, and what that changes is not known",
    ),
    "a scale": ({"llama.attention.scale": 0.5}, "'llama.attention.scale' is 0.5"),
    "rope stretched by YaRN": ({"llama.rope.scaling.type": "yarn"}, "rope.scaling.type is 'yarn'"),
    "rope stretched evenly": ({"llama.rope.scale_linear": 4.0}, "rope.scale_linear is 4.0"),
    "rope of half a head": ({"llama.rope.dimension_count": 32}, "rope.dimension_count is 32"),
    "values of another size": ({"llama.attention.value_length": 32}, "value_length is 32"),
    "a window": ({"llama.attention.sliding_window": 32}, "sliding_window is 32"),
}


@pytest.mark.parametrize(("change", "said"), CHANGES.values(), ids=CHANGES)
def test_an_entry_that_is_refused(change, said, llama, tmp_path):
    assert said in refusal(tmp_path, llama[0] | change, llama[1])


def test_tensors_that_are_refused(llama, tmp_path):
    entries, tensors = llama
    more = tensors | {"blk.0.attn_q.bias": np.zeros(256, np.float32)}
    assert "tensor 'blk.0.attn_q.bias' is none that a llama model has here" in refusal(tmp_path, entries, more)
    fewer = {name: array for name, array in tensors.items() if name != "blk.1.ffn_up.weight"}
    larger = fewer | {"output.weight": np.zeros((1024, 256), np.float32)}
    assert "tensor blk.1.ffn_up.weight is missing" in refusal(tmp_path, entries, larger)
    turned = tensors | {"output.weight": np.ascontiguousarray(tensors["output.weight"].T)}
    assert "tensor output.weight has shape (256, 462), its sizes ask for (462, 256)" in refusal(
        tmp_path, entries, turned
    )


def test_architectures_that_are_refused(llama, tmp_path):
    for arch in ("gemma3", "smollm3", "bert"):
        assert f"architecture '{arch}' is not read, only llama, qwen2, qwen3" in refusal(tmp_path, *llama, arch=arch)


def test_a_window_as_long_as_the_context_is_none(llama, tmp_path):
    entries = llama[0] | {"llama.attention.sliding_window": 64}
    file = write_gguf(tmp_path / "model.gguf", "llama", entries, llama[1])
    assert read_shape(file, read_header(file)).sliding_window is None


def rope_factors(theta: float, factor: float, half: int) -> np.ndarray:
    """As llama.cpp's converter computes them, by its own loop."""
    made = []
    for place in range(half):
        wavelength = 2 * np.pi * theta ** (place / half)
        if wavelength < 8192 / 4:
            made.append(1.0)
        elif wavelength > 8192 / 1:
            made.append(factor)
        else:
            smooth = (8192 / wavelength - 1) / (4 - 1)
            made.append(1 / ((1 - smooth) / factor + smooth))
    return np.array(made, np.float32)


@pytest.mark.parametrize("factor", [8.0, 32.0])
def test_rope_of_llama_3_1(factor, tmp_path, mesh):
    """transformers' reading of a file passes over it, so the model that the file was made from is the measure."""
    vocabulary = byte_vocabulary()
    rope = LLAMA_3 | {"factor": factor, "original_max_position_embeddings": 8192}
    model = random_model("llama", len(vocabulary["tokenizer.ggml.tokens"]), rope_parameters=rope)
    entries, tensors = vocabulary | entries_of(model, "llama"), tensors_of(model, "llama")
    tensors["rope_freqs.weight"] = rope_factors(1e4, factor, 32)
    import_gguf(write_gguf(tmp_path / "model.gguf", "llama", entries, tensors), tmp_path / "made")
    made = open_model(tmp_path / "made")
    assert made.config.rope_scaling == RopeScaling(factor, 1.0, 4.0, 8192)
    ours, plain = made.load(mesh), dataclasses.replace(made.config, rope_scaling=None)
    np.testing.assert_allclose(our_logits(made.config, ours, TOKENS), torch_logits(model, TOKENS), atol=1e-4)
    assert np.abs(our_logits(plain, ours, TOKENS) - torch_logits(model, TOKENS)).max() > 1e-3
    tensors["rope_freqs.weight"] = rope_factors(1e4, 5.0, 32)
    assert "holds no rope scaling that is known" in refusal(tmp_path, entries, tensors)


@pytest.mark.parametrize("kind", list(gguf.GGMLQuantizationType), ids=lambda kind: kind.name)
def test_every_type_is_turned_as_the_library_does_or_refused_by_name(kind, llama, tmp_path):
    """By pieces, while the library turns the whole at once."""
    block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    content = np.random.default_rng(0).integers(0, 256, (3000, 512 // block * block_bytes), np.uint8)
    try:
        with np.errstate(all="ignore"):
            whole = gguf.dequantize(content, kind)
    except NotImplementedError:
        file = write_gguf(tmp_path / "model.gguf", "llama", *llama)
        header = read_header(file)
        header.tensors["output.weight"] = header.tensors["output.weight"]._replace(kind=kind)
        with pytest.raises(UserError, match=f"tensor output.weight is of type {kind.name}, which is not read"):
            planned(file, header, read_shape(file, header))
        return
    (tmp_path / "content").write_bytes(b"12345" + content.tobytes())
    with open(tmp_path / "content", "rb") as stream:
        pieces = list(_rows(stream, Planned("t", Tensor((3000, 512), kind, 5, content.nbytes), 0)))
    assert len(pieces) > 1
    np.testing.assert_array_equal(
        np.concatenate(pieces).astype(np.float32), whole.reshape(3000, 512).astype(np.float32)
    )
