"""The shape of a decoder, read from and written to a Hugging Face config.json."""

import dataclasses
from typing import NamedTuple

from sami_jax.data.shape import misfit
from sami_jax.errors import UserError

FAMILIES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "mixtral": "MixtralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}

WINDOWED = ("mistral", "mixtral")  # families whose sliding_window holds for every layer

# Switches of config.json that change the computation and that this decoder does not compute: (key, required value).
_REQUIRED = (("hidden_act", "silu"), ("attention_bias", False), ("mlp_bias", False), ("use_sliding_window", False))


# Counts of config.json, and numbers above 0; who leaves one out, or null, means a default.
_COUNTS = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "intermediate_size",
    "max_position_embeddings",
    "num_local_experts",
    "num_experts_per_tok",
    "sliding_window",
)
_NUMBERS = ("rope_theta", "rms_norm_eps")
_MOST = 2**24  # of anything in a model; the longest contexts are of 10 million tokens


def check_sizes(hf: dict, where: str) -> None:
    """Checks the sizes that a config.json gives, before anything is made of them.

    Raises:
      UserError: one is of another type, or absurd.
    """
    rope = hf.get("rope_parameters") or hf.get("rope_scaling") or {}
    wrong = misfit(rope, {}) and "rope_parameters is no object"
    for content, keys in ((hf, (*_COUNTS, *_NUMBERS)), (rope if not wrong else {}, ("rope_theta", *_ROPE_KEYS))):
        for key in keys:
            value = content.get(key)
            kind, most = (int, _MOST) if key in _COUNTS else (int | float, float("inf"))
            if value is not None and (misfit(value, kind) or not 0 < value <= most or value == float("inf")):
                wrong = wrong or f"{key} is {value!r:.40}"
    if tied := misfit(hf.get("tie_word_embeddings", False), bool | None):
        wrong = wrong or tied.replace("the content", "tie_word_embeddings")
    if wrong:
        raise UserError(f"{where}: {wrong}; this is not a Hugging Face model")


class RopeScaling(NamedTuple):
    """Llama 3.1's stretching of the rotary embedding: slow wavelengths by `factor`, fast ones not, a slope in between."""

    factor: float
    low_frequency: float  # wavelengths above original_positions / this are stretched in full
    high_frequency: float  # wavelengths below original_positions / this are left alone
    original_positions: int  # context before the stretch, tokens


