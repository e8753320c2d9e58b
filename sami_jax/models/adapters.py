"""Low-rank adapters (LoRA, Hu et al. 2021, arXiv 2106.09685): trained beside weights that stay as they are."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from sami_jax.data.jsonl import write_json
from sami_jax.data.shape import NUMBER, read_shaped
from sami_jax.errors import UserError
from sami_jax.models.config import LowRank, ModelConfig
from sami_jax.models.decoder import abstract_params, init_params, param_shardings
from sami_jax.models.huggingface import check_weights, read_config
from sami_jax.models.stack import joined, part

LEAVES = ("lora_a", "lora_b")
TARGETS = ("query", "key", "value", "output", "gate", "up", "down")  # projections that may have an adapter
RECORD = "adapter.json"  # beside a stage's checkpoints: what its adapters belong to
CONTENT = {"base": str, "adapter": {"rank": int, "alpha": NUMBER, "targets": [str]}}


def adapted(config: ModelConfig, lora: ConfigDict) -> ModelConfig:
    """The model with the adapters that the `lora` part of a run's config asks for, or as it is.

    Raises:
      UserError: a target that the model does not have.
    """
    if not lora.rank:
        return config
    with_all = dataclasses.replace(config, adapter=LowRank(lora.rank, lora.alpha, TARGETS))
    blocks = _only_adapters(abstract_params(with_all))["blocks"]
    present = [name for name in TARGETS if any(name in kind for kind in blocks.values())]
    if missing := [name for name in lora.targets if name not in present]:
        experts = ", whose experts have no adapters" if config.n_experts else ""
        raise UserError(
            f"config.lora.targets: not in this model{experts}: {', '.join(missing)}; choose of {', '.join(present)}, or () for all of them"
        )
    targets = tuple(name for name in present if name in (lora.targets or present))
    return dataclasses.replace(config, adapter=LowRank(lora.rank, lora.alpha, targets))


def trained(config: ModelConfig, tree: dict) -> dict:
    """Of a tree like the params: the part that is trained, adapters if there are any, else everything."""
    return tree if config.adapter is None else part(tree, _only_adapters(abstract_params(config)))


def init_adapters(config: ModelConfig, seed: int, mesh: jax.sharding.Mesh, dtype) -> dict:
    """Fresh adapters in their shards: they change nothing yet."""
    adapters = init_params(config, seed, mesh, lambda params: trained(config, params))
    return jax.tree.map(lambda weight: weight.astype(dtype), adapters)


def folded(config: ModelConfig, frozen: dict, adapters: dict, mesh: jax.sharding.Mesh) -> dict:
    """W + alpha / rank A B in float32: the params of the model without adapters, in their shards."""

    def fold(tree: dict) -> dict:
        if "lora_a" in tree:
            scale = config.low_rank.alpha / config.low_rank.rank
            product = jax.vmap(lambda a, b: jnp.tensordot(a, b, 1))(tree["lora_a"], tree["lora_b"])
            tree = {**tree, "weight": tree["weight"].astype(jnp.float32) + scale * product}
        return {
            key: fold(value) if isinstance(value, dict) else value for key, value in tree.items() if key not in LEAVES
        }

    shardings = param_shardings(dataclasses.replace(config, adapter=None), mesh)
    return jax.jit(lambda frozen, adapters: fold(joined(frozen, adapters)), out_shardings=shardings)(frozen, adapters)


def write_record(folder: Path, config: ModelConfig, base: Path) -> None:
    """Notes beside checkpoints, which hold the adapters alone, the model that they are to be merged into: `base`."""
    write_json(folder / RECORD, {"base": str(base.resolve()), "adapter": config.low_rank._asdict()})


def read_record(folder: Path, config: ModelConfig) -> tuple[ModelConfig, Path]:
    """What `write_record` noted: the model with its adapters, and where their base is; without a record, `config` and `folder`.

    Args:
      config: of the model being trained.
    Raises:
      UserError: the base model is not where it was, or is another one.
    """
    file = folder / RECORD
    if not file.exists():
        return config, folder
    record = read_shaped(file, CONTENT, "restore it, as the run wrote it")
    rank, alpha, targets = (record["adapter"][name] for name in LowRank._fields)
    if not (rank > 0 and set(targets) <= set(TARGETS)):
        raise UserError(f"{file}: no adapters of this model; restore it, as the run wrote it")
    base = Path(record["base"])
    if not base.is_dir():
        raise UserError(f'{file}: the base model {base} is not there; put its new place under "base"')
    if read_config(base) != config:
        raise UserError(
            f'{file}: {base} is not the model that these adapters belong to; put the right one under "base"'
        )
    check_weights(base, config)
    return dataclasses.replace(config, adapter=LowRank(rank, alpha, tuple(targets))), base


def _only_adapters(tree: dict) -> dict:
    kept = {key: _only_adapters(value) if isinstance(value, dict) else value for key, value in tree.items()}
    return {key: value for key, value in kept.items() if key in LEAVES or (isinstance(value, dict) and value)}
