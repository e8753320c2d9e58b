"""A language model in memory: read, written."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from sami_jax.config import SYSTEM
from sami_jax.data.chat import DATE
from sami_jax.errors import UserError
from sami_jax.export.huggingface import companions, export
from sami_jax.ground.paths import path_of
from sami_jax.kernels.attention import BACKENDS
from sami_jax.models.adapters import folded, trained
from sami_jax.models.files import check_replaceable
from sami_jax.models.pretrained import ModelFolder, open_model
from sami_jax.sharding import ALL_DEVICES, make_mesh

DTYPES = ("float32", "bfloat16")


@dataclasses.dataclass(frozen=True)
class Model:
    """A language model in memory."""

    files: ModelFolder  # where it came from: its shape, its tokenizer, the ids that end a text
    params: dict  # weights, in their shards on `mesh`; adapters beside those that they belong to
    mesh: jax.sharding.Mesh

    @property
    def merged(self) -> "Model":
        """The same model without adapters: they are added to its weights, in float32. Computed in bfloat16, it is not quite the same."""
        shape = self.files.config
        if shape.adapter is None:
            return self
        params = folded(shape, self.params, trained(shape, self.params), self.mesh)
        files = dataclasses.replace(self.files, config=dataclasses.replace(shape, adapter=None), adapter=None)
        return dataclasses.replace(self, files=files, params=params)


def load(
    folder: str | Path,
    *,
    dtype: str = "float32",
    attention: str = "xla",
    chat: bool = False,
    date: str = DATE,
    mesh: jax.sharding.Mesh | dict[str, int] | None = None,
) -> Model:
    """Reads a model in Hugging Face format: Llama, Mistral, Mixtral, Qwen 2.5 or Qwen 3.

    Args:
      folder: local, with config.json, safetensors and a tokenizer; or adapters as peft keeps them, beside their base.
      dtype: of the weights in memory and of what is computed with them: float32 | bfloat16.
      attention: xla | cudnn (NVIDIA GPUs) | splash (TPUs).
      chat: ask it by its tokenizer's own chat template, as instruct models want it; the system's message states the constitution.
      date: of a chat, what a template is told that asks for the day, YYYY-MM-DD; the same on every day.
      mesh: devices along "data", "fsdp", "expert" and "tensor", or the mesh of another model; by default the weights are split over
        all devices ("fsdp").
    Raises:
      UserError: no such model, or one that cannot be used; says why.
      NotFinite: a weight is no number.
    """
    check_choice("dtype", dtype, DTYPES)
    check_choice("attention", attention, BACKENDS)
    files = open_model(path_of(folder), attention, ConfigDict({"chat": chat, "system": SYSTEM, "date": date}))
    if not isinstance(mesh, jax.sharding.Mesh):
        mesh = make_mesh(ALL_DEVICES if mesh is None else mesh)
    return Model(files, files.load(mesh, dtype), mesh)


def save(model: Model, folder: str | Path, *, dtype: str = "float32") -> None:
    """Writes a folder in Hugging Face format, which transformers and `load` read; it appears whole or not at all. Adapters are merged.

    Args:
      folder: new, or of an older model, which it replaces.
      dtype: of the weights in the file: float32 | bfloat16.
    Raises:
      UserError: the folder holds something else.
    """
    check_choice("dtype", dtype, DTYPES)
    output = path_of(folder)
    check_replaceable(output)
    whole = model.merged
    export(whole.params, whole.files.config, output, companions(whole.files), jnp.dtype(dtype))


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise UserError(f"{name}={value!r}: must be one of {', '.join(choices)}")
