"""Hugging Face model folders: config.json, safetensors (one file or an index of shards), and the tokenizer's files.

Import reads each device's slice of each tensor straight from the file into place, one device after the other, so no host
holds unsharded weights. Export writes one shard at a time, or one on each host. Pickled weights (.bin, .pt) are refused:
loading them can run code.
"""

import collections
import dataclasses
import itertools
import json
import math
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy

from sami_jax import hosts
from sami_jax.data.jsonl import write_json
from sami_jax.data.shape import read_shaped
from sami_jax.errors import UserError
from sami_jax.models.config import FAMILIES, ModelConfig, check_sizes
from sami_jax.models.decoder import abstract_params, param_shardings
from sami_jax.sharding import gathered

INDEX_FILE = "model.safetensors.index.json"
SINGLE_FILE = "model.safetensors"
SIDE_SUFFIXES = (".json", ".model", ".txt", ".jinja", ".tiktoken")  # of files beside weights
TEMPLATES = "additional_chat_templates/*.jinja"  # of tokenizers with several
MAX_SHARD_BYTES = 5 * 2**30  # as transformers splits files

# Our weight -> (tensor name in Hugging Face files, how it is laid out there). Names with {layer} are stacked by layer, those
# with {expert} by layer and expert.
_LAYER = "model.layers.{layer}."
_EXPERT = _LAYER + "block_sparse_moe.experts.{expert}."
_TENSORS = {
    ("embedding",): ("model.embed_tokens.weight", "as_is"),
    ("unembedding",): ("lm_head.weight", "transposed"),
    ("final_norm", "scale"): ("model.norm.weight", "as_is"),
    ("blocks", "attention_norm", "scale"): (_LAYER + "input_layernorm.weight", "as_is"),
    ("blocks", "attention", "query", "weight"): (_LAYER + "self_attn.q_proj.weight", "heads_out"),
    ("blocks", "attention", "key", "weight"): (_LAYER + "self_attn.k_proj.weight", "heads_out"),
    ("blocks", "attention", "value", "weight"): (_LAYER + "self_attn.v_proj.weight", "heads_out"),
    ("blocks", "attention", "output", "weight"): (_LAYER + "self_attn.o_proj.weight", "heads_in"),
    ("blocks", "attention", "query", "bias"): (_LAYER + "self_attn.q_proj.bias", "heads"),
    ("blocks", "attention", "key", "bias"): (_LAYER + "self_attn.k_proj.bias", "heads"),
    ("blocks", "attention", "value", "bias"): (_LAYER + "self_attn.v_proj.bias", "heads"),
    ("blocks", "attention", "query_norm", "scale"): (_LAYER + "self_attn.q_norm.weight", "as_is"),
    ("blocks", "attention", "key_norm", "scale"): (_LAYER + "self_attn.k_norm.weight", "as_is"),
    ("blocks", "mlp_norm", "scale"): (_LAYER + "post_attention_layernorm.weight", "as_is"),
    ("blocks", "mlp", "gate", "weight"): (_LAYER + "mlp.gate_proj.weight", "transposed"),
    ("blocks", "mlp", "up", "weight"): (_LAYER + "mlp.up_proj.weight", "transposed"),
    ("blocks", "mlp", "down", "weight"): (_LAYER + "mlp.down_proj.weight", "transposed"),
    ("blocks", "mlp", "router", "weight"): (_LAYER + "block_sparse_moe.gate.weight", "transposed"),
    ("blocks", "mlp", "gates"): (_EXPERT + "w1.weight", "transposed"),
    ("blocks", "mlp", "ups"): (_EXPERT + "w3.weight", "transposed"),
    ("blocks", "mlp", "downs"): (_EXPERT + "w2.weight", "transposed"),
}


# Dtypes of safetensors files that are read.
_DTYPES = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}

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


def check_weights(folder: Path, config: ModelConfig) -> None:
    """Checks, by reading headers only, that every tensor is there with its shape.

    Raises:
      UserError: pickled weights, a missing or damaged file, a missing tensor, or one of another shape.
    """
    files = _Files(folder)
    for path, leaf in _leaves(abstract_params(config)):
        files.check(path, leaf.shape, config)


def load_params(folder: Path, config: ModelConfig, mesh: jax.sharding.Mesh, dtype) -> dict:
    """Reads the weights into their shards on `mesh`, cast to `dtype`. The host holds one device's part of one weight at a time."""
    files = _Files(folder)

    def load(path, leaf, sharding):
        keys = tuple(key.key for key in path)
        files.check(keys, leaf.shape, config)
        by_part = collections.defaultdict(list)
        for device, index in sharding.addressable_devices_indices_map(leaf.shape).items():
            by_part[tuple(part.indices(size) for part, size in zip(index, leaf.shape, strict=True))].append(device)
        arrays = []
        for part, devices in by_part.items():
            weight = files.read(keys, [range(*bounds) for bounds in part], config, dtype)
            arrays += jax.block_until_ready([jax.device_put(weight, device) for device in devices])
        return jax.make_array_from_single_device_arrays(leaf.shape, sharding, arrays)

    return jax.tree_util.tree_map_with_path(load, abstract_params(config), param_shardings(config, mesh))


