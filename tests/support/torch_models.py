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
    "mistral, no window, tied": ("Mistral", dict(num_key_value_heads=4, sliding_window=None, tie_word_embeddings=True)),
}


def save_random(name: str, folder) -> torch.nn.Module:
    family, options = MODELS[name]
    sizes = dict(vocab_size=97, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4)
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**sizes, max_position_embeddings=128, eos_token_id=96, **options)
    model = getattr(transformers, f"{family}ForCausalLM")(config).eval()
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
