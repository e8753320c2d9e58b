"""Reads low-rank adapters as the library `peft` keeps them, export/peft.py writes them: adapter_config.json, which names the
base model, and adapter_model.safetensors."""

import collections
import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import safetensors
import safetensors.numpy

from sami_jax.data.shape import NUMBER, read_shaped
from sami_jax.errors import UserError
from sami_jax.models.adapters import LEAVES, TARGETS, trained
from sami_jax.models.config import LowRank, ModelConfig
from sami_jax.models.decoder import abstract_params, param_shardings
from sami_jax.models.tensors import Place, places

RECORD, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
CONTENT = {"peft_type": str, "base_model_name_or_path": str, "r": int, "lora_alpha": NUMBER}
# What would have to be computed otherwise, and is not.
_PLAIN = {"use_rslora": False, "use_dora": False, "rank_pattern": {}, "alpha_pattern": {}, "bias": "none"}


def holds_adapters(folder: Path) -> bool:
    """Whether a folder is of adapters, and of no whole model."""
    return (folder / RECORD).is_file() and not (folder / "config.json").is_file()


def base_of(folder: Path) -> Path:
    """The folder of the model that adapters belong to.

    Raises:
      UserError: it is not there.
    """
    base = Path(_record(folder)["base_model_name_or_path"])
    if not base.is_dir():
        raise UserError(
            f'{folder / RECORD}: the base model {base} is not there; put its new place under "base_model_name_or_path"'
        )
    return base


def read_adapter(folder: Path, base: ModelConfig) -> ModelConfig:
    """The base model with the adapters of a folder, checked by headers only.

    Raises:
      UserError: adapters of another kind, or of another model.
    """
    record, file = _record(folder), folder / WEIGHTS
    try:
        with safetensors.safe_open(file, framework="np") as tensors:
            found = {name: list(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
    except Exception as error:  # safetensors raises its own type, and OSError
        raise UserError(f"{file}: cannot be read ({str(error)[:200]}); export the adapters again") from None
    targets, known = [], set()
    for (_, name), tensors in _tensors(with_adapter(base, record, TARGETS)).items():
        shapes = {tensor: shape for layer in tensors for tensor, shape in layer}
        if not shapes.keys() & found.keys():
            continue
        for tensor, shape in shapes.items():
            if found.get(tensor) != shape:
                what = f"has shape {found[tensor]}" if tensor in found else "is missing"
                raise UserError(f"{file}: {tensor} {what}, the base model asks for {shape}; are they of another model?")
        targets.append(name)
        known |= shapes.keys()
    if strange := sorted(found.keys() - known):
        raise UserError(
            f"{file}: {strange[0]} belongs to no projection that may have an adapter here; merge it with peft"
        )
    if not targets:
        raise UserError(f"{file}: holds no adapters; export them again")
    return with_adapter(base, record, [name for name in TARGETS if name in targets])


def load_adapters(folder: Path, config: ModelConfig, mesh: jax.sharding.Mesh, dtype) -> dict:
    """The adapters, cast to `dtype`, in their shards on `mesh`.

    Args:
      config: by `read_adapter`.
    """
    files = safetensors.numpy.load_file(folder / WEIGHTS)
    tensors = _tensors(config)
    first = {(kind, name): place.first for own in modules(config).values() for kind, name, place in own}
    shapes, shardings = (trained(config, tree) for tree in (abstract_params(config), param_shardings(config, mesh)))

    def load(path, shape, sharding):
        kind, name, leaf = (key.key for key in path[1:])
        of_layers = [files[layer[LEAVES.index(leaf)][0]] for layer in tensors[kind, name]]
        if leaf == LEAVES[1]:  # the rows that are this projection's
            rows = slice(first[kind, name], first[kind, name] + math.prod(shape.shape[2:]))
            of_layers = [tensor[rows] for tensor in of_layers]
        whole = np.stack([tensor.T.reshape(shape.shape[1:]) for tensor in of_layers]).astype(dtype)
        return jax.make_array_from_callback(whole.shape, sharding, lambda index: whole[index])

    return jax.tree_util.tree_map_with_path(load, shapes, shardings)


def with_adapter(base: ModelConfig, record: dict, targets) -> ModelConfig:
    return dataclasses.replace(base, adapter=LowRank(record["r"], record["lora_alpha"], tuple(targets)))


class Member(NamedTuple):
    """A projection of ours in a module of a file."""

    kind: str
    name: str
    place: Place  # of its weight


def modules(config: ModelConfig) -> dict[str, list[Member]]:
    """The modules that the adapters belong to, named with {layer}, and whose they are: of several projections where a file holds
    their weights in one tensor."""
    held = places(config.family, abstract_params(dataclasses.replace(config, adapter=None)))
    found = collections.defaultdict(list)
    for kind, own in trained(config, abstract_params(config))["blocks"].items():
        for name in own:
            place = held["blocks", kind, name, "weight"]
            found[place.name.removesuffix(".weight")].append(Member(kind, name, place))
    return found


def tensor_name(module: str, layer: int, leaf: str) -> str:
    """Of the leaf of a module's adapter in a layer."""
    return f"base_model.model.{module.format(layer=layer)}.lora_{leaf[-1].upper()}.weight"


def _tensors(config: ModelConfig) -> dict[tuple[str, str], list[tuple[tuple[str, list[int]], ...]]]:
    """For each projection that has an adapter, by layer: the names of A and B in the file, and their shapes there."""
    rank = config.low_rank.rank

    def of(module: str, place: Place) -> Iterator[tuple[tuple[str, list[int]], ...]]:
        out, into = place.shape
        for layer in range(config.n_layers):
            names = (tensor_name(module, layer, leaf) for leaf in LEAVES)
            yield tuple(zip(names, ([rank, into], [out, rank]), strict=True))

    return {
        (kind, name): list(of(module, place)) for module, own in modules(config).items() for kind, name, place in own
    }


def _record(folder: Path) -> dict:
    file = folder / RECORD
    record = read_shaped(file, CONTENT, "export the adapters again")
    if record["peft_type"] != "LORA" or record["r"] < 1:
        raise UserError(f"{file}: not adapters of low rank (LORA); merge them with peft, and give the whole model")
    for key, plain in _PLAIN.items():
        if (value := record.get(key) or plain) != plain:
            raise UserError(
                f"{file}: {key}={value!r:.60} is not computed here; merge them with peft, and give the whole model"
            )
    return record
