"""Published shapes have as many parameters as their publishers say, and pass through config.json and back."""

import json
import math

import jax
import pytest
from support.quick import others_slow

from sami_jax.models.config import ModelConfig
from sami_jax.models.decoder import abstract_params
from sami_jax.models.huggingface import read_config
from sami_jax.models.published import SHAPES

BILLIONS = {
    "mistral-7b": 7.24,
    "mixtral-8x7b": 46.7,
    "llama-3-8b": 8.03,
    "llama-3.1-8b": 8.03,
    "llama-3-70b": 70.6,
    "llama-3.1-70b": 70.6,
    "qwen-2.5-7b": 7.62,
    "qwen-2.5-0.5b": 0.494033,
    "qwen-2.5-1.5b": 1.543714,
    "qwen-2.5-3b": 3.085939,
    "llama-3.2-1b": 1.235814,
    "llama-3.2-3b": 3.212750,
    "qwen-3-0.6b": 0.596050,
    "qwen-3-1.7b": 1.720575,
    "qwen-3-4b": 4.022468,
    "qwen-3-8b": 8.190735,
    "qwen-3-30b-a3b": 30.532123,
    "qwen-3-235b-a22b": 235.093635,
    "olmo-2-1b": 1.484917,
    "olmo-2-7b": 7.298617,
    "olmo-2-13b": 13.716198,
    "smollm3-3b": 3.075099,
    "phi-3-mini": 3.821080,
    "phi-4-mini": 3.836022,
    "gemma-2-2b": 2.614342,
    "gemma-2-9b": 9.241706,
    "gemma-2-27b": 27.227128,
    "gemma-3-270m": 0.268098,
    "gemma-3-1b": 0.999886,
}

# config.json as the publishers have it, in transformers 4's words, without what other models say likewise.
FILES = {
    "gemma-2-2b": {
        "model_type": "gemma2",
        "attention_bias": False,
        "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0,
        "head_dim": 256,
        "hidden_act": "gelu_pytorch_tanh",
        "hidden_activation": "gelu_pytorch_tanh",
        "hidden_size": 2304,
        "intermediate_size": 9216,
        "max_position_embeddings": 8192,
        "num_attention_heads": 8,
        "num_hidden_layers": 26,
        "num_key_value_heads": 4,
        "query_pre_attn_scalar": 256,
        "rms_norm_eps": 1e-06,
        "rope_theta": 10000.0,
        "sliding_window": 4096,
        "cache_implementation": "hybrid",
        "vocab_size": 256000,
    },
    "gemma-3-1b": {
        "model_type": "gemma3_text",
        "attn_logit_softcapping": None,
        "final_logit_softcapping": None,
        "head_dim": 256,
        "hidden_activation": "gelu_pytorch_tanh",
        "hidden_size": 1152,
        "intermediate_size": 6912,
        "max_position_embeddings": 32768,
        "num_attention_heads": 4,
        "num_hidden_layers": 26,
        "num_key_value_heads": 1,
        "query_pre_attn_scalar": 256,
        "rms_norm_eps": 1e-06,
        "rope_local_base_freq": 10000,
        "rope_scaling": None,
        "rope_theta": 1000000,
        "sliding_window": 512,
        "sliding_window_pattern": 6,
        "vocab_size": 262144,
    },
    "phi-4-mini": {
        "model_type": "phi3",
        "auto_map": {"AutoConfig": "configuration_phi3.Phi3Config"},
        "attention_bias": False,
        "full_attn_mod": 1,
        "hidden_act": "silu",
        "hidden_size": 3072,
        "intermediate_size": 8192,
        "lm_head_bias": False,
        "max_position_embeddings": 131072,
        "mlp_bias": False,
        "num_attention_heads": 24,
        "num_hidden_layers": 32,
        "num_key_value_heads": 8,
        "original_max_position_embeddings": 4096,
        "partial_rotary_factor": 0.75,
        "rms_norm_eps": 1e-05,
        "rope_scaling": {"type": "longrope", "short_factor": [1.0] * 48, "long_factor": [2.0] * 48},
        "rope_theta": 10000.0,
        "sliding_window": 262144,
        "tie_word_embeddings": True,
        "vocab_size": 200064,
    },
    "smollm3-3b": {
        "model_type": "smollm3",
        "hidden_act": "silu",
        "hidden_size": 2048,
        "intermediate_size": 11008,
        "layer_types": ["full_attention"] * 36,
        "max_position_embeddings": 65536,
        "no_rope_layer_interval": 4,
        "no_rope_layers": [1, 1, 1, 0] * 9,
        "num_attention_heads": 16,
        "num_hidden_layers": 36,
        "num_key_value_heads": 4,
        "rms_norm_eps": 1e-06,
        "rope_scaling": None,
        "rope_theta": 5000000.0,
        "sliding_window": None,
        "use_sliding_window": False,
        "vocab_size": 128256,
    },
    "qwen-3-30b-a3b": {
        "model_type": "qwen3_moe",
        "attention_bias": False,
        "decoder_sparse_step": 1,
        "head_dim": 128,
        "hidden_act": "silu",
        "hidden_size": 2048,
        "intermediate_size": 6144,
        "max_position_embeddings": 40960,
        "max_window_layers": 48,
        "mlp_only_layers": [],
        "moe_intermediate_size": 768,
        "norm_topk_prob": True,
        "num_attention_heads": 32,
        "num_experts": 128,
        "num_experts_per_tok": 8,
        "num_hidden_layers": 48,
        "num_key_value_heads": 4,
        "rms_norm_eps": 1e-06,
        "rope_scaling": None,
        "rope_theta": 1000000.0,
        "sliding_window": None,
        "tie_word_embeddings": False,
        "use_sliding_window": False,
        "vocab_size": 151936,
    },
    "olmo-2-7b": {
        "model_type": "olmo2",
        "attention_bias": False,
        "hidden_act": "silu",
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "max_position_embeddings": 4096,
        "num_attention_heads": 32,
        "num_hidden_layers": 32,
        "num_key_value_heads": 32,
        "rms_norm_eps": 1e-06,
        "rope_scaling": None,
        "rope_theta": 500000,
        "tie_word_embeddings": False,
        "vocab_size": 100352,
    },
}


@pytest.mark.parametrize("name", others_slow(SHAPES, "mistral-7b", "qwen-3-30b-a3b", "gemma-3-1b"))
def test_parameters(name):
    count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(abstract_params(SHAPES[name])))
    assert count == pytest.approx(BILLIONS[name] * 1e9, rel=1e-3)


@pytest.mark.parametrize("name", SHAPES)
def test_config_json_keeps_the_shape(name):
    assert ModelConfig.from_hf(SHAPES[name].to_hf(), name) == SHAPES[name]


@pytest.mark.parametrize("name", FILES)
def test_the_publishers_config_json_is_read(name, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(FILES[name]))
    assert read_config(tmp_path) == SHAPES[name]
