"""What each family of models has of its own: the words of its config.json, switches, and names of its tensors."""

import dataclasses
from typing import Any

_DENSE = {"d_ff": "intermediate_size"}
_WINDOWED = {**_DENSE, "sliding_window": "sliding_window"}  # a window that holds for every layer
_EXPERTS = {"experts_per_token": "num_experts_per_tok"}  # no password  # nosec B105
_LAYER = "model.layers.{layer}."
_EXPERT = _LAYER + "block_sparse_moe.experts.{expert}."


@dataclasses.dataclass(frozen=True)
class Family:
    architecture: str  # transformers' class
    # Fields of ModelConfig, by what they are called in config.json, besides those that all families have.
    keys: dict[str, str] = dataclasses.field(default_factory=lambda: _DENSE)
    switches: dict[str, Any] = dataclasses.field(default_factory=dict)  # fields that every model of the family has so
    required: dict[str, Any] = dataclasses.field(default_factory=dict)  # what config.json has no other value for
    # Names of tensors that are called otherwise than Llama's, see `tensors.TENSORS`.
    names: dict[tuple[str, ...], str] = dataclasses.field(default_factory=dict)


def _attention(name: str) -> tuple[str, ...]:
    return "blocks", "attention", name, "weight"


def _mlp(*names: str) -> tuple[str, ...]:
    return "blocks", "mlp", *names


# Gemma 2 and 3: local layers between global ones, norms on both sides that multiply by 1 + w.
_GEMMA = Family(
    "Gemma2ForCausalLM",
    {
        **_WINDOWED,
        "local": "layer_types",
        "query_scalar": "query_pre_attn_scalar",
        "attention_cap": "attn_logit_softcapping",
        "logit_cap": "final_logit_softcapping",
    },
    switches={"norms": "both", "norm_offset": True, "embedding_scale": True, "activation": "gelu_tanh"},
    required={
        "hidden_act": "gelu_pytorch_tanh",
        "hidden_activation": "gelu_pytorch_tanh",
        "use_bidirectional_attention": False,
    },
    names={("blocks", "mlp_norm", "scale"): _LAYER + "pre_feedforward_layernorm.weight"},
)

FAMILIES: dict[str, Family] = {
    "llama": Family("LlamaForCausalLM"),
    "mistral": Family("MistralForCausalLM", _WINDOWED),
    "mixtral": Family(
        "MixtralForCausalLM",
        {**_WINDOWED, **_EXPERTS, "n_experts": "num_local_experts"},
        names={
            _mlp("router", "weight"): _LAYER + "block_sparse_moe.gate.weight",
            _mlp("gates"): _EXPERT + "w1.weight",
            _mlp("ups"): _EXPERT + "w3.weight",
            _mlp("downs"): _EXPERT + "w2.weight",
        },
    ),
    "qwen2": Family("Qwen2ForCausalLM", switches={"query_bias": True}),
    "qwen3": Family("Qwen3ForCausalLM", switches={"query_norm": "head"}),
    "qwen3_moe": Family(
        "Qwen3MoeForCausalLM",
        {**_EXPERTS, "n_experts": "num_experts", "d_ff": "moe_intermediate_size", "renormalized": "norm_topk_prob"},
        switches={"query_norm": "head"},
        required={"decoder_sparse_step": 1, "mlp_only_layers": []},
    ),
    "olmo2": Family("Olmo2ForCausalLM", switches={"norms": "behind", "query_norm": "width"}),
    "smollm3": Family("SmolLM3ForCausalLM", {**_DENSE, "rope_layers": "no_rope_layers"}),
    "phi3": Family(
        "Phi3ForCausalLM",
        {**_WINDOWED, "rotary_share": "partial_rotary_factor"},
        names={
            **{_attention(name): _LAYER + "self_attn.qkv_proj.weight" for name in ("query", "key", "value")},
            **{_mlp(name, "weight"): _LAYER + "mlp.gate_up_proj.weight" for name in ("gate", "up")},
        },
    ),
    "gemma2": _GEMMA,
    "gemma3_text": dataclasses.replace(
        _GEMMA, architecture="Gemma3ForCausalLM", switches={**_GEMMA.switches, "query_norm": "head"}
    ),
}
