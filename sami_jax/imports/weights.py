"""The weights of a GGUF file, as one file of safetensors: read, turned and written a few rows at a time."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import ml_dtypes
import numpy as np

from sami_jax.errors import UserError
from sami_jax.imports.header import Header, Tensor
from sami_jax.imports.shape import ROPE_FACTORS
from sami_jax.models.config import ModelConfig
from sami_jax.models.decoder import abstract_params
from sami_jax.models.tensors import leaves, numbered, stacked, tensor_of, to_hf_layout

_ELEMENTS = 2**20  # of a tensor are turned at a time: float32, and several times that within the library
# Types whose values are written as they are; those of blocks become float32. GGUF's name -> numpy's and safetensors'.
_KEPT = {"F16": (np.dtype(np.float16), "F16"), "BF16": (np.dtype(ml_dtypes.bfloat16), "BF16")}
_FLOAT32 = np.dtype(np.float32), "F32"


class Planned(NamedTuple):
    """A tensor of the file to come."""

    source: str  # its name in GGUF
    tensor: Tensor
    heads: int  # that its rows were permuted in; 0: they were not
    added: float = 0.0  # to what the model's own folder holds

    @property
    def stored(self) -> tuple[np.dtype, str]:
        return _KEPT.get(self.tensor.kind.name, _FLOAT32)

    @property
    def nbytes(self) -> int:
        return math.prod(self.tensor.shape) * self.stored[0].itemsize


def planned(file: Path, header: Header, config: ModelConfig) -> dict[str, Planned]:
    """What is to be written, by its Hugging Face name.

    Raises:
      UserError: a tensor that is missing, of another shape or of a type that is not turned; or one that the model has not.
    """
    from gguf import MODEL_ARCH_NAMES, get_tensor_name_map

    arch = next(arch for arch, name in MODEL_ARCH_NAMES.items() if name == config.family)
    names = get_tensor_name_map(arch, config.n_layers)
    plan: dict[str, Planned] = {}
    for keys, leaf in leaves(abstract_params(config)):
        pattern, layout = tensor_of(config.family, keys)
        leading = stacked(pattern)
        shape = to_hf_layout(np.broadcast_to(np.empty((), np.int8), leaf.shape[leading:]), layout).shape
        heads = {"query": config.n_heads, "key": config.n_kv_heads}.get(keys[-2] if len(keys) > 1 else "", 0)
        for place in np.ndindex(leaf.shape[:leading]):
            base, _, ending = (name := numbered(pattern, place)).rpartition(".")
            source = f"{names.get_name(base)}.{ending}"
            _check(file, source, header.tensors.get(source), shape)
            # llama.cpp turns pairs of neighbours where Llama's own code turns halves, and permutes rows for it: of this family alone.
            permuted = heads if config.family == "llama" else 0
            # Norms that multiply by 1 + w are written as that sum.
            added = float(config.norm_offset and keys[-1:] == ("scale",))
            plan[name] = Planned(source, header.tensors[source], permuted, added)
    if unknown := header.tensors.keys() - {one.source for one in plan.values()} - {ROPE_FACTORS}:
        raise UserError(
            f"{file}: tensor {min(unknown)!r} is none that a {config.family} model has here, and {len(unknown) - 1} others; use another model"
        )
    return plan


def _check(file: Path, name: str, tensor: Tensor | None, shape: tuple[int, ...]) -> None:
    if tensor is None:
        raise UserError(f"{file}: tensor {name} is missing; this is not a whole model: download it again")
    if tensor.shape != shape:
        raise UserError(
            f"{file}: tensor {name} has shape {tensor.shape}, its sizes ask for {shape}; convert the model again"
        )
    if not _is_turned(tensor):
        raise UserError(
            f"{file}: tensor {name} is of type {tensor.kind.name}, which is not read; take the model in another"
        )


def _is_turned(tensor: Tensor) -> bool:
    """Whether the library makes float32 of this type."""
    from gguf import GGML_QUANT_SIZES, dequantize

    _, block_bytes = GGML_QUANT_SIZES[tensor.kind]
    try:
        dequantize(np.zeros((1, block_bytes), np.uint8), tensor.kind)
    except NotImplementedError:
        return False
    return True


def common_dtype(plan: dict[str, Planned]) -> str:
    """What config.json calls the model's dtype: of its matrices where all have one, for norms stand beside them in float32."""
    kinds = {one.stored[0] for one in plan.values() if len(one.tensor.shape) > 1}
    return str(kinds.pop()) if len(kinds) == 1 else "float32"


def write_weights(source: Path, plan: dict[str, Planned], output: Path) -> None:
    """Writes the file; no more of a tensor is in memory than a few rows.

    Raises:
      UserError: a weight that is no number.
    """
    header: dict[str, dict] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, one in plan.items():
        shape, end = list(one.tensor.shape), offset + one.nbytes
        header[name] = {"dtype": one.stored[1], "shape": shape, "data_offsets": [offset, end]}
        offset = end
    content = json.dumps(header).encode()
    content += b" " * (-len(content) % 8)
    with open(source, "rb") as reading, open(output, "wb") as writing:
        writing.write(len(content).to_bytes(8, "little") + content)
        for one in plan.values():
            for rows in _rows(reading, one):
                if not np.isfinite(rows).all():
                    raise UserError(
                        f"{source}: tensor {one.source} holds a weight that is no number; download it again"
                    )
                writing.write(np.ascontiguousarray(rows).tobytes())


def _rows(stream, one: Planned) -> Iterator[np.ndarray]:
    """The tensor's rows in order, in the dtype that is stored."""
    from gguf import dequantize

    count, width = math.prod(one.tensor.shape[:-1]), one.tensor.shape[-1]
    row_bytes = one.tensor.nbytes // count
    head = count // one.heads if one.heads else 1  # rows that belong together
    step = max(1, _ELEMENTS // (width * head)) * head
    stream.seek(one.tensor.offset)
    for first in range(0, count, step):
        number = min(step, count - first)
        content = np.frombuffer(stream.read(number * row_bytes), np.uint8).reshape(number, row_bytes)
        kept = one.tensor.kind.name in _KEPT
        with np.errstate(all="ignore"):  # numbers that are none are told by who writes them
            rows = content.view(one.stored[0]) if kept else dequantize(content, one.tensor.kind)
            rows = rows - rows.dtype.type(one.added) if one.added else rows
        if one.heads:
            rows = rows.reshape(-1, head // 2, 2, width).swapaxes(1, 2)
        yield rows.reshape(number, width)
