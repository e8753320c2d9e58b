"""The shape of a decoder, read from and written to a Hugging Face config.json."""

import dataclasses

from sami_jax.errors import UserError

FAMILIES = {"llama": "LlamaForCausalLM", "mistral": "MistralForCausalLM"}

# Switches of config.json that change the computation and that this decoder does not compute: (key, required value).
_REQUIRED = (("hidden_act", "silu"), ("attention_bias", False), ("mlp_bias", False))


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
    d_ff: int  # hidden width of SwiGLU
    max_positions: int  # longest sequence, tokens
    rope_theta: float = 10000.0  # base wavelength of the rotary embedding
    norm_epsilon: float = 1e-5
    tie_embeddings: bool = False
    sliding_window: int | None = None  # a token sees this many latest positions, itself included; None: all
    attention: str = (
        "xla"  # who computes it, one of `kernels.BACKENDS`; no matter of shape, and not stored with the weights
    )

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
        # transformers 5 moved rope_theta and rope_scaling into rope_parameters.
        rope = hf.get("rope_parameters") or hf.get("rope_scaling") or {}
        kind = rope.get("rope_type", rope.get("type", "default"))
        if kind != "default":
            raise UserError(f"{where}: rope type {kind!r} is not supported, only 'default'; use another model")
        try:
            return cls(
                family=family,
                vocab_size=hf["vocab_size"],
                d_model=hf["hidden_size"],
                n_layers=hf["num_hidden_layers"],
                n_heads=hf["num_attention_heads"],
                n_kv_heads=hf.get("num_key_value_heads") or hf["num_attention_heads"],
                head_dim=hf.get("head_dim") or hf["hidden_size"] // hf["num_attention_heads"],
                d_ff=hf["intermediate_size"],
                max_positions=hf["max_position_embeddings"],
                rope_theta=float(rope.get("rope_theta", hf.get("rope_theta", 10000.0))),
                norm_epsilon=hf.get("rms_norm_eps", 1e-6),
                tie_embeddings=bool(hf.get("tie_word_embeddings", False)),
                sliding_window=hf.get("sliding_window") if family == "mistral" else None,
            )
        except KeyError as missing:
            raise UserError(f"{where}: key {missing} is missing; this is not a complete Hugging Face model") from None

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
            "rope_parameters": {"rope_type": "default", "rope_theta": self.rope_theta},
            "rope_theta": self.rope_theta,
            "rms_norm_eps": self.norm_epsilon,
            "tie_word_embeddings": self.tie_embeddings,
            "hidden_act": "silu",
            "attention_bias": False,
        }
        if self.family == "mistral":
            hf["sliding_window"] = self.sliding_window
        return hf
