"""Small GGUF files, written by the library that llama.cpp's own converters write with."""

import functools
import io
import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import sentencepiece
import tokenizers
import torch
import transformers
from tokenizers import models, pre_tokenizers, trainers
from zoo.zoo_texts import TEXTS

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
CONTROLS = ["<|end|>", "<|start|>", "<|stop|>"]  # ids 0, 1, 2
# Where blocks of a type hold their half-precision scales, bytes from the block's beginning: any other byte may be any.
SCALES = {
    "Q2_K": (80, 82),
    "Q3_K": (108,),
    "Q4_K": (0, 2),
    "Q5_K": (0, 2),
    "Q6_K": (208,),
    "IQ4_NL": (0,),
    "IQ4_XS": (0,),
}


GEMMA2 = dict(sliding_window=9, query_pre_attn_scalar=64, attn_logit_softcapping=2.0, final_logit_softcapping=5.0)


@functools.cache
def byte_vocabulary() -> dict:
    """Entries of a byte-level tokenizer, trained on the texts of the zoo; its pre-tokenizer is GPT-2's."""
    made = tokenizers.Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        TEXTS,
        trainers.BpeTrainer(vocab_size=460, special_tokens=CONTROLS, initial_alphabet=alphabet, show_progress=False),
    )
    state = json.loads(made.to_str())["model"]
    tokens = sorted(state["vocab"], key=state["vocab"].__getitem__)
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": [*tokens, "<tool>", "[PAD461]"],
        "tokenizer.ggml.token_type": [CONTROL] * 3 + [NORMAL] * (len(tokens) - 3) + [USER_DEFINED, UNUSED],
        "tokenizer.ggml.merges": [" ".join(merge) for merge in state["merges"]],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.padding_token_id": 0,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": "{% for m in messages %}{{ '<|start|>' + m.content + '<|stop|>' }}{% endfor %}",
    }


@functools.cache
def pieces(bytes_too: bool = True) -> sentencepiece.SentencePieceProcessor:
    """A SentencePiece model of BPE, trained on the same texts; without bytes, rare characters are unknown to it."""
    made = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS * 3), model_writer=made, model_type="bpe", vocab_size=640 if bytes_too else 400, byte_fallback=bytes_too,
        character_coverage=0.98, normalization_rule_name="identity", remove_extra_whitespaces=False,
        split_digits=True, minloglevel=2,
    )  # fmt: skip
    return sentencepiece.SentencePieceProcessor(model_proto=made.getvalue())


def piece_vocabulary(bytes_too: bool = True) -> dict:
    """Entries of that model, as llama.cpp's converter takes them from it."""
    made = pieces(bytes_too)
    ids = range(made.get_piece_size())
    kinds = [
        UNKNOWN if made.is_unknown(id) else CONTROL if made.is_control(id) else BYTE if made.is_byte(id) else NORMAL
        for id in ids
    ]
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": [made.id_to_piece(id) for id in ids],
        "tokenizer.ggml.scores": [made.get_score(id) for id in ids],
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
    }


def random_model(arch: str, vocab_size: int, tied: bool = False, **options) -> Any:
    """By transformers, wide enough for blocks of 256."""
    family = {"llama": "Llama", "qwen2": "Qwen2", "qwen3": "Qwen3", "gemma2": "Gemma2"}[arch]
    sizes = dict(
        vocab_size=vocab_size, hidden_size=256, intermediate_size=256, num_hidden_layers=2, max_position_embeddings=64
    )
    head_dim = 128 if arch == "qwen3" else 64  # which transformers takes for granted, whatever a file says
    options = dict(num_attention_heads=4, num_key_value_heads=2, head_dim=head_dim, rms_norm_eps=0.01) | options
    if arch == "gemma2":  # a window shorter than texts, and caps so low that they are felt
        options = GEMMA2 | options
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**sizes, tie_word_embeddings=tied, **options)
    model = getattr(transformers, f"{family}ForCausalLM")(config).eval()
    for name, weight in model.named_parameters():  # wide enough that an error shows; norms and biases unlike each other
        least = -0.5 if arch == "gemma2" else 0.5  # 1 is added to those of its norms
        torch.nn.init.normal_(weight, std=0.1) if "norm" not in name else torch.nn.init.uniform_(
            weight, least, least + 1
        )
    return model


