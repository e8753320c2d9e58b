"""Shapes of published models, as their config.json on Hugging Face gives them: to plan with before a folder is here."""

import dataclasses

from sami_jax.models.config import ModelConfig, RopeScaling

# mistralai/Mistral-7B-v0.1
_MISTRAL_7B = ModelConfig(
    family="mistral",
    vocab_size=32000,
    d_model=4096,
    n_layers=32,
    n_heads=32,
    n_kv_heads=8,
    head_dim=128,
    d_ff=14336,
    max_positions=32768,
    sliding_window=4096,
)

# mistralai/Mixtral-8x7B-v0.1: that block with eight SwiGLUs, two a token, and no window.
_MIXTRAL_8X7B = dataclasses.replace(
    _MISTRAL_7B, family="mixtral", n_experts=8, experts_per_token=2, rope_theta=1e6, sliding_window=None
)

# meta-llama/Meta-Llama-3-8B
_LLAMA_3_8B = ModelConfig(
    family="llama",
    vocab_size=128256,
    d_model=4096,
    n_layers=32,
    n_heads=32,
    n_kv_heads=8,
    head_dim=128,
    d_ff=14336,
    max_positions=8192,
    rope_theta=5e5,
)

# meta-llama/Meta-Llama-3-70B
_LLAMA_3_70B = dataclasses.replace(_LLAMA_3_8B, d_model=8192, n_layers=80, n_heads=64, d_ff=28672)

# meta-llama/Llama-3.1-8B and -70B: the same weights' shapes in a longer context.
_LONGER = {"max_positions": 131072, "rope_scaling": RopeScaling(8.0, 1.0, 4.0, 8192)}

# Qwen/Qwen2.5-7B
_QWEN_2_5_7B = ModelConfig(
    family="qwen2",
    vocab_size=152064,
    d_model=3584,
    n_layers=28,
    n_heads=28,
    n_kv_heads=4,
    head_dim=128,
    d_ff=18944,
    max_positions=131072,
    rope_theta=1e6,
    norm_epsilon=1e-6,
    query_bias=True,
)

# Name, as `config.model.shape` gives it -> shape.
SHAPES: dict[str, ModelConfig] = {
    "mistral-7b": _MISTRAL_7B,
    "mixtral-8x7b": _MIXTRAL_8X7B,
    "llama-3-8b": _LLAMA_3_8B,
    "llama-3.1-8b": dataclasses.replace(_LLAMA_3_8B, **_LONGER),
    "llama-3-70b": _LLAMA_3_70B,
    "llama-3.1-70b": dataclasses.replace(_LLAMA_3_70B, **_LONGER),
    "qwen-2.5-7b": _QWEN_2_5_7B,
}
