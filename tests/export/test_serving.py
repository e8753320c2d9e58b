"""Exported folders are what servers read: transformers, `transformers serve`, and vLLM by a table of what its loader demands."""

import dataclasses
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from safetensors import safe_open
from support.asked import ask, greedy

from sami_jax import miniature
from sami_jax.export.huggingface import companions, export
from sami_jax.miniature.untrained import write_random_bytes_model
from sami_jax.models.config import FAMILIES, ModelConfig
from sami_jax.models.decoder import abstract_params
from sami_jax.models.pretrained import open_model

SMALL = ModelConfig(
    family="llama", vocab_size=257, d_model=32, n_layers=2, n_heads=4, n_kv_heads=2, head_dim=8, d_ff=48, max_positions=64
)  # fmt: skip
GEMMA = {"tie_embeddings": True, "sliding_window": 16, "local": (True, False), "query_scalar": 8}
SHAPES = {
    "llama": {},
    "mistral": {"sliding_window": 16},
    "mixtral": {"n_experts": 2, "experts_per_token": 1},
    "qwen2": {"query_bias": True, "tie_embeddings": True},
    "qwen3": {"query_norm": "head", "head_dim": 16},
    "qwen3_moe": {"query_norm": "head", "head_dim": 16, "n_experts": 2, "experts_per_token": 1},
    "olmo2": FAMILIES["olmo2"].switches,
    "smollm3": {"rope_layers": (True, False)},
    "phi3": {"sliding_window": 16},
    "gemma2": GEMMA | FAMILIES["gemma2"].switches | {"attention_cap": 50.0, "logit_cap": 30.0},
    "gemma3_text": GEMMA | FAMILIES["gemma3_text"].switches | {"local_theta": 1e3},
}

# What vLLM's loader demands, by its sources: model_executor/models/{registry,llama,mixtral,qwen2,qwen3,qwen3_moe,olmo2,phi3,gemma2,gemma3}.py, where a tensor of
# another name is a KeyError and one that is missing an error; config.py and transformers_utils/tokenizer.py.
LAYER = [
    "input_layernorm.weight",
    "post_attention_layernorm.weight",
    *(f"self_attn.{name}_proj.weight" for name in "qkvo"),
]
DENSE = [f"mlp.{name}_proj.weight" for name in ("gate", "up", "down")]
EXPERTS = ["block_sparse_moe.gate.weight", *(f"block_sparse_moe.experts.{e}.w{w}.weight" for e in (0, 1) for w in (1, 2, 3))]  # fmt: skip
MANY = ["mlp.gate.weight", *(f"mlp.experts.{e}.{w}_proj.weight" for e in (0, 1) for w in ("gate", "up", "down"))]
BEHIND = "post_feedforward_layernorm.weight"
BOTH = ["pre_feedforward_layernorm.weight", BEHIND]
FUSED = [*LAYER[:2], *(f"{name}_proj.weight" for name in ("self_attn.qkv", "self_attn.o", "mlp.gate_up", "mlp.down"))]
GEMMA_KEYS = {
    "hidden_activation", "query_pre_attn_scalar", "attn_logit_softcapping", "final_logit_softcapping", "sliding_window",
    "layer_types", "head_dim",
}  # fmt: skip
BIASES = [f"self_attn.{name}_proj.bias" for name in "qkv"]
NORMS = [f"self_attn.{name}_norm.weight" for name in "qk"]
KEYS = {
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
    "max_position_embeddings", "rms_norm_eps", "rope_theta", "tie_word_embeddings", "hidden_act", "dtype",
}  # fmt: skip
VLLM = {  # family: architecture of the registry, tensors of a layer, keys of config.json besides KEYS
    "llama": ("LlamaForCausalLM", LAYER + DENSE, set()),
    "mistral": ("MistralForCausalLM", LAYER + DENSE, {"sliding_window", "head_dim"}),
    "mixtral": ("MixtralForCausalLM", LAYER + EXPERTS, {"num_local_experts", "num_experts_per_tok", "sliding_window"}),
    "qwen2": ("Qwen2ForCausalLM", LAYER + DENSE + BIASES, set()),
    "qwen3": ("Qwen3ForCausalLM", LAYER + DENSE + NORMS, {"head_dim"}),
    "qwen3_moe": (
        "Qwen3MoeForCausalLM",
        LAYER + MANY + NORMS,
        {"head_dim", "num_experts", "num_experts_per_tok", "moe_intermediate_size", "norm_topk_prob"},
    ),
    "olmo2": ("Olmo2ForCausalLM", [*LAYER[1:], BEHIND, *DENSE, *NORMS], set()),
    "smollm3": ("SmolLM3ForCausalLM", LAYER + DENSE, {"no_rope_layers"}),
    "phi3": ("Phi3ForCausalLM", FUSED, {"sliding_window", "rope_parameters"}),
    "gemma2": ("Gemma2ForCausalLM", LAYER + DENSE + BOTH, GEMMA_KEYS),
    "gemma3_text": ("Gemma3ForCausalLM", LAYER + DENSE + BOTH + NORMS, GEMMA_KEYS | {"rope_local_base_freq"}),
}
DTYPES = {"float32": "F32", "bfloat16": "BF16"}
TOKENIZERS = {"PreTrainedTokenizerFast", "LlamaTokenizer", "LlamaTokenizerFast", "Qwen2Tokenizer", "Qwen2TokenizerFast"}
EXTRA = ("rotary_emb.inv_freq",)  # the only names beside these that the loader passes over


