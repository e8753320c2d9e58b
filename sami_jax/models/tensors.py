"""Hugging Face's names of our weights, and how each is laid out in its files."""

from collections.abc import Sequence

import jax
import numpy as np

INDEX_FILE = "model.safetensors.index.json"
SINGLE_FILE = "model.safetensors"

# Our weight -> (tensor name in Hugging Face files, how it is laid out there). Names with {layer} are stacked by layer, those
# with {expert} by layer and expert.
_LAYER = "model.layers.{layer}."
_EXPERT = _LAYER + "block_sparse_moe.experts.{expert}."
TENSORS = {
    ("embedding",): ("model.embed_tokens.weight", "as_is"),
    ("unembedding",): ("lm_head.weight", "transposed"),
    ("final_norm", "scale"): ("model.norm.weight", "as_is"),
    ("blocks", "attention_norm", "scale"): (_LAYER + "input_layernorm.weight", "as_is"),
    ("blocks", "attention", "query", "weight"): (_LAYER + "self_attn.q_proj.weight", "heads_out"),
    ("blocks", "attention", "key", "weight"): (_LAYER + "self_attn.k_proj.weight", "heads_out"),
    ("blocks", "attention", "value", "weight"): (_LAYER + "self_attn.v_proj.weight", "heads_out"),
    ("blocks", "attention", "output", "weight"): (_LAYER + "self_attn.o_proj.weight", "heads_in"),
    ("blocks", "attention", "query", "bias"): (_LAYER + "self_attn.q_proj.bias", "heads"),
    ("blocks", "attention", "key", "bias"): (_LAYER + "self_attn.k_proj.bias", "heads"),
    ("blocks", "attention", "value", "bias"): (_LAYER + "self_attn.v_proj.bias", "heads"),
    ("blocks", "attention", "query_norm", "scale"): (_LAYER + "self_attn.q_norm.weight", "as_is"),
    ("blocks", "attention", "key_norm", "scale"): (_LAYER + "self_attn.k_norm.weight", "as_is"),
    ("blocks", "mlp_norm", "scale"): (_LAYER + "post_attention_layernorm.weight", "as_is"),
    ("blocks", "mlp", "gate", "weight"): (_LAYER + "mlp.gate_proj.weight", "transposed"),
    ("blocks", "mlp", "up", "weight"): (_LAYER + "mlp.up_proj.weight", "transposed"),
    ("blocks", "mlp", "down", "weight"): (_LAYER + "mlp.down_proj.weight", "transposed"),
    ("blocks", "mlp", "router", "weight"): (_LAYER + "block_sparse_moe.gate.weight", "transposed"),
    ("blocks", "mlp", "gates"): (_EXPERT + "w1.weight", "transposed"),
    ("blocks", "mlp", "ups"): (_EXPERT + "w3.weight", "transposed"),
    ("blocks", "mlp", "downs"): (_EXPERT + "w2.weight", "transposed"),
}


def module_name(keys: tuple[str, ...], layer: int) -> str:
    """The name of a projection of a layer in Hugging Face models, as "model.layers.0.self_attn.q_proj"."""
    return TENSORS[(*keys, "weight")][0].format(layer=layer).removesuffix(".weight")


def to_hf_layout(array: np.ndarray, layout: str) -> np.ndarray:
    """One layer's weight in our layout ([in, heads, head_dim], ...) to the [out, in] matrix of Hugging Face files."""
    if layout == "heads_out":  # [D, heads, head_dim] -> [heads head_dim, D]
        return array.reshape(array.shape[0], -1).T
    if layout == "heads_in":  # [heads, head_dim, D] -> [D, heads head_dim]
        return array.reshape(-1, array.shape[-1]).T
    if layout == "heads":  # [heads, head_dim] -> [heads head_dim]
        return array.reshape(-1)
    return array.T if layout == "transposed" else array


def stacked(name: str) -> int:
    """How many leading dimensions of our weight are numbers in the tensor's name."""
    return name.count("{")


def numbered(name: str, numbers: Sequence[int]) -> str:
    return name.format(**dict(zip(("layer", "expert"), numbers, strict=False)))


def leaves(params: dict):
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        yield tuple(key.key for key in path), leaf