def export(
    params: dict,
    config: ModelConfig,
    output: Path,
    write_companions: Callable[[Path], object],
    dtype=None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """Writes a Hugging Face model folder that appears whole or not at all.

    Args:
      params: weights on any devices.
      write_companions: puts the tokenizer and other small files into the folder it is given: `copy_companions` of the
        model this one came from, or a tokenizer's `save_pretrained`. A config.json it puts there is kept.
      dtype: of the file's tensors; None keeps that of `params`.
    """
    partial = output.with_name(output.name + ".partial")

    def begin() -> None:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        write_companions(partial)

    def finish() -> None:
        file = partial / "config.json"
        hf = json.loads(file.read_text(encoding="utf-8")) if file.exists() else config.to_hf()
        hf.pop("torch_dtype", None)  # the name of `dtype` before transformers 5
        hf["dtype"] = str(np.dtype(dtype or params["embedding"].dtype))
        file.write_text(json.dumps(hf, indent=2) + "\n", encoding="utf-8")
        shutil.rmtree(output, ignore_errors=True)
        os.rename(partial, output)

    hosts.once(begin)
    _write_weights(params, partial, dtype, max_shard_bytes)
    hosts.once(finish)


def check_replaceable(output: Path) -> None:
    """Raises UserError where `export` would put a model in the place of something else."""
    if output.exists() and not (output / "config.json").is_file():
        raise UserError(f"{output}: holds no model that could be replaced; give a folder that is not there yet")


def copy_companions(source: Path) -> Callable[[Path], None]:
    """A function that copies to a folder what `source` holds besides weights: config.json, tokenizer, templates."""

    def copy(output: Path) -> None:
        for file in sorted([*source.iterdir(), *source.glob(TEMPLATES)]):
            if file.is_file() and file.suffix in SIDE_SUFFIXES and not file.name.endswith(".index.json"):
                target = output / file.relative_to(source)
                target.parent.mkdir(exist_ok=True)
                shutil.copyfile(file, target)

    return copy


def module_name(keys: tuple[str, ...], layer: int) -> str:
    """The name of a projection of a layer in Hugging Face models, as "model.layers.0.self_attn.q_proj"."""
    return _TENSORS[(*keys, "weight")][0].format(layer=layer).removesuffix(".weight")


def to_hf_layout(array: np.ndarray, layout: str) -> np.ndarray:
    """One layer's weight in our layout ([in, heads, head_dim], ...) to the [out, in] matrix of Hugging Face files."""
    if layout == "heads_out":  # [D, heads, head_dim] -> [heads head_dim, D]
        return array.reshape(array.shape[0], -1).T
    if layout == "heads_in":  # [heads, head_dim, D] -> [D, heads head_dim]
        return array.reshape(-1, array.shape[-1]).T
    if layout == "heads":  # [heads, head_dim] -> [heads head_dim]
        return array.reshape(-1)
    return array.T if layout == "transposed" else array


class _Files:
    """The safetensors files of a folder."""

    def __init__(self, folder: Path):
        """
        Raises:
          UserError: pickled weights, or a missing or damaged file.
        """
        self.folder = folder
        single, index = self.folder / SINGLE_FILE, self.folder / INDEX_FILE
        if index.is_file():
            names = read_shaped(index, {"weight_map": {str: str}}, "download the model again")["weight_map"].values()
            paths = [self.folder / name for name in sorted(set(names))]
        elif single.is_file():
            paths = [single]
        elif any(self.folder.glob("*.bin")) or any(self.folder.glob("*.pt")) or any(self.folder.glob("*.pth")):
            raise UserError(
                f"{self.folder}: pickled weights are not loaded, they can run code; save the model as safetensors"
            )
        else:
            raise UserError(
                f"{self.folder}: no {SINGLE_FILE} and no {INDEX_FILE}; give a folder with safetensors weights"
            )
        self.tensors = {}
        for path in paths:
            if path.parent != self.folder or not _is_file(path):
                raise UserError(f"{path}: weights file is missing; download the model again")
            try:
                with safetensors.safe_open(path, framework="np"):  # checks that the file is whole
                    self.tensors.update(_tensors(path))
            except Exception as error:  # safetensors raises its own type, and OSError
                raise UserError(
                    f"{path}: damaged weights file ({_first_line(error)}); download the model again"
                ) from None

    def check(self, keys: tuple[str, ...], shape: tuple[int, ...], config: ModelConfig) -> None:
        name, layout = _TENSORS[keys]
        stacked = _stacked(name)
        expected = list(to_hf_layout(np.broadcast_to(np.empty((), np.int8), shape[stacked:]), layout).shape)
        for place in np.ndindex(shape[:stacked]):
            tensor = _numbered(name, place)
            if tensor not in self.tensors:
                raise UserError(
                    f"{self.folder}: tensor {tensor} is missing; this is not a complete {config.family} model"
                )
            found = self.tensors[tensor]
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
        name, layout = _TENSORS[keys]
        stacked = _stacked(name)
        weight = np.empty([len(part) for part in ranges], dtype)
        cuts = _hf_slices(ranges[stacked:], layout, config.head_dim)
        for place in np.ndindex(weight.shape[:stacked]):
            numbers = [part[i] for part, i in zip(ranges, place, strict=False)]
            self.tensors[_numbered(name, numbers)].read_into(to_hf_layout(weight[place], layout), cuts)
        return weight


@dataclasses.dataclass(frozen=True)
class _Stored:
    """Where a tensor lies in a file."""

    path: Path
    dtype: str  # as safetensors name it
    shape: list[int]
    offset: int  # bytes

    def read_into(self, target: np.ndarray, cuts: tuple[slice, ...]) -> None:
        """target[...] = tensor[cuts]: some rows after the other, so that little of the file is mapped at once."""
        dtype = np.dtype(_DTYPES[self.dtype])
        row_bytes = math.prod(self.shape[1:]) * dtype.itemsize
        step = max(1, _MAPPED_BYTES // row_bytes)
        for first in range(cuts[0].start, cuts[0].stop, step):
            last = min(first + step, cuts[0].stop)
            shape = (last - first, *self.shape[1:])
            rows = np.memmap(self.path, dtype, "r", self.offset + first * row_bytes, shape)
            for row in range(0, len(rows), _ROWS):
                into = target[first - cuts[0].start + row :][: min(_ROWS, len(rows) - row)]
                into[...] = rows[row : row + _ROWS, *cuts[1:]]


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


def _stacked(name: str) -> int:
    """How many leading dimensions of our weight are numbers in the tensor's name."""
    return name.count("{")


def _numbered(name: str, numbers: Sequence[int]) -> str:
    return name.format(**dict(zip(("layer", "expert"), numbers, strict=False)))


def _leaves(params: dict):
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        yield tuple(key.key for key in path), leaf


@dataclasses.dataclass(frozen=True)
class _Planned:
    """A tensor of the files to come."""

    name: str
    layout: str
    weight: jax.Array  # ours, which may hold this tensor for all layers and experts
    place: tuple[int, ...]  # of this one in it
    dtype: np.dtype

    @property
    def nbytes(self) -> int:
        return math.prod(self.weight.shape[len(self.place) :]) * self.dtype.itemsize

    def gathered(self, wanted: bool) -> np.ndarray | None:
        """Cast before it leaves its devices."""
        array = self.weight[self.place] if self.place else self.weight
        array = gathered(array.astype(self.dtype), wanted)
        return None if array is None else np.ascontiguousarray(to_hf_layout(array, self.layout))


def _planned_files(params: dict, dtype, max_shard_bytes: int) -> list[list[_Planned]]:
    """The tensors of each file, in the order of the tree."""
    files: list[list[_Planned]] = [[]]
    for keys, leaf in _leaves(params):
        name, layout = _TENSORS[keys]
        for place in np.ndindex(leaf.shape[: _stacked(name)]):
            tensor = _Planned(_numbered(name, place), layout, leaf, place, np.dtype(dtype or leaf.dtype))
            if files[-1] and sum(t.nbytes for t in files[-1]) + tensor.nbytes > max_shard_bytes:
                files.append([])
            files[-1].append(tensor)
    return files


def _write_weights(params: dict, folder: Path, dtype, max_shard_bytes: int) -> None:
    """Each process writes every Nth file, all at once, and holds no more than that file and two tensors."""
    files = _planned_files(params, dtype, max_shard_bytes)
    names = [f"model-{number + 1:05d}-of-{len(files):05d}.safetensors" for number in range(len(files))]
    if len(files) == 1:
        names = [SINGLE_FILE]
    for start in range(0, len(files), hosts.count()):
        own: dict[str, np.ndarray] = {}
        # The files' tensors take turns, so that all writers have theirs at about the same time.
        for turn in itertools.zip_longest(*files[start : start + hosts.count()]):
            for writer, tensor in enumerate(turn):
                if tensor and (array := tensor.gathered(wanted=writer == hosts.index())) is not None:
                    own[tensor.name] = array
        if own:
            safetensors.numpy.save_file(own, folder / names[start + hosts.index()], metadata={"format": "pt"})
    if len(files) > 1:
        weight_map = {tensor.name: name for name, tensors in zip(names, files, strict=True) for tensor in tensors}
        total = sum(tensor.nbytes for tensors in files for tensor in tensors)
        write_json(folder / INDEX_FILE, {"metadata": {"total_size": total}, "weight_map": weight_map})


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
