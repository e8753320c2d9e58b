"""Hugging Face model folders: config.json, safetensors (one file or an index of shards), and the tokenizer's files.

Each device's slice of each tensor is read straight from the file into place, one device after the other, so no host holds
unsharded weights. Pickled weights (.bin, .pt) are refused: loading them can run code. export/huggingface.py writes such folders.
"""

import collections
import dataclasses
import functools
import json
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy

from sami_jax.data.shape import read_shaped
from sami_jax.errors import UserError
from sami_jax.ground.terminal import say
from sami_jax.models.config import FAMILIES, ModelConfig, check_sizes
from sami_jax.models.decoder import abstract_params, param_shardings
from sami_jax.models.files import refuse_pointer, weight_files
from sami_jax.models.tensors import (
    INDEX_FILE,
    SINGLE_FILE,
    TENSORS,
    Place,
    leaves,
    numbered,
    places,
    stacked,
    to_hf_layout,
)
from sami_jax.quantization.blocks import forms, placed

# Dtypes of safetensors files that are read.
_DTYPES = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}

_EMBEDDING, _HEAD = TENSORS[("embedding",)][0], TENSORS[("unembedding",)][0]
_MAPPED_BYTES = 2**22  # of a file are mapped at a time
_ROWS = 16  # of a tensor are turned into columns at a time: in float32, a cache line of each column


def read_config(folder: Path) -> ModelConfig:
    """Reads and checks config.json of a model folder.

    Raises:
      UserError: no such folder, no readable config.json, or a model this decoder does not compute.
    """
    from transformers import AutoConfig  # heavy import, and only its defaults for absent keys are wanted

    file = folder / "config.json"
    if not folder.is_dir():
        raise UserError(f"{folder}: no such model folder; give a folder in Hugging Face format")
    if not file.is_file():
        raise UserError(f"{folder}: config.json is missing; give a folder in Hugging Face format")
    raw = read_shaped(file, {"model_type": str}, "export the model again")
    if raw["model_type"] not in FAMILIES:
        return ModelConfig.from_hf(raw, str(file))  # raises, naming the model type
    check_sizes(raw, str(file))
    try:
        filled = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)  # nosec B615
    except Exception as error:  # its checks raise many types
        raise UserError(f"{file}: not a readable config.json ({_first_line(error)}); export the model again") from None
    return ModelConfig.from_hf(raw | filled.to_dict(), str(file))


def tied_as_stored(folder: Path, config: ModelConfig) -> ModelConfig:
    """The config as transformers follows it: embedding and unembedding are not tied where the weights hold both, and they differ.

    Raises:
      UserError: as `check_weights`.
    """
    files = _Files(folder)
    embedding, head = files.find(_EMBEDDING), files.find(_HEAD)
    if not config.tie_embeddings or embedding is None or head is None or embedding.same(head):
        return config
    say(
        f"WARNING: {folder}: config.json ties {_HEAD} to {_EMBEDDING}, but both are stored, and differ: they are not tied"
    )
    return dataclasses.replace(config, tie_embeddings=False)


def check_weights(folder: Path, config: ModelConfig) -> "_Files":
    """Checks, by reading headers only, that every tensor is there with its shape; the files.

    Raises:
      UserError: pickled weights, a missing or damaged file, a missing tensor, or one of another shape.
    """
    files = _Files(folder)
    for path, leaf in leaves(abstract_params(config)):
        files.check(path, leaf.shape, config)
    return files


def load_params(folder: Path, config: ModelConfig, mesh: jax.sharding.Mesh, dtype, held: str = "") -> dict:
    """Reads the weights into their shards on `mesh`, cast to `dtype`, or what `held`, as `config.lora.base`, makes of them."""
    how = forms(abstract_params(config), param_shardings(config, mesh), dtype, held)
    return placed(how, reader(folder, config))


def reader(folder: Path, config: ModelConfig) -> Callable[..., np.ndarray]:
    """(keys of a weight, ranges of its dimensions, dtype) -> that part of it, read from the files of a folder."""
    files = check_weights(folder, config)
    return lambda keys, ranges, dtype: files.read(keys, ranges, config, dtype)


@functools.lru_cache
def _places(config: ModelConfig) -> dict[tuple[str, ...], Place]:
    return places(config.family, abstract_params(config))


