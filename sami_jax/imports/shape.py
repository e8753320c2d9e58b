"""The shape of a model, from what a GGUF file says of it."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np

from sami_jax.errors import UserError
from sami_jax.imports.header import Header, Tensor
from sami_jax.imports.metadata import Metadata
from sami_jax.models.config import ModelConfig, RopeScaling
from sami_jax.models.families import FAMILIES

# Architectures that are read, by their names in GGUF, where Mistral and SmolLM are of llama's.
ARCHITECTURES = ("llama", "qwen2", "qwen3", "gemma2")
ROPE_FACTORS = "rope_freqs.weight"  # by which each wavelength is stretched
# Of Llama 3.1 and 3.3, and of 3.2: all that stretch wavelengths so. A file holds the outcome alone.
_PUBLISHED = [RopeScaling(factor, 1.0, 4.0, 8192) for factor in (8.0, 32.0)]


def read_shape(file: Path, header: Header) -> ModelConfig:
    """
    Raises:
      UserError: an architecture, or an option of one, that the decoder does not compute; or a size that is missing or fits no model.
    """
    metadata = header.metadata
    if (purpose := metadata.text("general.type", "model")) != "model":
        raise UserError(f"{file}: holds {purpose!r:.40} and no model; give the model's own file")
    arch = metadata.text("general.architecture")
    if arch not in ARCHITECTURES:
        raise UserError(
            f"{file}: architecture {arch!r:.60} is not read, only {', '.join(ARCHITECTURES)}; use another model"
        )
    vocab_size = len(metadata.texts("tokenizer.ggml.tokens"))
    config = told_shape(metadata, arch, vocab_size, tied="output.weight" not in header.tensors)
    _check_sizes(file, header, config)
    _check_options(file, header, config)
    if ROPE_FACTORS in header.tensors:
        return dataclasses.replace(config, rope_scaling=_rope_scaling(file, header.tensors[ROPE_FACTORS], config))
    return config


def told_shape(metadata: Metadata, arch: str, vocab_size: int, tied: bool) -> ModelConfig:
    """What the entries of an architecture that is read say, as llama.cpp computes it; but for a stretched rope, which is a tensor.

    Raises:
      UserError: an entry that is missing or of another kind.
    """
    d_model, n_heads = metadata.count(f"{arch}.embedding_length"), metadata.count(f"{arch}.attention.head_count")
    config = ModelConfig(
        family=arch,
        vocab_size=vocab_size,
        d_model=d_model,
        n_layers=metadata.count(f"{arch}.block_count"),
        n_heads=n_heads,
        n_kv_heads=metadata.count(f"{arch}.attention.head_count_kv", n_heads),
        head_dim=metadata.count(f"{arch}.attention.key_length", max(1, d_model // n_heads)),
        d_ff=metadata.count(f"{arch}.feed_forward_length"),
        max_positions=metadata.count(f"{arch}.context_length"),
        rope_theta=metadata.number(f"{arch}.rope.freq_base", 10000.0),
        query_bias=arch == "qwen2",
        query_norm="head" if arch == "qwen3" else "",
        norm_epsilon=metadata.number(f"{arch}.attention.layer_norm_rms_epsilon"),
        tie_embeddings=tied,
    )
    return dataclasses.replace(config, **_gemma2(metadata, config)) if arch == "gemma2" else config


def _gemma2(metadata: Metadata, config: ModelConfig) -> dict[str, Any]:
    """Which layers are local, and what scores are divided by, no file says."""
    # Its largest model is known by the number of its layers.
    scalar = config.d_model // config.n_heads if config.n_layers == 46 else config.head_dim
    return FAMILIES["gemma2"].switches | {
        "local": tuple(layer % 2 == 0 for layer in range(config.n_layers)),
        "sliding_window": metadata.count("gemma2.attention.sliding_window", 4096),
        "query_scalar": scalar,
        "attention_cap": metadata.number("gemma2.attn_logit_softcapping", 50.0),
        "logit_cap": metadata.number("gemma2.final_logit_softcapping", 30.0),
    }


def _check_sizes(file: Path, header: Header, config: ModelConfig) -> None:
    """Before anything is made of them."""
    width = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim, config.d_ff
    asked = config.d_model * (config.vocab_size + config.n_layers * (2 * width[0] + 2 * width[1] + 3 * width[2]))
    held = sum(math.prod(tensor.shape) for tensor in header.tensors.values())
    for holds, wrong in (
        (config.n_heads % config.n_kv_heads == 0, "attention.head_count_kv does not divide attention.head_count"),
        (config.head_dim % 2 == 0, f"the size of a head, {config.head_dim}, is odd"),
        (asked <= held, f"its sizes ask for {asked} weights, its tensors hold {held}"),
    ):
        if not holds:
            raise UserError(f"{file}: {wrong}; this is not a whole {config.family} model")


def _check_options(file: Path, header: Header, config: ModelConfig) -> None:
    """What changes the computation and has one value that is computed; and entries of the architecture that are not known at all."""
    metadata, arch = header.metadata, config.family
    for key, value, computed in (
        ("attention.value_length", metadata.count(f"{arch}.attention.value_length", config.head_dim), config.head_dim),
        ("rope.dimension_count", metadata.count(f"{arch}.rope.dimension_count", config.head_dim), config.head_dim),
        ("rope.scaling.type", metadata.text(f"{arch}.rope.scaling.type", "none"), "none"),
        ("rope.scale_linear", metadata.number(f"{arch}.rope.scale_linear", 1.0), 1.0),
        ("rope.scaling.factor", metadata.number(f"{arch}.rope.scaling.factor", 1.0), 1.0),
    ):
        if value != computed:
            raise UserError(f"{file}: {arch}.{key} is {value!r:.40}; only {computed!r} is computed: use another model")
    window = f"{arch}.attention.sliding_window"
    if not config.local and metadata.has(window) and (tokens := metadata.count(window)) < config.max_positions:
        raise UserError(
            f"{file}: {window} is {tokens}, which llama.cpp passes over for {arch}; take the model's own folder"
        )
    metadata.has(f"{arch}.vocab_size")  # the tensor tells it, and the list of tokens
    metadata.refuse_unasked(f"{arch}.")


def _rope_scaling(file: Path, tensor: Tensor, config: ModelConfig) -> RopeScaling:
    """The published one whose factors these are."""
    half = config.head_dim // 2
    if tensor.kind.name == "F32" and tensor.shape == (half,):
        factors = np.fromfile(file, "<f4", half, offset=tensor.offset)
        for scaling in _PUBLISHED:
            if np.allclose(factors, rope_factors(scaling, config.rope_theta, config.head_dim), rtol=1e-4, atol=0):
                return scaling
    raise UserError(f"{file}: tensor {ROPE_FACTORS} holds no rope scaling that is known; take the model's own folder")


def rope_factors(scaling: RopeScaling, theta: float, head_dim: int) -> np.ndarray:
    """[head_dim / 2], by how much each wavelength is stretched."""
    half = head_dim // 2
    turns = scaling.original_positions * theta ** -(np.arange(half) / half) / (2 * np.pi)  # within the context before
    low, high = scaling.low_frequency, scaling.high_frequency
    kept = np.clip((turns - low) / (high - low), 0, 1)
    return 1 / (kept + (1 - kept) / scaling.factor)
