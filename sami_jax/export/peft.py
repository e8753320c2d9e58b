"""Writes adapters as the library `peft` reads them."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import safetensors.numpy

from sami_jax.data.jsonl import write_json
from sami_jax.ground import hosts
from sami_jax.models.adapters import LEAVES
from sami_jax.models.config import ModelConfig
from sami_jax.models.peft import RECORD, WEIGHTS, Member, modules, tensor_name
from sami_jax.sharding import gathered


def export_adapters(config: ModelConfig, adapters: dict, base: Path, output: Path) -> None:
    """Writes a folder that `peft` loads: adapter_model.safetensors and adapter_config.json.

    Args:
      base: the model that the adapters belong to.
    """
    tensors, by_module = {}, modules(config)
    most = max(map(len, by_module.values()))  # projections in one module, whose ranks stand side by side
    for module, members in by_module.items():
        pairs = _pairs(config, adapters, members, most * config.low_rank.rank)
        for layer, pair in enumerate(pairs):
            tensors |= {tensor_name(module, layer, leaf): tensor for leaf, tensor in zip(LEAVES, pair, strict=True)}

    def write() -> None:
        output.mkdir(parents=True, exist_ok=True)
        safetensors.numpy.save_file(tensors, output / WEIGHTS, {"format": "pt"})

    hosts.once(write)
    content = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": str(base.resolve()),
        "r": most * config.low_rank.rank,
        "lora_alpha": most * config.low_rank.alpha,
        "target_modules": sorted({tensor.split(".")[-3] for tensor in tensors}),
        "bias": "none",
        "inference_mode": True,
    }
    write_json(output / RECORD, content)


def _pairs(
    config: ModelConfig, adapters: dict, members: list[Member], rank: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """A [rank, in] and B [out, rank] of a module in each layer: each projection's own beside the others', and zeros elsewhere."""
    own = config.low_rank.rank
    found = [
        [gathered(adapters["blocks"][kind][name][leaf]).astype(np.float32) for leaf in LEAVES]
        for kind, name, _ in members
    ]
    out, into = members[0].place.shape
    for layer in range(config.n_layers):
        a, b = np.zeros((rank, into), np.float32), np.zeros((out, rank), np.float32)
        for number, (member, (a_own, b_own)) in enumerate(zip(members, found, strict=True)):
            columns = slice(number * own, (number + 1) * own)
            rows = b_own[layer].reshape(own, -1).T
            a[columns] = a_own[layer].reshape(-1, own).T
            b[member.place.first : member.place.first + len(rows), columns] = rows
        yield a, b