class _Files:
    """The safetensors files of a folder."""

    def __init__(self, folder: Path):
        """
        Raises:
          UserError: pickled weights, or a missing or damaged file.
        """
        self.folder = folder
        self.tensors: dict[str, list[_Stored]] = collections.defaultdict(list)
        for path in weight_files(folder):
            if path.parent != self.folder or not _is_file(path):
                raise UserError(f"{path}: weights file is missing; download the model again")
            refuse_pointer(path)
            try:
                with safetensors.safe_open(path, framework="np"):  # checks that the file is whole
                    tensors = _tensors(path)
            except Exception as error:  # safetensors raises its own type, and OSError
                raise UserError(
                    f"{path}: damaged weights file ({_first_line(error)}); download the model again"
                ) from None
            for name, tensor in tensors.items():
                self.tensors[name].append(tensor)

    def find(self, name: str) -> "_Stored | None":
        """A tensor by its name, or with "model." missing or doubled, as transformers finds it too.

        Raises:
          UserError: it is there more than once, and not the same.
        """
        spellings = dict.fromkeys((name, f"model.{name}", name.removeprefix("model.")))
        found = [tensor for spelling in spellings if spelling in self.tensors for tensor in self.tensors[spelling]]
        for other in found[1:]:
            if not found[0].same(other):
                files = " and ".join(dict.fromkeys((found[0].path.name, other.path.name)))
                raise UserError(
                    f"{self.folder}: {files}: two tensors {name}, which differ; remove the one that is not the model's"
                )
        return found[0] if found else None

    def _stored(self, name: str, config: ModelConfig) -> "_Stored":
        """
        Raises:
          UserError: no such tensor.
        """
        tied = config.tie_embeddings and name == _EMBEDDING
        if stored := self.find(name) or (self.find(_HEAD) if tied else None):
            return stored
        others = [found for found in self.tensors if found.endswith(f".{name}")]
        held = f", but {others[0]}: the names have a beginning too much" if others else ""
        both = all((self.folder / file).is_file() for file in (SINGLE_FILE, INDEX_FILE))
        chosen = f"; {SINGLE_FILE} is read, as transformers does, and not what {INDEX_FILE} names" if both else ""
        raise UserError(
            f"{self.folder}: tensor {name} is missing{held}; this is not a complete {config.family} model{chosen}"
        )

    def check(self, keys: tuple[str, ...], shape: tuple[int, ...], config: ModelConfig) -> None:
        name, _, _, expected = _places(config)[keys]
        leading = stacked(name)
        for place in np.ndindex(shape[:leading]):
            tensor = numbered(name, place)
            found = self._stored(tensor, config)
            if found.shape != expected:
                raise UserError(
                    f"{self.folder}: tensor {tensor} has shape {found.shape}, config.json asks for {expected}"
                )
            if found.dtype not in _DTYPES:
                raise UserError(
                    f"{self.folder}: tensor {tensor} is stored as {found.dtype}, not as one of {', '.join(_DTYPES)}; convert the model"
                )

    def read(self, keys: tuple[str, ...], ranges: Sequence[range], config: ModelConfig, dtype) -> np.ndarray:
        """These ranges of our weight, read as slices of the files' tensors, one at a time."""
        name, layout, first, _ = _places(config)[keys]
        leading = stacked(name)
        weight = np.empty([len(part) for part in ranges], dtype)
        rows, *others = _hf_slices(ranges[leading:], layout, config.head_dim)
        cuts = slice(rows.start + first, rows.stop + first), *others
        for place in np.ndindex(weight.shape[:leading]):
            numbers = [part[i] for part, i in zip(ranges, place, strict=False)]
            self._stored(numbered(name, numbers), config).read_into(to_hf_layout(weight[place], layout), cuts)
        return weight


@dataclasses.dataclass(frozen=True)
class _Stored:
    """Where a tensor lies in a file."""

    path: Path
    dtype: str  # as safetensors name it
    shape: list[int]
    offset: int  # bytes

    def read_into(self, target: np.ndarray, cuts: tuple[slice, ...]) -> None:
        """target[...] = tensor[cuts]."""
        for first, rows in self._mapped(cuts[0].start, cuts[0].stop):
            for row in range(0, len(rows), _ROWS):
                into = target[first - cuts[0].start + row :][: min(_ROWS, len(rows) - row)]
                into[...] = rows[row : row + _ROWS, *cuts[1:]]

    def same(self, other: "_Stored") -> bool:
        """Whether another tensor has the same values."""
        known = self.dtype in _DTYPES and other.dtype in _DTYPES and all(self.shape)
        if self.shape != other.shape or not self.shape or not known:
            return False
        parts = zip(self._mapped(0, self.shape[0]), other._mapped(0, self.shape[0], self._step()), strict=True)
        return all(np.array_equal(one, another) for (_, one), (_, another) in parts)

    def _mapped(self, start: int, stop: int, step: int | None = None) -> Iterator[tuple[int, np.ndarray]]:
        """Rows of the tensor, with the number of the first, some after the others, so that little of the file is mapped at once."""
        dtype = np.dtype(_DTYPES[self.dtype])
        row_bytes = math.prod(self.shape[1:]) * dtype.itemsize
        step = step or self._step()
        for first in range(start, stop, step):
            shape = (min(first + step, stop) - first, *self.shape[1:])
            yield first, np.memmap(self.path, dtype, "r", self.offset + first * row_bytes, shape)

    def _step(self) -> int:
        return max(1, _MAPPED_BYTES // (math.prod(self.shape[1:]) * np.dtype(_DTYPES[self.dtype]).itemsize))


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that no file can have
        return False


def _tensors(path: Path) -> dict[str, _Stored]:
    """What the header of a safetensors file says: its length in 8 bytes, then JSON, then the data."""
    with open(path, "rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(length))
    header.pop("__metadata__", None)
    return {
        name: _Stored(path, tensor["dtype"], tensor["shape"], 8 + length + tensor["data_offsets"][0])
        for name, tensor in header.items()
    }


def _hf_slices(ranges: Sequence[range], layout: str, head_dim: int) -> tuple[slice, ...]:
    """The part of a tensor of the file that holds these ranges of one layer's weight in our layout."""

    def heads(part: range) -> slice:
        return slice(part.start * head_dim, part.stop * head_dim)

    if layout == "heads_out":
        parts = heads(ranges[1]), ranges[0]
    elif layout == "heads_in":
        parts = ranges[2], heads(ranges[0])
    elif layout == "heads":
        parts = (heads(ranges[0]),)
    else:
        parts = reversed(ranges) if layout == "transposed" else ranges
    return tuple(slice(part.start, part.stop) for part in parts)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
