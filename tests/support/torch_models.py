"""Random small models of each family by transformers and torch, and what both sides compute of a text."""

import jax.numpy as jnp
import numpy as np
import torch
import transformers

from sami_jax.models.decoder import bind

MODELS = {
    "llama, grouped, untied": ("Llama", dict(num_key_value_heads=2)),
    "llama, tied, theta": (
        "Llama",
        dict(tie_word_embeddings=True, rope_parameters={"rope_theta": 5e5, "rope_type": "default"}),
    ),
    "llama, wide heads": ("Llama", dict(num_key_value_heads=1, head_dim=16)),
    "mistral, window": ("Mistral", dict(num_key_value_heads=2, sliding_window=5)),
    "llama 3.1": (
        "Llama",
        dict(
            num_key_value_heads=2,
            rope_parameters={
                "rope_theta": 1e4,
                "rope_type": "llama3",
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 32,
            },
        ),
    ),
    "qwen 2.5": ("Qwen2", dict(num_key_value_heads=2, tie_word_embeddings=True)),
    "qwen 3": ("Qwen3", dict(num_key_value_heads=2, head_dim=16)),
    "mixtral": ("Mixtral", dict(num_key_value_heads=2, num_local_experts=4, num_experts_per_tok=2)),
    "qwen 3 mixture": (
        "Qwen3Moe",
        dict(
            num_key_value_heads=2,
            head_dim=16,
            num_experts=4,
            num_experts_per_tok=2,
            moe_intermediate_size=24,
            norm_topk_prob=True,
        ),
    ),
    "qwen 3 mixture, not renormalized": (
        "Qwen3Moe",
        dict(num_key_value_heads=2, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=24),
    ),
    "olmo 2": ("Olmo2", dict(num_key_value_heads=2)),
    "smollm 3": (
        "SmolLM3",
        dict(num_key_value_heads=2, no_rope_layer_interval=2, pad_token_id=0, bos_token_id=1),
    ),
    "phi 3": ("Phi3", dict(num_key_value_heads=2, sliding_window=9, pad_token_id=0)),
    "phi 4 mini": (
        "Phi3",
        dict(
            num_key_value_heads=2,
            tie_word_embeddings=True,
            pad_token_id=0,
            rope_parameters={
                "rope_type": "longrope",
                "rope_theta": 1e4,
                "partial_rotary_factor": 0.75,
                "short_factor": [1.0, 1.5, 2.0],
                "long_factor": [4.0, 5.0, 6.0],
            },
            original_max_position_embeddings=64,
        ),
    ),
    "gemma 2": (
        "Gemma2",
        dict(
            num_key_value_heads=2,
            head_dim=16,
            sliding_window=5,
            query_pre_attn_scalar=11,
            attn_logit_softcapping=2.0,  # so low that they are felt
            final_logit_softcapping=5.0,
        ),
    ),
    "gemma 3": (
        "Gemma3Text",
        dict(
            num_key_value_heads=2,
            head_dim=16,
            sliding_window=5,
            query_pre_attn_scalar=16,
            layer_types=["sliding_attention", "full_attention", "sliding_attention"],
            rope_parameters={
                "sliding_attention": {"rope_type": "default", "rope_theta": 1e2},
                "full_attention": {"rope_type": "default", "rope_theta": 1e4},
            },
        ),
    ),
    "mistral, no window, tied": ("Mistral", dict(num_key_value_heads=4, sliding_window=None, tie_word_embeddings=True)),
}


def save_random(name: str, folder, vocab_size: int = 97) -> torch.nn.Module:
    family, options = MODELS[name]
    sizes = dict(
        vocab_size=vocab_size, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4
    )
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**sizes, max_position_embeddings=128, eos_token_id=96, **options)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    for weight in model.parameters():  # wider than transformers' own, so that logits differ enough to tell an error
        torch.nn.init.normal_(weight, std=0.3)
    model.save_pretrained(folder)
    return model


def torch_logits(model, tokens) -> np.ndarray:
    with torch.no_grad():
        return model(torch.tensor(tokens)).logits.numpy()


def our_logits(config, params, tokens) -> np.ndarray:
    model = bind(config, params)
    return np.asarray(model.unembed(model(jnp.asarray(tokens))))
