"""The bytes of a file, whatever they are packed in, as UTF-8. What is no text at all is named, with the way out."""

import bz2
import codecs
import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

from sami_jax.data.jsonl import read_bytes
from sami_jax.errors import UserError

HUB = "pip install 'sami_jax[hub]'"  # brings pyarrow and datasets
PARQUET = b"PAR1"
PACKED = (".gz", ".bz2", ".xz", ".zst")  # suffixes of what is unpacked; it is known by its content
_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark begins it
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# What other files begin with, and what to do with them.
_FOREIGN = (
    (b"\xd0\xcf\x11\xe0", "is an old Excel workbook; save the sheet as CSV (UTF-8)"),
    (b"ARROW1", "is an Arrow file; write it as Parquet"),
    (b"\xff\xff\xff\xff", "is an Arrow stream, as save_to_disk of `datasets` writes it; write it with to_parquet"),
    (b"SQLite format 3", "is an SQLite database; export the table as CSV"),
    (b"%PDF", "is a PDF; give its rows as CSV or JSON Lines"),
    (b"version https://git-lfs", "is a pointer of Git LFS, not the data; fetch it with `git lfs pull`"),
)


def unpacked(file: Path, name: str) -> bytes:
    """What a file holds: Parquet, or a text in UTF-8 without a mark. Bytes that are no UTF-8 stay in it.

    Args:
      name: what messages call the file.
    Raises:
      UserError: it cannot be read, or is neither.
    """
    content = read_bytes(file, "give the path of a .jsonl, .csv or .parquet file, or of a folder of them")
    for magic, unpack in _PACKERS.items():
        if content.startswith(magic):
            try:
                content = unpack(content)
            except ImportError:
                raise UserError(f"{name}: needs the pyarrow package to be unpacked: {HUB}") from None
            except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError) as error:
                raise UserError(f"{name}: cannot be decompressed ({error!s:.80}); fetch it anew") from None
            break
    return content if content.startswith(PARQUET) else _text(content, name)


def kind_of(name: str) -> str:
    """The suffix of a file's name in small letters, without that of a packer."""
    small = name.lower()
    for end in PACKED:
        small = small.removesuffix(end)
    return Path(small).suffix


def _text(content: bytes, name: str) -> bytes:
    if content.startswith(b"PK\x03\x04"):
        raise UserError(f"{name}: {_zip(content)}")
    if what := next((what for magic, what in _FOREIGN if content.startswith(magic)), None):
        raise UserError(f"{name}: {what}")
    if encoding := next((encoding for bom, encoding in _BOMS if content.startswith(bom)), None):
        if encoding == "utf-8-sig":
            return content.removeprefix(codecs.BOM_UTF8)
        try:
            return content.decode(encoding).encode()
        except UnicodeError:
            raise UserError(f"{name}: begins as {encoding.upper()} but is none; save it as UTF-8") from None
    if 0 in content[:2] and len(content) > 1:
        raise UserError(f"{name}: is no text, or UTF-16 without a mark; save it as UTF-8")
    return content


def _zip(content: bytes) -> str:
    try:
        names = zipfile.ZipFile(io.BytesIO(content)).namelist()
    except (zipfile.BadZipFile, ValueError, OSError):
        names = []
    if any(name.startswith("xl/") or name == "content.xml" for name in names):
        return "is a workbook; save the sheet as CSV (in Excel 'CSV UTF-8') and give that"
    return "is a ZIP archive; unpack it and give the file in it"


def _zstd(content: bytes) -> bytes:
    import pyarrow

    return pyarrow.CompressedInputStream(pyarrow.BufferReader(content), "zstd").read()


_PACKERS: dict[bytes, Callable[[bytes], bytes]] = {
    b"\x1f\x8b": gzip.decompress,
    b"BZh": bz2.decompress,
    b"\xfd7zXZ\x00": lzma.decompress,
    b"\x28\xb5\x2f\xfd": _zstd,
}
