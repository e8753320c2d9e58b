"""Writes Hugging Face model folders that other programs load and serve.

One file of weights is written at a time, or one on each host, so that no host holds unsharded weights.
"""

import dataclasses
import functools
import itertools
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from sami_jax.data.jsonl import write_json
from sami_jax.data.shape import read_shaped
from sami_jax.ground import hosts
from sami_jax.ground.display import doing
from sami_jax.models.config import ModelConfig
from sami_jax.models.files import put_companions
from sami_jax.models.pretrained import GENERATION, ModelFolder
from sami_jax.models.tensors import INDEX_FILE, SINGLE_FILE, TENSORS, by_tensor, numbered, stacked, to_hf_layout
from sami_jax.sharding import gathered

MAX_SHARD_BYTES = 5 * 2**30  # as transformers splits files


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
      params: weights on any devices, or what makes them where they are asked for, as `merged` does.
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
        hf.pop("quantization_config", None)  # of a model whose weights were: these are not
        hf["dtype"] = str(np.dtype(dtype or params["embedding"].dtype))
        file.write_text(json.dumps(hf, indent=2) + "\n", encoding="utf-8")
        shutil.rmtree(output, ignore_errors=True)
        os.rename(partial, output)

    with doing(f"writing {output}"):
        hosts.once(begin)
        _write_weights(params, config.family, partial, dtype, max_shard_bytes)
        hosts.once(finish)


def copy_companions(source: Path) -> Callable[[Path], None]:
    """A function that copies to a folder what is read of the model in `source` besides its weights."""

    return functools.partial(put_companions, source)


def companions(model: ModelFolder) -> Callable[[Path], None]:
    """A function that writes to a folder what a model made from this one is served with, besides its weights: what
    `copy_companions` copies, and where that does not tell it, which tokens end a text and which class reads tokenizer.json."""

    def write(output: Path) -> None:
        put_companions(model.folder, output, model.tokenizer_files)
        file = output / "config.json"
        shape = _without_ids_from(read_shaped(file, {}, "save the model again"), model.config.vocab_size)
        shape.pop("transformers_weights", None)  # the name of a file that an export has not
        write_json(file, shape | {"tie_word_embeddings": model.config.tie_embeddings})
        file = output / GENERATION
        known = read_shaped(file, {}, "save the model again") if file.is_file() else {}
        known = _without_ids_from(known, model.config.vocab_size)
        # Servers go by this file alone: without it, a model whose tokenizer alone knows the end goes on past it.
        ends, padding = list(model.end_tokens), model.tokenizer.pad_token_id
        told = {
            "eos_token_id": ends if len(ends) > 1 else ends[0],
            "pad_token_id": ends[0] if padding is None else padding,
        }
        if model.tokenizer.bos_token_id is not None:
            told["bos_token_id"] = model.tokenizer.bos_token_id
        write_json(file, {**told, **known, "eos_token_id": told["eos_token_id"]})
        file = output / "tokenizer_config.json"
        settings = read_shaped(file, {}, "save the tokenizer again") if file.is_file() else {}
        if settings.get("tokenizer_class") == "TokenizersBackend":
            # transformers 5 calls it so and reads the older name as well; servers on transformers 4 know the older name alone.
            write_json(file, settings | {"tokenizer_class": "PreTrainedTokenizerFast"})

    return write


def _without_ids_from(settings: dict, limit: int) -> dict:
    """Without the settings that name a token beyond the model's, as of a padding token that was added to the tokenizer alone: transformers
    loads no model whose config.json does."""

    def beyond(value) -> bool:
        return isinstance(value, int) and value >= limit

    return {
        name: value
        for name, value in settings.items()
        if not (name.endswith("_token_id") and any(map(beyond, value if isinstance(value, list) else [value])))
    }


@dataclasses.dataclass(frozen=True)
class Planned:
    """A tensor of the files to come."""

    name: str
    parts: tuple[
        tuple[Any, str], ...
    ]  # ours, one below the other, which may hold this tensor for all layers and experts; layouts
    place: tuple[int, ...]  # of this one in them
    dtype: np.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """In the file."""
        empty = np.empty((), np.int8)
        shapes = [
            to_hf_layout(np.broadcast_to(empty, weight.shape[len(self.place) :]), layout).shape
            for weight, layout in self.parts
        ]
        return sum(shape[0] for shape in shapes), *shapes[0][1:]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def gathered(self, wanted: bool) -> np.ndarray | None:
        """Cast before it leaves its devices."""
        arrays = []
        for weight, layout in self.parts:
            array = gathered(weight[self.place].astype(self.dtype), wanted)
            arrays.append(None if array is None else to_hf_layout(array, layout))
        if not wanted:
            return None
        return np.ascontiguousarray(arrays[0] if len(arrays) == 1 else np.concatenate(arrays))


def planned_tensors(params: dict, family: str, dtype) -> Iterator[Planned]:
    """In the order of the tree."""
    for name, members in by_tensor(family, params).items():
        parts = tuple((leaf, TENSORS[keys][1]) for keys, leaf in members)
        first = members[0][1]
        for place in np.ndindex(first.shape[: stacked(name)]):
            yield Planned(numbered(name, place), parts, place, np.dtype(dtype or first.dtype))


def _planned_files(params: dict, family: str, dtype, max_shard_bytes: int) -> list[list[Planned]]:
    """The tensors of each file."""
    files: list[list[Planned]] = [[]]
    for tensor in planned_tensors(params, family, dtype):
        if files[-1] and sum(t.nbytes for t in files[-1]) + tensor.nbytes > max_shard_bytes:
            files.append([])
        files[-1].append(tensor)
    return files


def _write_weights(params: dict, family: str, folder: Path, dtype, max_shard_bytes: int) -> None:
    """Each process writes every Nth file, all at once, and holds no more than that file and two tensors."""
    files = _planned_files(params, family, dtype, max_shard_bytes)
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