class LowRank(NamedTuple):
    """LoRA (Hu et al. 2021): W x + alpha / rank B A x beside frozen weights W."""

    rank: int
    alpha: float
    targets: tuple[str, ...]  # of the block's projections, see `layers.PROJECTIONS`


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Hashable, so that it can be a static argument of jit. Sizes are counts unless said otherwise."""

    family: str  # key of FAMILIES
    vocab_size: int  # V
    d_model: int  # D, model width
    n_layers: int
    n_heads: int  # H, query heads
    n_kv_heads: int  # K, key and value heads; H / K query heads share one (grouped-query attention)
    head_dim: int
    d_ff: int  # F, hidden width of SwiGLU
    max_positions: int  # longest sequence, tokens
    n_experts: int = 0  # E, SwiGLUs a layer of which a router chooses; 0: one, and no router
    experts_per_token: int = 0  # how many it chooses
    rope_theta: float = 10000.0  # base wavelength of the rotary embedding
    rope_scaling: RopeScaling | None = None
    query_bias: bool = False  # biases of the query, key and value projections (Qwen 2)
    query_norm: bool = False  # RMSNorm of each head's queries and keys (Qwen 3)
    norm_epsilon: float = 1e-5
    tie_embeddings: bool = False
    sliding_window: int | None = None  # a token sees this many latest positions, itself included; None: all
    # No matter of the stored model: who computes attention, one of `kernels.BACKENDS`, and what is trained beside it.
    attention: str = "xla"
    adapter: LowRank | None = None

    @property
    def low_rank(self) -> LowRank:
        """The adapters of a model that has some."""
        if self.adapter is None:
            raise ValueError("the model has no adapters")
        return self.adapter

    @classmethod
    def from_hf(cls, hf: dict, where: str) -> "ModelConfig":
        """Reads config.json (transformers 4 and 5 layouts).

        Raises:
          UserError: an architecture or option this decoder does not compute, or a missing size.
        """
        family = hf.get("model_type")
        if family not in FAMILIES:
            raise UserError(f"{where}: model_type {family!r} is not supported; use one of {', '.join(FAMILIES)}")
        for key, required in _REQUIRED:
            if hf.get(key, required) != required:
                raise UserError(f"{where}: {key}={hf[key]!r} is not supported, only {required!r}; use another model")
        check_sizes(hf, where)
        # transformers 5 moved rope_theta and rope_scaling into rope_parameters.
        rope = hf.get("rope_parameters") or hf.get("rope_scaling") or {}
        try:
            config = cls(
                family=family,
                vocab_size=hf["vocab_size"],
                d_model=hf["hidden_size"],
                n_layers=hf["num_hidden_layers"],
                n_heads=hf["num_attention_heads"],
                n_kv_heads=hf.get("num_key_value_heads") or hf["num_attention_heads"],
                head_dim=hf.get("head_dim") or hf["hidden_size"] // hf["num_attention_heads"],
                d_ff=hf["intermediate_size"],
                max_positions=hf["max_position_embeddings"],
                n_experts=hf["num_local_experts"] if family == "mixtral" else 0,
                experts_per_token=hf["num_experts_per_tok"] if family == "mixtral" else 0,
                rope_theta=float(rope.get("rope_theta", hf.get("rope_theta", 10000.0))),
                rope_scaling=_rope_scaling(rope, where),
                query_bias=family == "qwen2",
                query_norm=family == "qwen3",
                norm_epsilon=hf.get("rms_norm_eps", 1e-6),
                tie_embeddings=bool(hf.get("tie_word_embeddings", False)),
                sliding_window=hf.get("sliding_window") if family in WINDOWED else None,
            )
        except KeyError as missing:
            raise UserError(f"{where}: key {missing} is missing; this is not a complete Hugging Face model") from None
        for holds, wrong in (
            (config.n_heads % config.n_kv_heads == 0, "num_key_value_heads does not divide num_attention_heads"),
            (config.head_dim > 0 and config.head_dim % 2 == 0, "the size of a head is odd or 0"),
            (config.experts_per_token <= config.n_experts, "num_experts_per_tok is above num_local_experts"),
        ):
            if not holds:
                raise UserError(f"{where}: {wrong}; this is not a Hugging Face model")
        return config

    def to_hf(self) -> dict:
        """config.json for a new model (an imported model keeps its own file)."""
        hf = {
            "architectures": [FAMILIES[self.family]],
            "model_type": self.family,
            "vocab_size": self.vocab_size,
            "hidden_size": self.d_model,
            "num_hidden_layers": self.n_layers,
            "num_attention_heads": self.n_heads,
            "num_key_value_heads": self.n_kv_heads,
            "head_dim": self.head_dim,
            "intermediate_size": self.d_ff,
            "max_position_embeddings": self.max_positions,
            # Both spellings: transformers 5 and everything before it.
            "rope_parameters": {"rope_theta": self.rope_theta, **_rope_type(self.rope_scaling)},
            "rope_theta": self.rope_theta,
            "rms_norm_eps": self.norm_epsilon,
            "tie_word_embeddings": self.tie_embeddings,
            "hidden_act": "silu",
            "attention_bias": False,
        }
        if self.rope_scaling:
            hf["rope_scaling"] = _rope_type(self.rope_scaling)
        if self.family in WINDOWED:
            hf["sliding_window"] = self.sliding_window
        if self.n_experts:
            hf |= {"num_local_experts": self.n_experts, "num_experts_per_tok": self.experts_per_token}
        return hf


# RopeScaling's fields in config.json.
_ROPE_KEYS = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")


def _rope_scaling(rope: dict, where: str) -> RopeScaling | None:
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return None
    if kind != "llama3":
        raise UserError(f"{where}: rope type {kind!r} is not supported, only 'default' and 'llama3'; use another model")
    return RopeScaling(*(rope[key] for key in _ROPE_KEYS))


def _rope_type(scaling: RopeScaling | None) -> dict:
    if scaling is None:
        return {"rope_type": "default"}
    return {"rope_type": "llama3", **dict(zip(_ROPE_KEYS, scaling, strict=True))}
