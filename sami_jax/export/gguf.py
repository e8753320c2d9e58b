"""Writes a GGUF file, which llama.cpp and what is built on it serve, a tensor at a time."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from sami_jax.errors import UserError
from sami_jax.export.gguf_tokenizer import check_tokenizer, tokenizer_entries
from sami_jax.export.huggingface import planned_tensors
from sami_jax.ground import hosts
from sami_jax.ground.display import doing
from sami_jax.ground.terminal import say
from sami_jax.imports.metadata import Metadata
from sami_jax.imports.shape import ROPE_FACTORS, rope_factors, told_shape
from sami_jax.models.config import ModelConfig, RopeScaling
from sami_jax.models.pretrained import ModelFolder

KINDS = ("f32", "f16", "bf16", "q8_0")  # of matrices
# Of GGUF, by our families.
ARCHITECTURES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "gemma2": "gemma2"}
# Fields of ModelConfig that a file does not say, says otherwise or has a tensor for.
_UNSAID = ("family", "max_positions", "rope_scaling", "attention", "adapter")


def gguf_entries(model: ModelFolder) -> dict[str, Any]:
    """What a file says of the model, by key; its weights need not be there yet.

    Raises:
      UserError: a family or a tokenizer that the format has no name for; the package is not installed.
    """
    try:
        import gguf  # noqa: F401 - without it, none of the rest
    except ImportError:
        raise UserError("GGUF files need the gguf package: pip install 'sami_jax[gguf]'") from None
    config = model.config
    if config.family not in ARCHITECTURES:
        raise UserError(
            f"{model.folder}: no GGUF is written of {config.family}, only of {', '.join(ARCHITECTURES)}; leave it out"
        )
    entries = _shape_entries(config) | tokenizer_entries(model)
    _check_shape(model, entries)
    check_tokenizer(model, entries)
    return entries


def write_gguf(params: dict, model: ModelFolder, kind: str, output: Path, entries: dict[str, Any]) -> None:
    """Writes the file, which appears whole or not at all.

    Args:
      params: weights on any devices.
      kind: f32, f16, bf16 or q8_0, of matrices. Vectors stay float32; matrices whose rows are no whole blocks of q8_0 become float16.
      entries: by `gguf_entries`, and what else the file is to say.
    Raises:
      UserError: a weight that `kind` cannot hold.
    """
    import gguf

    arch, partial = ARCHITECTURES[model.config.family], output.with_name(output.name + ".partial")
    writer = gguf.GGUFWriter(None, arch)
    for key, value in entries.items():
        add_entry(writer, key, value)
    tensors = list(_tensors(params, model.config, kind))
    for name, tensor, kept in tensors:
        block, block_bytes = gguf.GGML_QUANT_SIZES[kept]
        size = int(np.prod(tensor.shape)) // block * block_bytes
        writer.add_tensor_info(name, tensor.shape, np.dtype(np.float32), size, raw_dtype=kept)
    try:
        with doing(f"writing {output}"):
            if hosts.first():
                writer.write_header_to_file(partial)
                writer.write_kv_data_to_file()
                writer.write_ti_data_to_file()
            for name, tensor, kept in tensors:
                if (array := tensor.gathered(wanted=hosts.first())) is not None:
                    writer.write_tensor_data(_made(name, array, kept, model))
            writer.close()
            hosts.once(lambda: partial.replace(output))
    finally:
        hosts.once(lambda: partial.unlink(missing_ok=True))


def _shape_entries(config: ModelConfig) -> dict[str, Any]:
    arch, context = ARCHITECTURES[config.family], config.max_positions
    own = {}
    if arch == "gemma2":
        own = {
            "gemma2.attention.sliding_window": config.sliding_window,
            "gemma2.attn_logit_softcapping": config.attention_cap,
            "gemma2.final_logit_softcapping": config.logit_cap,
        }
    elif config.sliding_window and config.sliding_window < context:
        context = config.sliding_window
        say(
            f"its window of {context} tokens has no place in GGUF: the file's context is cut to that, where both are the same"
        )
    return {
        f"{arch}.context_length": context,
        f"{arch}.embedding_length": config.d_model,
        f"{arch}.feed_forward_length": config.d_ff,
        f"{arch}.block_count": config.n_layers,
        f"{arch}.attention.head_count": config.n_heads,
        f"{arch}.attention.head_count_kv": config.n_kv_heads,
        f"{arch}.attention.key_length": config.head_dim,
        f"{arch}.attention.value_length": config.head_dim,
        f"{arch}.attention.layer_norm_rms_epsilon": config.norm_epsilon,
        f"{arch}.rope.freq_base": config.rope_theta,
        f"{arch}.rope.dimension_count": config.head_dim,
        f"{arch}.vocab_size": config.vocab_size,
        **{key: value for key, value in own.items() if value is not None},
    }


def _check_shape(model: ModelFolder, entries: dict[str, Any]) -> None:
    """Raises UserError where the entries, read again, are of another model: llama.cpp knows some of it without being told."""
    config, arch = model.config, ARCHITECTURES[model.config.family]
    if config.rope_scaling and not (arch == "llama" and isinstance(config.rope_scaling, RopeScaling)):
        raise UserError(
            f"{model.folder}: its stretched rope has no place in a GGUF file of {arch}; export without --gguf"
        )
    told = told_shape(Metadata(model.folder, entries), arch, config.vocab_size, config.tie_embeddings)
    if arch == "gemma2":
        config = dataclasses.replace(config, query_scalar=config.query_scalar or config.head_dim)
    else:
        config = dataclasses.replace(config, sliding_window=None)  # the context was cut to it
    for field in dataclasses.fields(config):
        ours, theirs = (getattr(one, field.name) for one in (config, told))
        if field.name not in _UNSAID and not (ours == theirs or _same_float32(ours, theirs)):
            raise UserError(
                f"{model.folder}: {field.name} is {ours!r:.60}, and of a GGUF file of {arch} {theirs!r:.60} is computed; export without --gguf"
            )


def _same_float32(a: Any, b: Any) -> bool:
    return isinstance(a, float) and isinstance(b, float) and np.float32(a) == np.float32(b)


class _Factors:
    """The tensor by which llama.cpp stretches wavelengths; it is no weight of ours."""

    def __init__(self, factors: np.ndarray):
        self.factors, self.shape = factors, factors.shape

    def gathered(self, wanted: bool) -> np.ndarray | None:
        return self.factors if wanted else None


def _tensors(params: dict, config: ModelConfig, kind: str) -> Iterator[tuple[str, Any, Any]]:
    """Names, what is to be gathered, and the type to write it in."""
    from gguf import MODEL_ARCH_NAMES, GGMLQuantizationType, get_tensor_name_map

    arch = next(arch for arch, name in MODEL_ARCH_NAMES.items() if name == ARCHITECTURES[config.family])
    names = get_tensor_name_map(arch, config.n_layers)
    if isinstance(config.rope_scaling, RopeScaling):
        factors = rope_factors(config.rope_scaling, config.rope_theta, config.head_dim)
        yield ROPE_FACTORS, _Factors(factors.astype(np.float32)), GGMLQuantizationType.F32
    for tensor in planned_tensors(params, config.family, np.float32):
        base, _, ending = tensor.name.rpartition(".")
        kept = "F32" if len(tensor.shape) == 1 else kind.upper()
        if kept == "Q8_0" and tensor.shape[-1] % 32:
            kept = "F16"
        yield f"{names.get_name(base)}.{ending}", tensor, GGMLQuantizationType[kept]


def _made(name: str, array: np.ndarray, kept: Any, model: ModelFolder) -> np.ndarray:
    """A tensor as it is written."""
    from gguf import quantize

    heads = {"attn_q": model.config.n_heads, "attn_k": model.config.n_kv_heads}.get(name.split(".")[-2], 0)
    if heads and ARCHITECTURES[model.config.family] == "llama":  # neighbours are turned there, where halves are here
        array = array.reshape(heads, 2, -1, array.shape[-1]).swapaxes(1, 2).reshape(array.shape)
    if model.config.norm_offset and array.ndim == 1:
        array = array + np.float32(1)  # what norms multiply by
    with np.errstate(over="ignore"):
        made = quantize(np.ascontiguousarray(array), kept)
    if kept.name in ("F16", "Q8_0") and np.abs(array).max() > np.finfo(np.float16).max:
        raise UserError(f"{model.folder}: tensor {name} holds weights beyond {kept.name}; export as bf16 or f32")
    return made


def add_entry(writer: Any, key: str, value: Any) -> None:
    """Adds an entry, of the type that llama.cpp's own converter gives it."""
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)