def entries_of(model: Any, arch: str) -> dict:
    """What a file says of the model's shape."""
    config = model.config
    head_dim = 128 if arch == "qwen3" else 64
    return {
        f"{arch}.context_length": config.max_position_embeddings,
        f"{arch}.embedding_length": config.hidden_size,
        f"{arch}.feed_forward_length": config.intermediate_size,
        f"{arch}.block_count": config.num_hidden_layers,
        f"{arch}.attention.head_count": config.num_attention_heads,
        f"{arch}.attention.head_count_kv": config.num_key_value_heads,
        f"{arch}.attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        f"{arch}.rope.freq_base": config.rope_parameters["rope_theta"],
        f"{arch}.rope.dimension_count": head_dim,
        f"{arch}.attention.key_length": head_dim,
        f"{arch}.attention.value_length": head_dim,
        **(
            {}
            if arch != "gemma2"
            else {
                "gemma2.attention.sliding_window": config.sliding_window,
                "gemma2.attn_logit_softcapping": config.attn_logit_softcapping,
                "gemma2.final_logit_softcapping": config.final_logit_softcapping,
            }
        ),
    }


def tensors_of(model: Any, arch: str) -> dict[str, np.ndarray]:
    """The weights by GGUF's names, rows of q and k of llama in llama.cpp's order."""
    names = gguf.get_tensor_name_map(
        dict(zip(gguf.MODEL_ARCH_NAMES.values(), gguf.MODEL_ARCH_NAMES, strict=True))[arch], 2
    )
    found = {}
    for name, weight in model.state_dict().items():
        base, _, ending = name.rpartition(".")
        array = weight.numpy()
        if arch == "llama" and base.endswith(("q_proj", "k_proj")):
            heads = model.config.num_attention_heads if base.endswith("q_proj") else model.config.num_key_value_heads
            array = array.reshape(heads, 2, -1, array.shape[1]).swapaxes(1, 2).reshape(array.shape)
        if arch == "gemma2" and "norm" in base:
            array = array + np.float32(1)
        if not (base == "lm_head" and model.config.tie_word_embeddings):
            found[f"{names.get_name(base)}.{ending}"] = array
    return found


def write_gguf(file: Path, arch: str, entries: dict, tensors: dict[str, np.ndarray], kind: str = "F32") -> Path:
    """
    Args:
      kind: of the matrices.
    """
    writer = gguf.GGUFWriter(file, arch)
    for key, value in entries.items():
        if value is not None:
            _add(writer, key, value)
    wanted, rng = gguf.GGMLQuantizationType[kind], np.random.default_rng(0)
    for name, array in tensors.items():
        if array.ndim == 1:
            writer.add_tensor(name, np.ascontiguousarray(array))
        else:
            writer.add_tensor(name, blocks(array, wanted, rng), raw_dtype=wanted)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def blocks(array: np.ndarray, kind: gguf.GGMLQuantizationType, rng: np.random.Generator) -> np.ndarray:
    """The array quantized; where the library cannot, random blocks of that type with scales of a sensible size."""
    try:
        made = gguf.quantize(np.ascontiguousarray(array), kind)
        # float16 and float32 are said by numpy's own dtype
        return made if kind.name != "BF16" else made.view(np.uint8)
    except NotImplementedError:
        block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    made = rng.integers(0, 256, (*array.shape[:-1], array.shape[-1] // block, block_bytes), np.uint8)
    shape = (len(SCALES[kind.name]), *made.shape[:-1], 1)
    scales = rng.uniform(0.5, 1.5, shape) * rng.choice([-1, 1], shape)
    size = 1e-3
    for _ in range(2):  # once to see how large weights become, and again with them as large as the array's
        for place, scale in zip(SCALES[kind.name], scales * size, strict=True):
            made[..., place : place + 2] = scale.astype(np.float16).view(np.uint8)
        flat = made.reshape(*array.shape[:-1], -1)
        size *= array.std() / gguf.dequantize(flat, kind).std()
    return flat


def _add(writer: gguf.GGUFWriter, key: str, value) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str | bytes):
        writer.add_key_value(key, value, gguf.GGUFValueType.STRING)
    else:
        writer.add_array(key, value)
