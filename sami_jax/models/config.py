"""The shape of a decoder, read from and written to a Hugging Face config.json."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

from sami_jax.data.shape import misfit
from sami_jax.errors import UserError
from sami_jax.models.families import FAMILIES, Family

# Counts of config.json, and numbers above 0; who leaves one out, or null, means a default.
_COUNTS = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "intermediate_size",
    "moe_intermediate_size",
    "max_position_embeddings",
    "original_max_position_embeddings",
    "num_local_experts",
    "num_experts",
    "num_experts_per_tok",
    "sliding_window",
)
_NUMBERS = (
    "rope_theta",
    "rope_local_base_freq",
    "partial_rotary_factor",
    "rms_norm_eps",
    "query_pre_attn_scalar",
    "attn_logit_softcapping",
    "final_logit_softcapping",
)
# Switches of config.json that change the computation and that this decoder does not compute, and the value that it does.
_REQUIRED = {"hidden_act": "silu", "attention_bias": False, "mlp_bias": False, "use_sliding_window": False}
_MOST = 2**24  # of anything in a model; the longest contexts are of 10 million tokens


def check_sizes(hf: dict, where: str) -> None:
    """Checks the sizes that a config.json gives, before anything is made of them.

    Raises:
      UserError: one is of another type, or absurd.
    """
    found = hf.get("rope_parameters") or hf.get("rope_scaling") or {}
    ropes = [found, *(found[kind] for kind in _LAYER_TYPES if kind in found)] if isinstance(found, dict) else [found]
    wrong = any(misfit(rope, {}) for rope in ropes) and "rope_parameters is no object"
    for content, keys in ((hf, (*_COUNTS, *_NUMBERS)), *((rope, ROPE_NUMBERS) for rope in ropes if not wrong)):
        for key in keys:
            value = content.get(key)
            kind, most = (int, _MOST) if key in _COUNTS else (int | float, float("inf"))
            if value is not None and (misfit(value, kind) or not 0 < value <= most or value == float("inf")):
                wrong = wrong or f"{key} is {value!r:.40}"
    for key, kind in (("layer_types", [str]), ("no_rope_layers", [int]), ("norm_topk_prob", bool)):
        if hf.get(key) is not None and misfit(hf[key], kind):
            wrong = wrong or f"{key} is {hf[key]!r:.60}"
    if not wrong and not set(hf.get("layer_types") or ()) <= set(_LAYER_TYPES):
        wrong = f"layer_types is {hf['layer_types']!r:.60}"
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


class LongRope(NamedTuple):
    """LongRoPE (arXiv 2402.13753) within the context before its stretch: behind that, other factors would hold for a whole text."""

    factors: tuple[float, ...]  # by which each wavelength is stretched
    magnitude: float  # of the turned queries and keys


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
    renormalized: bool = True  # their weights add up to 1; else they are what the router gives each among all
    rope_theta: float = 10000.0  # base wavelength of the rotary embedding
    rope_scaling: RopeScaling | LongRope | None = None
    rotary_share: float = 1.0  # of each head, its first dimensions, that are turned
    rope_layers: tuple[bool, ...] = ()  # whether each layer turns queries and keys; (): all do
    query_bias: bool = False  # biases of the query, key and value projections (Qwen 2)
    query_norm: str = (
        ""  # RMSNorm of queries and keys: of each "head" (Qwen 3), or of all heads together, "width" (OLMo 2)
    )
    query_scalar: float | None = None  # scores are divided by its root; None: of head_dim
    attention_cap: float | None = None  # c, soft cap of scores: c tanh(score / c) (Gemma 2)
    logit_cap: float | None = None  # likewise of logits
    norms: str = "before"  # where a block norms: "before" attention and MLP, "behind" them (OLMo 2), or "both" (Gemma)
    norm_offset: bool = False  # norms multiply by 1 + w instead of w (Gemma)
    norm_epsilon: float = 1e-5
    activation: str = "silu"  # of the gate; or "gelu_tanh"
    embedding_scale: bool = False  # embeddings are multiplied by the root of d_model (Gemma)
    tie_embeddings: bool = False
    sliding_window: int | None = None  # a token sees this many latest positions, itself included; None: all
    local: tuple[bool, ...] = ()  # whether each layer is local: has that window, and the other ones none; (): all alike
    local_theta: float | None = None  # rope_theta of local layers, without scaling; None: as the others
    # No matter of the stored model: who computes attention, one of `kernels.BACKENDS`, and what is trained beside it.
    attention: str = "xla"
    adapter: LowRank | None = None

    def __post_init__(self):
        if self.attention_cap and self.attention != "xla":
            raise UserError(
                f"config.model.attention={self.attention!r}: knows no soft cap of attention's scores, which this {self.family} model has; use 'xla'"
            )

    @property
    def windows(self) -> tuple[int | None, ...]:
        """Each layer's."""
        local = self.local or (True,) * self.n_layers
        return tuple(self.sliding_window if here else None for here in local)

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
        family = _family(hf, where)
        check_sizes(hf, where)
        try:
            rope, near = _ropes(hf)
            longest, scaling = _rope_scaling(rope, hf, where)
            config = cls(
                family=hf["model_type"],
                vocab_size=hf["vocab_size"],
                d_model=hf["hidden_size"],
                n_layers=hf["num_hidden_layers"],
                n_heads=hf["num_attention_heads"],
                n_kv_heads=hf.get("num_key_value_heads") or hf["num_attention_heads"],
                head_dim=hf.get("head_dim") or hf["hidden_size"] // hf["num_attention_heads"],
                max_positions=longest,
                rope_theta=float(rope.get("rope_theta", hf.get("rope_theta", 10000.0))),
                rope_scaling=scaling,
                local_theta=near,
                norm_epsilon=hf.get("rms_norm_eps", 1e-6),
                tie_embeddings=bool(hf.get("tie_word_embeddings", False)),
                **{field: _READ.get(field, _as_is)(hf, key) for field, key in family.keys.items()},
                **family.switches,
            )
        except KeyError as missing:
            raise UserError(f"{where}: key {missing} is missing; this is not a complete Hugging Face model") from None
        if not config.sliding_window or not any(config.local):
            # Without a local layer there is none, in families that have two kinds.
            window = None if "local" in family.keys else config.sliding_window
            config = dataclasses.replace(config, sliding_window=window, local=(), local_theta=None)
        config._check(where)
        return config

    def _check(self, where: str) -> None:
        by_layer = [own for own in (self.local, self.rope_layers) if own]
        for holds, wrong in (
            (self.n_heads % self.n_kv_heads == 0, "num_key_value_heads does not divide num_attention_heads"),
            (self.head_dim > 0 and self.head_dim % 2 == 0, "the size of a head is odd or 0"),
            (self.experts_per_token <= self.n_experts, "num_experts_per_tok is above num_local_experts"),
            (
                all(len(own) == self.n_layers for own in by_layer),
                "not every layer is told whether it is local or turns",
            ),
            (self.rotary_share <= 1 and self.rotated % 2 == 0, "the part of a head that is turned is odd, or above it"),
            (
                not isinstance(self.rope_scaling, LongRope) or len(self.rope_scaling.factors) == self.rotated // 2,
                "there are not as many rope factors as wavelengths",
            ),
        ):
            if not holds:
                raise UserError(f"{where}: {wrong}; this is not a Hugging Face model")

    @property
    def rotated(self) -> int:
        """Dimensions of a head that are turned."""
        return int(self.head_dim * self.rotary_share)

    def to_hf(self) -> dict:
        """config.json for a new model (an imported model keeps its own file)."""
        family = FAMILIES[self.family]
        rope = {"rope_theta": self.rope_theta, **_rope_type(self)}
        hf = {
            "architectures": [family.architecture],
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
            "rope_parameters": rope,
            "rope_theta": self.rope_theta,
            "rms_norm_eps": self.norm_epsilon,
            "tie_word_embeddings": self.tie_embeddings,
            "hidden_act": "silu",
            "attention_bias": False,
            **family.required,
            **{key: _WRITTEN.get(field, _told)(self, field) for field, key in family.keys.items()},
        }
        if self.rope_scaling:
            hf["rope_scaling"] = _rope_type(self)
        if self.local_theta is not None:
            hf["rope_local_base_freq"] = self.local_theta
            near = {"rope_theta": self.local_theta, "rope_type": "default"}
            hf["rope_parameters"] = dict(zip(_LAYER_TYPES, (near, rope), strict=True))
        return hf


