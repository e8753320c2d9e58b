"""Shapes of published models, as their config.json on Hugging Face gives them: to plan with before a folder is here."""

import dataclasses
import math

from sami_jax.models.config import LongRope, ModelConfig, RopeScaling
from sami_jax.models.families import FAMILIES

# In the order of ModelConfig's fields: family, V, D, layers, heads, key heads, head size, F, positions, experts; then what is told by name.

# mistralai/Mistral-7B-v0.1
_MISTRAL_7B = ModelConfig("mistral", 32000, 4096, 32, 32, 8, 128, 14336, 32768, sliding_window=4096)

# mistralai/Mixtral-8x7B-v0.1: that block with eight SwiGLUs, two a token, and no window.
_MIXTRAL_8X7B = dataclasses.replace(
    _MISTRAL_7B, family="mixtral", n_experts=8, experts_per_token=2, rope_theta=1e6, sliding_window=None
)

# meta-llama/Meta-Llama-3-8B
_LLAMA_3_8B = ModelConfig("llama", 128256, 4096, 32, 32, 8, 128, 14336, 8192, rope_theta=5e5)

# meta-llama/Meta-Llama-3-70B
_LLAMA_3_70B = dataclasses.replace(_LLAMA_3_8B, d_model=8192, n_layers=80, n_heads=64, d_ff=28672)

# meta-llama/Llama-3.1-8B and -70B: the same weights' shapes in a longer context.
_LONGER = {"max_positions": 131072, "rope_scaling": RopeScaling(8.0, 1.0, 4.0, 8192)}

# Qwen/Qwen2.5-7B
_QWEN_2_5_7B = ModelConfig(
    "qwen2", 152064, 3584, 28, 28, 4, 128, 18944, 131072, rope_theta=1e6, norm_epsilon=1e-6, query_bias=True
)

# Qwen/Qwen2.5-0.5B, -1.5B and -3B
_QWEN_2_5_SMALL = {"rope_theta": 1e6, "norm_epsilon": 1e-6, "query_bias": True, "tie_embeddings": True}
_QWEN_2_5_05B = ModelConfig("qwen2", 151936, 896, 24, 14, 2, 64, 4864, 32768, **_QWEN_2_5_SMALL)
_QWEN_2_5_15B = ModelConfig("qwen2", 151936, 1536, 28, 12, 2, 128, 8960, 131072, **_QWEN_2_5_SMALL)
_QWEN_2_5_3B = ModelConfig("qwen2", 151936, 2048, 36, 16, 2, 128, 11008, 32768, **_QWEN_2_5_SMALL)

# meta-llama/Llama-3.2-1B and -3B
_LLAMA_3_2 = {"rope_theta": 5e5, "rope_scaling": RopeScaling(32.0, 1.0, 4.0, 8192), "tie_embeddings": True}
_LLAMA_3_2_1B = ModelConfig("llama", 128256, 2048, 16, 32, 8, 64, 8192, 131072, **_LLAMA_3_2)

# Qwen/Qwen3-0.6B, -1.7B, -4B, -8B; -30B-A3B and -235B-A22B
_QWEN_3 = {"rope_theta": 1e6, "query_norm": "head", "norm_epsilon": 1e-6}
_QWEN_3_8B = ModelConfig("qwen3", 151936, 4096, 36, 32, 8, 128, 12288, 40960, **_QWEN_3)
_QWEN_3_SMALL = dataclasses.replace(_QWEN_3_8B, n_layers=28, n_heads=16, tie_embeddings=True)
_QWEN_3_30B_A3B = ModelConfig("qwen3_moe", 151936, 2048, 48, 32, 4, 128, 768, 40960, 128, 8, **_QWEN_3)

# allenai/OLMo-2-1124-7B, -13B and OLMo-2-0425-1B
_OLMO_2 = {"rope_theta": 5e5, "norm_epsilon": 1e-6, **FAMILIES["olmo2"].switches}
_OLMO_2_7B = ModelConfig("olmo2", 100352, 4096, 32, 32, 32, 128, 11008, 4096, **_OLMO_2)

# HuggingFaceTB/SmolLM3-3B: every fourth layer does not turn.
_SMOLLM3 = {"rope_theta": 5e6, "norm_epsilon": 1e-6, "tie_embeddings": True}
_SMOLLM3_3B = ModelConfig(
    "smollm3", 128256, 2048, 36, 16, 4, 128, 11008, 65536, **_SMOLLM3, rope_layers=(True, True, True, False) * 9
)

