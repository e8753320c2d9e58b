"""Hugging Face's names of our weights, and how each is laid out in its files."""

import collections
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from sami_jax.models.families import FAMILIES

INDEX_FILE = "model.safetensors.index.json"
SINGLE_FILE = "model.safetensors"

# Our weight -> (tensor name in Llama's files, how it is laid out there); `Family.names` has other families' names. Names with {layer}
# are stacked by layer, those with {expert} by layer and expert. Weights of one name lie in one tensor, in this order.
_LAYER = "model.layers.{layer}."
_EXPERT = _LAYER + "mlp.experts.{expert}."
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
    ("blocks", "attention_post_norm", "scale"): (_LAYER + "post_attention_layernorm.weight", "as_is"),
    ("blocks", "mlp_post_norm", "scale"): (_LAYER + "post_feedforward_layernorm.weight", "as_is"),
    ("blocks", "mlp", "router", "weight"): (_LAYER + "mlp.gate.weight", "transposed"),
    ("blocks", "mlp", "gates"): (_EXPERT + "gate_proj.weight", "transposed"),
    ("blocks", "mlp", "ups"): (_EXPERT + "up_proj.weight", "transposed"),
    ("blocks", "mlp", "downs"): (_EXPERT + "down_proj.weight", "transposed"),
}


class Place(NamedTuple):
    """Where one of our weights lies in the files."""

    name: str  # of the tensor, or the tensors of all layers
    layout: str
    first: int  # row of the tensor where ours begins
    shape: list[int]  # of the whole tensor


def tensor_of(family: str, keys: tuple[str, ...]) -> tuple[str, str]:
    """The name of one of our weights in the family's files, and its layout there."""
    name, layout = TENSORS[keys]
    return FAMILIES[family].names.get(keys, name), layout


def by_tensor(family: str, params: dict) -> dict[str, list[tuple[tuple[str, ...], Any]]]:
    """Our weights, with their keys, by the names of the tensors that hold them; one below the other where they are several."""
    order = list(TENSORS)
    together = collections.defaultdict(list)
    for keys, leaf in leaves(params):
        together[tensor_of(family, keys)[0]].append((keys, leaf))
    return {name: sorted(found, key=lambda one: order.index(one[0])) for name, found in together.items()}


def places(family: str, params: dict) -> dict[tuple[str, ...], Place]:
    """Of each weight of a tree of shapes."""
    found = {}
    for name, members in by_tensor(family, params).items():
        shapes = [_file_shape(leaf.shape[stacked(name) :], TENSORS[keys][1]) for keys, leaf in members]
        total = sum(shape[0] for shape in shapes)
        first = 0
        for (keys, _), shape in zip(members, shapes, strict=True):
            found[keys] = Place(name, TENSORS[keys][1], first, [total, *shape[1:]])
            first += shape[0]
    return found


def _file_shape(shape: tuple[int, ...], layout: str) -> tuple[int, ...]:
    return to_hf_layout(np.broadcast_to(np.empty((), np.int8), shape), layout).shape


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