_LAYER_TYPES = ("sliding_attention", "full_attention")
# RopeScaling's fields in config.json.
_ROPE_KEYS = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
ROPE_NUMBERS = ("rope_theta", "partial_rotary_factor", "attention_factor", *_ROPE_KEYS)


def _family(hf: dict, where: str) -> Family:
    name = hf.get("model_type")
    if name not in FAMILIES:
        raise UserError(f"{where}: model_type {name!r} is not supported; use one of {', '.join(FAMILIES)}")
    family = FAMILIES[name]
    for key, required in (_REQUIRED | family.required).items():
        if hf.get(key, required) not in (None, required):
            raise UserError(f"{where}: {key}={hf[key]!r} is not supported, only {required!r}; use another model")
    return family


def _ropes(hf: dict) -> tuple[dict, float | None]:
    """What is said of the rotary embedding: of all layers, or of the global ones, and the rope_theta of local ones that have their own.
    transformers 5 moved rope_theta and rope_scaling into rope_parameters."""
    rope = hf.get("rope_parameters") or hf.get("rope_scaling") or {}
    if "full_attention" in rope:
        return rope["full_attention"], float(rope["sliding_attention"]["rope_theta"])
    return rope, hf.get("rope_local_base_freq")


def _rope_scaling(rope: dict, hf: dict, where: str) -> tuple[int, RopeScaling | LongRope | None]:
    """The longest text, and what makes it as long."""
    kind, longest = rope.get("rope_type", rope.get("type", "default")), hf["max_position_embeddings"]
    if kind == "default":
        return longest, None
    if kind == "longrope":
        return _long_rope(rope, hf, where)
    if kind != "llama3":
        raise UserError(
            f"{where}: rope type {kind!r} is not supported, only 'default', 'llama3' and 'longrope'; use another model"
        )
    return longest, RopeScaling(*(rope[key] for key in _ROPE_KEYS))