# microsoft/Phi-3-mini-4k-instruct
_PHI_3_MINI = ModelConfig("phi3", 32064, 3072, 32, 32, 32, 96, 8192, 4096, sliding_window=2047)

# microsoft/Phi-4-mini-instruct, within the context before its stretch to 131072.
_PHI_4 = {"rotary_share": 0.75, "tie_embeddings": True, "sliding_window": 262144}
_UNSTRETCHED = LongRope((1.0,) * 48, math.sqrt(1 + math.log(32) / math.log(4096)))
_PHI_4_MINI = ModelConfig("phi3", 200064, 3072, 32, 24, 8, 128, 8192, 4096, rope_scaling=_UNSTRETCHED, **_PHI_4)

# google/gemma-2-2b, -9b and -27b: every other layer is local.
_GEMMA = {"norm_epsilon": 1e-6, "tie_embeddings": True, "query_scalar": 256}
_GEMMA_2 = {**_GEMMA, "attention_cap": 50.0, "logit_cap": 30.0, "sliding_window": 4096, **FAMILIES["gemma2"].switches}
_GEMMA_2_2B = ModelConfig("gemma2", 256000, 2304, 26, 8, 4, 256, 9216, 8192, local=(True, False) * 13, **_GEMMA_2)
_GEMMA_2_9B = ModelConfig("gemma2", 256000, 3584, 42, 16, 8, 256, 14336, 8192, local=(True, False) * 21, **_GEMMA_2)
_GEMMA_2_27B = ModelConfig(
    "gemma2", 256000, 4608, 46, 32, 16, 128, 36864, 8192, local=(True, False) * 23, **{**_GEMMA_2, "query_scalar": 144}
)

# google/gemma-3-270m and -1b-pt: every sixth layer is global.
_FIVE_LOCAL = (True,) * 5 + (False,)
_GEMMA_3 = {**_GEMMA, "rope_theta": 1e6, "local_theta": 1e4, "sliding_window": 512, **FAMILIES["gemma3_text"].switches}
_GEMMA_3_270M = ModelConfig("gemma3_text", 262144, 640, 18, 4, 1, 256, 2048, 32768, local=_FIVE_LOCAL * 3, **_GEMMA_3)
_GEMMA_3_1B = ModelConfig(
    "gemma3_text", 262144, 1152, 26, 4, 1, 256, 6912, 32768, local=_FIVE_LOCAL * 4 + (True,) * 2, **_GEMMA_3
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
    "qwen-2.5-0.5b": _QWEN_2_5_05B,
    "qwen-2.5-1.5b": _QWEN_2_5_15B,
    "qwen-2.5-3b": _QWEN_2_5_3B,
    "llama-3.2-1b": _LLAMA_3_2_1B,
    "llama-3.2-3b": dataclasses.replace(_LLAMA_3_2_1B, d_model=3072, n_layers=28, n_heads=24, head_dim=128),
    "qwen-3-0.6b": dataclasses.replace(_QWEN_3_SMALL, d_model=1024, d_ff=3072),
    "qwen-3-1.7b": dataclasses.replace(_QWEN_3_SMALL, d_model=2048, d_ff=6144),
    "qwen-3-4b": dataclasses.replace(_QWEN_3_8B, d_model=2560, d_ff=9728, tie_embeddings=True),
    "qwen-3-8b": _QWEN_3_8B,
    "qwen-3-30b-a3b": _QWEN_3_30B_A3B,
    "qwen-3-235b-a22b": dataclasses.replace(_QWEN_3_30B_A3B, d_model=4096, n_layers=94, n_heads=64, d_ff=1536),
    "olmo-2-1b": dataclasses.replace(_OLMO_2_7B, d_model=2048, n_layers=16, n_heads=16, n_kv_heads=16, d_ff=8192),
    "olmo-2-7b": _OLMO_2_7B,
    "olmo-2-13b": dataclasses.replace(_OLMO_2_7B, d_model=5120, n_layers=40, n_heads=40, n_kv_heads=40, d_ff=13824),
    "smollm3-3b": _SMOLLM3_3B,
    "phi-3-mini": _PHI_3_MINI,
    "phi-4-mini": _PHI_4_MINI,
    "gemma-2-2b": _GEMMA_2_2B,
    "gemma-2-9b": _GEMMA_2_9B,
    "gemma-2-27b": _GEMMA_2_27B,
    "gemma-3-270m": _GEMMA_3_270M,
    "gemma-3-1b": _GEMMA_3_1B,
}