def vllm_complaints(folder, family: str) -> list[str]:
    """What vLLM's loader would refuse in a folder."""
    architecture, layer, keys = VLLM[family]
    config = json.loads((folder / "config.json").read_text())
    found = [] if config.get("architectures") == [architecture] else [f"architectures {config.get('architectures')}"]
    found += [f"config.json lacks {key}" for key in sorted((KEYS | keys) - config.keys())]
    expected = {"model.embed_tokens.weight", "model.norm.weight"} | (
        set() if config.get("tie_word_embeddings") else {"lm_head.weight"}
    )
    expected |= {f"model.layers.{n}.{name}" for n in range(config["num_hidden_layers"]) for name in layer}
    tensors, dtypes = set(), set()
    for file in folder.glob("*.safetensors"):
        with safe_open(file, "np") as weights:
            found += [] if (weights.metadata() or {}).get("format") == "pt" else [f"{file.name}: no format pt"]
            tensors |= set(weights.keys())
            dtypes |= {weights.get_slice(name).get_dtype() for name in weights.keys()}  # noqa: SIM118 (no dict)
    found += [f"tensor {name} is missing" for name in sorted(expected - tensors)]
    found += [
        f"tensor {name} is unknown" for name in sorted(tensors - expected) if not re.search("|".join(EXTRA), name)
    ]
    found += [] if dtypes == {DTYPES.get(config.get("dtype"))} else [f"dtype {config.get('dtype')} of {dtypes}"]
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    if not ((folder / "tokenizer.json").is_file() or (folder / "tokenizer.model").is_file()):
        found.append("no tokenizer")
    if settings.get("tokenizer_class") not in TOKENIZERS:
        found.append(f"tokenizer_class {settings.get('tokenizer_class')}")
    generation = json.loads((folder / "generation_config.json").read_text())
    return found + ([] if "eos_token_id" in generation else ["generation_config.json lacks eos_token_id"])


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A folder with a tokenizer that reads any text."""
    folder = tmp_path_factory.mktemp("base") / "bytes"
    write_random_bytes_model(folder, 64, 0)
    return open_model(folder)


def weights(config: ModelConfig) -> dict:
    """Random ones, without a program compiled to make them."""
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 0.1, leaf.shape), jnp.float32), abstract_params(config))


@pytest.fixture(scope="module", params=FAMILIES)
def exported(request, base, tmp_path_factory):
    """(family, folder of an export in that family's shape)."""
    config = dataclasses.replace(SMALL, family=request.param, **SHAPES[request.param])
    folder = tmp_path_factory.mktemp("exported") / request.param

    def write(output):
        companions(base)(output)
        # The companions' is of another family; of some, transformers' padding token is beyond a small vocabulary.
        (output / "config.json").write_text(json.dumps(config.to_hf() | {"pad_token_id": None}))

    export(weights(config), config, folder, write, jnp.bfloat16)
    return request.param, folder


def test_an_export_is_what_vllm_loads(exported):
    family, folder = exported
    assert vllm_complaints(folder, family) == []


def test_an_export_loads_in_transformers(exported, base):
    _, folder = exported
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    assert model.dtype == torch.bfloat16 and model.generation_config.eos_token_id == base.end_tokens[0]
    text = "Grüße, 日本!"
    assert tokenizer.encode(text) == base.tokenizer.encode(text)
    ids = torch.tensor([tokenizer.encode(text)])
    assert torch.isfinite(model(ids).logits.float()).all()


def test_the_table_sees_what_is_wrong(base, tmp_path):
    export(weights(SMALL), dataclasses.replace(SMALL, family="qwen3"), tmp_path / "m", companions(base))
    found = "\n".join(vllm_complaints(tmp_path / "m", "qwen3"))
    assert "architectures ['MistralForCausalLM']" in found  # the base's config.json
    assert "self_attn.q_norm.weight is missing" in found and "config.json lacks" not in found
    settings = json.loads((base.folder / "tokenizer_config.json").read_text())
    (tmp_path / "m" / "tokenizer_config.json").write_text(json.dumps(settings))
    (tmp_path / "m" / "generation_config.json").write_text("{}")
    found = vllm_complaints(tmp_path / "m", "qwen3")
    assert "tokenizer_class TokenizersBackend" in found and "generation_config.json lacks eos_token_id" in found


def test_what_the_base_tells_of_generation_is_kept(tmp_path):
    base = open_model(miniature.BASE)
    told = {"eos_token_id": [1, 7], "temperature": 0.6, "pad_token_id": 3}
    folder = tmp_path / "base"
    folder.mkdir()
    for file in miniature.BASE.iterdir():
        (folder / file.name).symlink_to(file)
    (folder / "generation_config.json").write_text(json.dumps(told))
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tools.jinja").write_text("{{ messages }}")
    (folder / "pytorch_model.bin.index.json").write_text("{}")
    (tmp_path / "out").mkdir()
    companions(open_model(folder))(tmp_path / "out")
    assert json.loads((tmp_path / "out" / "generation_config.json").read_text()) == told
    assert (tmp_path / "out" / "additional_chat_templates" / "tools.jinja").is_file()
    assert not list((tmp_path / "out").glob("*.index.json"))
    (tmp_path / "plain").mkdir()
    companions(base)(tmp_path / "plain")
    plain = json.loads((tmp_path / "plain" / "generation_config.json").read_text())
    assert plain["eos_token_id"] == base.tokenizer.eos_token_id
    again = transformers.AutoTokenizer.from_pretrained(tmp_path / "plain")
    text = "Human: How do I fix the bike?\n\nAssistant: Hello."
    assert again.encode(text) == base.tokenizer.encode(text) and again.decode(again.encode(text)) == text


@pytest.mark.slow
def test_transformers_serves_an_export(server, mesh, tmp_path):
    """The embedded model, exported by us, behind a real server: the text that our own sampler gives."""
    base = open_model(miniature.BASE)
    export(base.load(mesh), base.config, tmp_path / "model", companions(base))
    messages = [{"role": "user", "content": "How do I fix the bike?"}]
    served = ask(server, tmp_path / "model", messages, max_tokens=48)
    assert served.message.content.strip() == greedy(tmp_path / "model", messages, 48, mesh).strip() != ""
    assert served.finish_reason == "stop"  # by generation_config.json: config.json names no end of text
