"""The beginning of a GGUF file: what it says of its model, and where each tensor lies.

Read by our own hand and not by the library's GGUFReader, which trusts every count and length that a file states: here each is
held against the bytes that are there before anything is made of it. Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import itertools
import math
import mmap
import re
import struct
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sami_jax.errors import UserError
from sami_jax.imports.metadata import Metadata

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
# Types of metadata: those of one size, by their number; and the two others.
_SCALARS = {0: "<u1", 1: "<i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4", 6: "<f4", 7: "?", 10: "<u8", 11: "<i8", 12: "<f8"}  # fmt: skip
_TEXT, _ARRAY = 8, 9
_LONGEST_KEY = 2**16 - 1  # bytes, as the format has it
_LONGEST_NAME = 64  # bytes of a tensor's name, as ggml has it
_MOST_DIMENSIONS = 4
# Above what any model has: entries, tensors and texts of one array cost memory of ours beside the file's.
_MOST_ENTRIES = 2**16
_MOST_TEXTS = 2**22


class Tensor(NamedTuple):
    """Where one lies, and how."""

    shape: tuple[int, ...]  # outermost first: [out, in] of a matrix
    kind: Any  # gguf.GGMLQuantizationType
    offset: int  # bytes from the file's beginning
    nbytes: int


class Header(NamedTuple):
    metadata: Metadata
    tensors: dict[str, Tensor]


def read_header(file: Path) -> Header:
    """
    Raises:
      UserError: no such file, none of this format, one part of several, or one whose counts, lengths or places do not fit what is there.
    """
    if not file.is_file():
        raise UserError(f"{file}: no such file; give a GGUF file")
    _refuse_part(file, int(found[1]) if (found := re.search(r"-\d{5}-of-(\d{5})\.gguf$", file.name)) else 1)
    with open(file, "rb") as stream:
        if stream.read(len(_MAGIC)) != _MAGIC:
            raise UserError(f"{file}: not a GGUF file: it does not begin with GGUF; download it again")
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return _read(file, _Cursor(file, content))


def _read(file: Path, cursor: "_Cursor") -> Header:
    cursor.take(len(_MAGIC), "the beginning")
    version = cursor.number("<u4", "the version")
    if version % 2**16 == 0:
        raise UserError(f"{file}: written for machines of the other byte order; convert the model on one of this order")
    if version not in _VERSIONS:
        raise UserError(f"{file}: GGUF version {version}; only 2 and 3 are read: convert the model again")
    tensors, entries = cursor.number("<u8", "the count of tensors"), cursor.number("<u8", "the count of metadata")
    for what, count in (("tensors", tensors), ("metadata", entries)):
        if count > min(_MOST_ENTRIES, cursor.left // 12):
            raise UserError(f"{file}: says it has {count} {what}, more than it holds; download it again")
    metadata = Metadata(file, _entries(file, cursor, entries))
    _refuse_part(file, metadata.count("split.count", 1))
    return Header(metadata, _tensors(file, cursor, tensors, metadata.count("general.alignment", 32)))


def _refuse_part(file: Path, parts: int) -> None:
    if parts > 1:
        raise UserError(
            f"{file}: one of {parts} parts of a model; join them (llama-gguf-split --merge) and give the whole"
        )


class _Cursor:
    """Reads on from a place in the file, and never beyond its end."""

    def __init__(self, file: Path, content: mmap.mmap):
        self.file, self.content, self.place = file, content, 0

    @property
    def left(self) -> int:
        return len(self.content) - self.place

    def take(self, nbytes: int, what: str) -> bytes:
        if nbytes > self.left:
            raise UserError(f"{self.file}: ends within {what}, or is damaged there; download it again")
        self.place += nbytes
        return self.content[self.place - nbytes : self.place]

    def number(self, kind: str, what: str) -> Any:
        return np.frombuffer(self.take(np.dtype(kind).itemsize, what), kind)[0].item()

    def text(self, what: str, longest: int | None = None) -> bytes:
        length = struct.unpack("<Q", self.take(8, what))[0]
        if longest is not None and length > longest:
            raise UserError(f"{self.file}: {what} is {length} bytes long, more than any is; download it again")
        return self.take(length, what)

    def name(self, what: str, longest: int) -> str:
        content = self.text(what, longest)
        try:
            return content.decode("utf-8")
        except UnicodeDecodeError:
            raise UserError(f"{self.file}: {what} is no UTF-8: {content!r:.80}; convert the model again") from None


def _entries(file: Path, cursor: _Cursor, count: int) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for number in range(count):
        key = cursor.name(f"the key of metadata {number}", _LONGEST_KEY)
        if key in values:
            raise UserError(f"{file}: metadata {key!r:.80} is there twice; convert the model again")
        values[key] = _value(cursor, cursor.number("<u4", key), key)
    return values


def _value(cursor: _Cursor, kind: int, key: str) -> Any:
    """A number, a truth value, the bytes of a text, an array of numbers, or a list of texts' bytes."""
    what = f"metadata {key!r:.80}"
    if kind in _SCALARS:
        return cursor.number(_SCALARS[kind], what)
    if kind == _TEXT:
        return cursor.text(what)
    if kind != _ARRAY:
        raise UserError(f"{cursor.file}: {what} is of type {kind}, which GGUF has not; download it again")
    kind, count = cursor.number("<u4", what), cursor.number("<u8", what)
    if kind in _SCALARS:
        return np.frombuffer(cursor.take(count * np.dtype(_SCALARS[kind]).itemsize, what), _SCALARS[kind])
    if kind != _TEXT:
        held = "arrays" if kind == _ARRAY else f"type {kind}"
        raise UserError(f"{cursor.file}: {what} is an array of {held}, which is not read; convert the model again")
    if count > min(_MOST_TEXTS, cursor.left // 8):
        raise UserError(f"{cursor.file}: {what} says it has {count} texts, more than it holds; download it again")
    return [cursor.text(what) for _ in range(count)]


def _tensors(file: Path, cursor: _Cursor, count: int, alignment: int) -> dict[str, Tensor]:
    if alignment & (alignment - 1):
        raise UserError(f"{file}: general.alignment is {alignment}, no power of two; convert the model again")
    listed = [_listed(file, cursor, number) for number in range(count)]
    start = -(-cursor.place // alignment) * alignment
    tensors = {}
    for name, tensor in listed:
        if name in tensors:
            raise UserError(f"{file}: tensor {name!r} is there twice; convert the model again")
        if tensor.offset % alignment or start + tensor.offset + tensor.nbytes > len(cursor.content):
            raise UserError(
                f"{file}: tensor {name!r}: its {tensor.nbytes} bytes from {start + tensor.offset} do not lie in the file of "
                f"{len(cursor.content)}; download it again"
            )
        tensors[name] = tensor._replace(offset=start + tensor.offset)
    in_order = sorted(tensors.items(), key=lambda item: item[1].offset)
    for (name, tensor), (other, behind) in itertools.pairwise(in_order):
        if tensor.offset + tensor.nbytes > behind.offset:
            raise UserError(f"{file}: tensors {name!r} and {other!r} overlap; convert the model again")
    return tensors


def _listed(file: Path, cursor: _Cursor, number: int) -> tuple[str, Tensor]:
    """A tensor as the table has it: its offset counts from the end of the table."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    name = cursor.name(f"the name of tensor {number}", _LONGEST_NAME)
    what = f"tensor {name!r}"
    dimensions = cursor.number("<u4", what)
    if not 1 <= dimensions <= _MOST_DIMENSIONS:
        raise UserError(
            f"{file}: {what} has {dimensions} dimensions; GGUF has 1 to {_MOST_DIMENSIONS}: download it again"
        )
    *shape, kind, offset = struct.unpack(f"<{dimensions}QIQ", cursor.take(8 * dimensions + 12, what))
    known = {int(each) for each in GGMLQuantizationType}
    if kind not in known:
        raise UserError(f"{file}: {what} is of type {kind}, which is not known; convert the model to another")
    kind = GGMLQuantizationType(kind)
    block, block_bytes = GGML_QUANT_SIZES[kind]
    if not all(shape) or shape[0] % block:
        raise UserError(
            f"{file}: {what} of shape {shape} cannot be of {kind.name}, blocks of {block}; convert the model again"
        )
    return name, Tensor(tuple(reversed(shape)), kind, offset, math.prod(shape) // block * block_bytes)
