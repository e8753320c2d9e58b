"""Writes adapters as the library `peft` reads them."""

from pathlib import Path

import numpy as np
import safetensors.numpy

from sami_jax.data.jsonl import write_json
from sami_jax.ground import hosts
from sami_jax.models.adapters import LEAVES
from sami_jax.models.config import ModelConfig
from sami_jax.models.peft import RECORD, WEIGHTS, tensor_name
from sami_jax.sharding import gathered


def export_adapters(config: ModelConfig, adapters: dict, base: Path, output: Path) -> None:
    """Writes a folder that `peft` loads: adapter_model.safetensors and adapter_config.json.

    Args:
      base: the model that the adapters belong to.
    """
    tensors = {}
    for kind, projections in adapters["blocks"].items():
        for name, pair in projections.items():
            a, b = (gathered(pair[leaf]).astype(np.float32) for leaf in LEAVES)
            for layer in range(config.n_layers):
                rank = config.low_rank.rank
                for leaf, flat in zip(LEAVES, (a[layer].reshape(-1, rank), b[layer].reshape(rank, -1)), strict=True):
                    tensors[tensor_name(kind, name, layer, leaf)] = np.ascontiguousarray(flat.T)

    def write() -> None:
        output.mkdir(parents=True, exist_ok=True)
        safetensors.numpy.save_file(tensors, output / WEIGHTS, {"format": "pt"})

    hosts.once(write)
    content = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": str(base.resolve()),
        "r": config.low_rank.rank,
        "lora_alpha": config.low_rank.alpha,
        "target_modules": sorted({tensor.split(".")[-3] for tensor in tensors}),
        "bias": "none",
        "inference_mode": True,
    }
    write_json(output / RECORD, content)
