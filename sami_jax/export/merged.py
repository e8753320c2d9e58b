"""A model that adapters are merged into: W + alpha / rank A B in float32, of the weights that the base's files hold, a layer at a time,
so that the whole lies in no memory. What the run computed with, rounded or quantized, is not asked."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from sami_jax.models.config import ModelConfig
from sami_jax.models.decoder import abstract_params, param_shardings
from sami_jax.models.huggingface import reader
from sami_jax.quantization.blocks import forms, placed


@dataclasses.dataclass(frozen=True)
class Stored:
    """A weight that is made where a part of it is asked for, `weight[layer, ...]`; `weight[()]` is all of one that has no layers."""

    shape: tuple[int, ...]
    dtype: np.dtype
    layer: Callable[[int | None], jax.Array]

    def __getitem__(self, place: tuple[int, ...]) -> jax.Array:
        return self.layer(place[0])[place[1:]] if place else self.layer(None)


def stored(folder: Path, config: ModelConfig, mesh: jax.sharding.Mesh, dtype) -> dict:
    """The params of a model folder without adapters, each read into its shards on `mesh` a layer at a time, cast to `dtype`."""
    read = reader(folder, config)
    tree = forms(abstract_params(config), param_shardings(config, mesh), jnp.dtype(dtype))

    def weight(path, form) -> Stored:
        keys = tuple(key.key for key in path)

        def layer(number: int | None) -> jax.Array:
            if number is None:
                return placed(form, lambda _, ranges, dtype: read(keys, ranges, dtype))
            one = jax.ShapeDtypeStruct((1, *form.shape[1:]), form.dtype, sharding=form.sharding)
            here = range(number, number + 1)
            return placed(one, lambda _, ranges, dtype: read(keys, [here, *ranges[1:]], dtype))[0]

        return Stored(form.shape, form.dtype, layer)

    return jax.tree_util.tree_map_with_path(weight, tree)


def merged(folder: Path, config: ModelConfig, adapters: dict, mesh: jax.sharding.Mesh) -> dict:
    """The params of the model without adapters, `export` takes them so.

    Args:
      folder: of the base.
      config: with the adapters.
    """
    scale = config.low_rank.alpha / config.low_rank.rank

    @jax.jit
    def sum_of(weight: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
        return weight + scale * jnp.tensordot(a.astype(jnp.float32), b.astype(jnp.float32), 1)

    def with_adapters(base: dict, own: dict) -> dict:
        if "lora_a" in own:
            before, a, b = base["weight"], own["lora_a"], own["lora_b"]
            after = lambda number: sum_of(before.layer(number), a[number], b[number])  # noqa: E731
            return base | {"weight": dataclasses.replace(before, layer=after)}
        return base | {key: with_adapters(base[key], value) for key, value in own.items()}

    return with_adapters(stored(folder, dataclasses.replace(config, adapter=None), mesh, "float32"), adapters)


def unchanged_share(adapters: dict, base: dict, other: dict) -> float:
    """The share of the weights that have an adapter which are the same in both, to the last bit.

    Args:
      base, other: of whole models, by `stored` in one dtype.
    """
    places = [(kind, name) for kind, own in adapters["blocks"].items() for name in own]
    pairs = [[tree["blocks"][kind][name]["weight"] for tree in (base, other)] for kind, name in places]
    equal = jax.jit(lambda one, two: jnp.mean(one == two, dtype=jnp.float32))
    shares = [[equal(one[layer,], two[layer,]) for layer in range(one.shape[0])] for one, two in pairs]
    return float(np.average(np.mean(jax.device_get(shares), axis=1), weights=[np.prod(one.shape) for one, _ in pairs]))