def _long_rope(rope: dict, hf: dict, where: str) -> tuple[int, LongRope]:
    key = "original_max_position_embeddings"
    before = rope[key] if key in rope else hf[key]
    factors = rope["short_factor"]
    if misfit(factors, [int | float]) or not all(0 < factor < float("inf") for factor in factors):
        raise UserError(f"{where}: short_factor is {factors!r:.40}; this is not a Hugging Face model")
    magnitude = rope.get("attention_factor")
    if magnitude is None:
        stretch = rope.get("factor") or hf["max_position_embeddings"] / before
        magnitude = 1.0 if stretch <= 1 else math.sqrt(1 + math.log(stretch) / math.log(before))
    return min(before, hf["max_position_embeddings"]), LongRope(tuple(map(float, factors)), float(magnitude))


def _rope_type(config: ModelConfig) -> dict:
    scaling, share = config.rope_scaling, {"partial_rotary_factor": config.rotary_share}
    share = share if config.rotary_share != 1 else {}
    if scaling is None:
        return {"rope_type": "default", **share}
    if isinstance(scaling, RopeScaling):
        return {"rope_type": "llama3", **dict(zip(_ROPE_KEYS, scaling, strict=True))}
    factors = {key: list(scaling.factors) for key in ("short_factor", "long_factor")}
    before = {"original_max_position_embeddings": config.max_positions}
    return {"rope_type": "longrope", **factors, **before, "attention_factor": scaling.magnitude, **share}


def _as_is(hf: dict, key: str):
    return hf[key]


def _of_layers(hf: dict, key: str) -> list:
    return hf[key][: hf["num_hidden_layers"]]  # which may be longer


def _told(config: ModelConfig, field: str):
    return getattr(config, field)


# How a field is read of config.json where it is no number or word that stands there, and how it is written.
_READ: dict[str, Callable[[dict, str], Any]] = {
    "sliding_window": lambda hf, key: hf.get(key),
    "local": lambda hf, key: tuple(kind == _LAYER_TYPES[0] for kind in hf[key]),
    "rope_layers": lambda hf, key: () if all(_of_layers(hf, key)) else tuple(map(bool, _of_layers(hf, key))),
    "rotary_share": lambda hf, key: float((hf.get("rope_parameters") or {}).get(key, hf.get(key) or 1.0)),
    "attention_cap": lambda hf, key: hf.get(key),
    "logit_cap": lambda hf, key: hf.get(key),
    "n_experts": lambda hf, key: hf[key] if key in hf else hf["num_local_experts"],
}
_WRITTEN: dict[str, Callable[[ModelConfig, str], Any]] = {
    "local": lambda config, _: [_LAYER_TYPES[window is None] for window in config.windows],
    "rope_layers": lambda config, _: [int(here) for here in config.rope_layers or (True,) * config.n_layers],
}
