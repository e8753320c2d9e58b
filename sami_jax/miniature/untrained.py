"""A small random model with a byte-level tokenizer: reads any text, knows nothing. For smoke runs and tests."""

from pathlib import Path

import jax
import tokenizers

from sami_jax.export.huggingface import export
from sami_jax.models.config import ModelConfig
from sami_jax.models.decoder import init_params
from sami_jax.sharding import make_mesh

RANDOM_BYTES, RANDOM_MIXTURE = "random-bytes", "random-bytes-mixture"
# Name, as `config.model.path` gives it -> what sets its shape apart.
UNTRAINED = {
    RANDOM_BYTES: dict(family="mistral"),
    RANDOM_MIXTURE: dict(family="mixtral", n_experts=4, experts_per_token=2),
}
END = "</s>"
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


def write_random_bytes_model(folder: Path, max_positions: int, seed: int, name: str = RANDOM_BYTES) -> None:
    """Writes a model folder, Mistral- or Mixtral-shaped, of 0.1 or 0.3 M parameters, whose tokens are bytes.

    Args:
      name: key of UNTRAINED.
    """
    import transformers  # heavy

    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([END, *alphabet])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, merges=[]))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    config = ModelConfig(
        vocab_size=len(vocabulary),
        d_model=64,
        n_layers=2,
        n_heads=4,
        n_kv_heads=2,
        head_dim=16,
        d_ff=128,
        max_positions=max_positions,
        sliding_window=512,
        **UNTRAINED[name],
    )
    params = init_params(config, seed, make_mesh({}, jax.local_devices()[:1]))
    words = {"eos_token": END, "pad_token": END, "chat_template": CHAT_TEMPLATE}
    saved = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **words)
    export(params, config, folder, saved.save_pretrained)
