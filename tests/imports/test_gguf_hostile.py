"""GGUF files that are damaged, or made to do harm: one line each, status 2, little time and memory, and nothing left behind."""

import struct
import time
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from support.complaint import complaint
from support.gguf_files import byte_vocabulary, entries_of, random_model, tensors_of, write_gguf

from sami_jax.errors import UserError
from sami_jax.imports.gguf import import_gguf
from sami_jax.imports.header import read_header
from sami_jax.imports.shape import read_shape
from sami_jax.imports.tokenizer import read_tokenizer
from sami_jax.imports.weights import planned

U32, F32, TEXT, ARRAY, U64 = 4, 6, 8, 9, 10
HUGE = 2**60


def text(content: bytes) -> bytes:
    return struct.pack("<Q", len(content)) + content


def entry(key: bytes, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def tensor(name: bytes, shape: tuple[int, ...] = (32,), kind: int = 0, offset: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


def whole(
    entries: Sequence[bytes] = (),
    tensors: Sequence[bytes] = (),
    data: int = 4096,
    version: int = 3,
    says: tuple[int, int] | None = None,
) -> bytes:
    """A file of these; `says` how many tensors and entries it says it has, where that is not so."""
    head = struct.pack("<4sIQQ", b"GGUF", version, *(says or (len(tensors), len(entries))))
    head += b"".join(entries) + b"".join(tensors)
    return head + bytes(-len(head) % 32) + bytes(data)


def an_array(kind: int, count: int, content: bytes = b"") -> bytes:
    return struct.pack("<IQ", kind, count) + content


FILES = {
    "nothing": (b"", "does not begin with GGUF"),
    "four bytes": (b"GGUF", "ends within the version"),
    "something else": (b"PK\x03\x04" + bytes(100), "does not begin with GGUF"),
    "an older format": (b"lmgg" + bytes(100), "does not begin with GGUF"),
    "the other byte order": (struct.pack(">4sIQQ", b"GGUF", 3, 0, 0), "other byte order"),
    "version 1": (whole(version=1), "GGUF version 1"),
    "version 4": (whole(version=4), "GGUF version 4"),
    "2^60 tensors": (whole(says=(HUGE, 0)), f"{HUGE} tensors, more than it holds"),
    "2^60 entries": (whole(says=(0, HUGE)), f"{HUGE} metadata, more than it holds"),
    "as many as the file is long": (whole(says=(0, 60000), data=10**6), "metadata '' is there twice"),
    "a key of 2^60": (whole([struct.pack("<Q", HUGE)]), "key of metadata 0 is"),
    "a text of 2^60": (whole([text(b"k") + struct.pack("<IQ", TEXT, HUGE)]), "ends within metadata 'k'"),
    "2^60 numbers": (whole([entry(b"k", ARRAY, an_array(U32, HUGE))]), "ends within metadata 'k'"),
    "2^63 numbers": (whole([entry(b"k", ARRAY, an_array(U64, 2**63))]), "ends within metadata 'k'"),
    "2^60 texts": (whole([entry(b"k", ARRAY, an_array(TEXT, HUGE))]), f"{HUGE} texts, more than it holds"),
    "arrays in arrays": (whole([entry(b"k", ARRAY, an_array(ARRAY, 2, an_array(U32, 0) * 2))]), "array of arrays"),
    "an unknown type": (whole([entry(b"k", 77, b"")]), "of type 77"),
    "an array of an unknown type": (whole([entry(b"k", ARRAY, an_array(77, 1))]), "array of type 77"),
    "a key twice": (whole([entry(b"k", U32, bytes(4))] * 2), "'k' is there twice"),
    "a key that is no text": (whole([entry(b"\xff\xfe", U32, bytes(4))]), "is no UTF-8"),
    "a key that steers terminals": (whole([entry(b"\x1b[31m\n", U32, bytes(4))] * 2), "is there twice"),
    "10^12 elements": (whole(tensors=[tensor(b"t", (10**6, 10**6))]), "do not lie in the file"),
    "2^64 elements and 32": (whole(tensors=[tensor(b"t", (2**63, 2**63, 32))]), "do not lie in the file"),
    "no elements": (whole(tensors=[tensor(b"t", (32, 0))]), "cannot be of F32"),
    "half a block": (whole(tensors=[tensor(b"t", (33, 2), kind=2)]), "cannot be of Q4_0"),
    "no dimensions": (whole(tensors=[tensor(b"t", ())]), "0 dimensions"),
    "2^31 dimensions": (whole(tensors=[text(b"t") + struct.pack("<I", 2**31)]), "dimensions"),
    "an unknown type of numbers": (whole(tensors=[tensor(b"t", kind=999)]), "of type 999"),
    "a place beyond the end": (whole(tensors=[tensor(b"t", offset=2**40)]), "do not lie in the file"),
    "a place of 2^64": (whole(tensors=[tensor(b"t", offset=2**64 - 32)]), "do not lie in the file"),
    "a crooked place": (whole(tensors=[tensor(b"t", offset=3)]), "do not lie in the file"),
    "overlapping places": (whole(tensors=[tensor(b"t", (64,)), tensor(b"u", offset=32)]), "'t' and 'u' overlap"),
    "the same place": (whole(tensors=[tensor(b"t"), tensor(b"u")]), "overlap"),
    "a name twice": (whole(tensors=[tensor(b"t"), tensor(b"t", offset=128)]), "'t' is there twice"),
    "a name that is no text": (whole(tensors=[tensor(b"\xff\xfe")]), "is no UTF-8"),
    "a name of a page": (whole(tensors=[tensor(b"n" * 1000)]), "1000 bytes long"),
    "an alignment of 3": (whole([entry(b"general.alignment", U32, struct.pack("<I", 3))]), "no power of two"),
    "an alignment of 0": (whole([entry(b"general.alignment", U32, bytes(4))]), "is 0, no count"),
    "an alignment that is a text": (whole([entry(b"general.alignment", TEXT, text(b"32"))]), "no count"),
    "one part of many": (whole([entry(b"split.count", 2, struct.pack("<H", 5))]), "one of 5 parts"),
    "nothing of a model": (whole(), "'general.architecture' is missing"),
    "an adapter": (whole([entry(b"general.type", TEXT, text(b"adapter"))]), "holds 'adapter' and no model"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "said"), FILES.values(), ids=FILES)
def test_one_line_at_once(content, said, tmp_path, capsys):
    file = tmp_path / "hostile.gguf"
    file.write_bytes(content)
    started, _ = time.process_time(), tracemalloc.start()
    line = complaint(capsys, "import", str(file), "--output", str(tmp_path / "made"))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert said in line and str(file) in line
    assert time.process_time() - started < 3 and most < 50e6
    assert [found.name for found in tmp_path.iterdir()] == ["hostile.gguf"]


def test_a_part_by_its_name(tmp_path, capsys):
    file = tmp_path / "model-00001-of-00003.gguf"
    file.write_bytes(whole())
    assert "one of 3 parts" in complaint(capsys, "import", str(file), "--output", str(tmp_path / "made"))


def test_places_that_hold_no_file(tmp_path, capsys):
    for place in (tmp_path, tmp_path / "none.gguf"):
        assert "no such file" in complaint(capsys, "import", str(place), "--output", str(tmp_path / "made"))


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    vocabulary = byte_vocabulary()
    model = random_model("llama", len(vocabulary["tokenizer.ggml.tokens"]), num_attention_heads=4)
    file = tmp_path_factory.mktemp("small") / "model.gguf"
    return write_gguf(file, "llama", vocabulary | entries_of(model, "llama"), tensors_of(model, "llama"), "Q4_0")


def read_all(file: Path) -> None:
    """All that is looked at before anything is written."""
    header = read_header(file)
    config = read_shape(file, header)
    read_tokenizer(file, header.metadata)
    planned(file, header, config)


def test_cut_off_anywhere(small, tmp_path):
    content, file = small.read_bytes(), tmp_path / "cut.gguf"
    read_all(small)
    head = min(one.offset for one in read_header(small).tensors.values())
    for end in [*range(0, head, 197), head, head + 1, len(content) // 2, len(content) - 33]:
        file.write_bytes(content[:end])
        with pytest.raises(UserError):
            read_all(file)


def test_bytes_changed_anywhere_are_read_or_refused(small, tmp_path):
    content, file, rng = small.read_bytes(), tmp_path / "changed.gguf", np.random.default_rng(0)
    head = min(one.offset for one in read_header(small).tensors.values())
    refused = 0
    for _ in range(400):
        changed = bytearray(content)
        first = int(rng.integers(0, head))
        changed[first : first + 8] = rng.choice([bytes(8), b"\xff" * 8, rng.bytes(8), struct.pack("<Q", 2**40)])
        file.write_bytes(changed[: len(content)])
        try:
            read_all(file)
        except UserError:
            refused += 1
    assert refused > 100


def test_weights_that_are_no_numbers(small, tmp_path, capsys):
    content, file = bytearray(small.read_bytes()), tmp_path / "infinite.gguf"
    place = read_header(small).tensors["blk.1.ffn_up.weight"].offset
    content[place : place + 2] = np.float16(np.inf).tobytes()
    file.write_bytes(content)
    line = complaint(capsys, "import", str(file), "--output", str(tmp_path / "made"))
    assert "blk.1.ffn_up.weight holds a weight that is no number" in line
    assert [found.name for found in tmp_path.iterdir()] == ["infinite.gguf"]


def test_a_folder_that_is_no_model_stays(small, tmp_path, capsys):
    (tmp_path / "made").mkdir()
    (tmp_path / "made/thesis.txt").write_text("mine")
    assert "holds no model that could be replaced" in complaint(
        capsys, "import", str(small), "--output", str(tmp_path / "made")
    )
    assert (tmp_path / "made/thesis.txt").read_text() == "mine"


def test_what_a_killed_import_left_is_taken_away(small, tmp_path):
    (tmp_path / "made.partial").mkdir()
    (tmp_path / "made.partial/model.safetensors").write_bytes(b"half")
    import_gguf(small, tmp_path / "made")
    assert [found.name for found in tmp_path.iterdir()] == ["made"]
