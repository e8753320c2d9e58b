"""Rows of JSONL, CSV and Parquet files, each with its number: of its line, or in Parquet of the row, from 1.

A name that ends in .gz says that the content is compressed. What is not named .csv or .parquet is read as JSONL.
"""

import csv
import gzip
import io
import sys
import zlib
from collections.abc import Collection
from pathlib import Path

from sami_jax.data.jsonl import BadRow, lines_of, read_bytes, row_of
from sami_jax.errors import UserError

Rows = list[tuple[int, dict | BadRow]]
UTF_16 = (b"\xff\xfe", b"\xfe\xff")
HUB = "pip install 'sami_jax[hub]'"  # brings pyarrow and datasets


def read_file(file: Path, name: str, columns: Collection[str]) -> tuple[Rows, tuple[str, ...] | None]:
    """All rows of a file; those that are none come as the reason why.

    Args:
      name: what messages call the file.
      columns: those that are wanted; of CSV and Parquet files, others are passed over.
    Returns:
      the rows, and the names of all columns, None for JSONL, where each row has its own.
    Raises:
      UserError: the file as a whole cannot be read.
    """
    kind = Path(file.name.removesuffix(".gz")).suffix
    if kind == ".parquet":
        return _parquet(file, name, columns)
    content = read_bytes(file, "give the path of a .jsonl, .csv or .parquet file, or of a folder of them")
    if file.name.endswith(".gz"):
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise UserError(f"{name}: cannot be decompressed ({error}); fetch it anew") from None
    if kind == ".csv":
        return _csv(content, name, columns)
    return [(number, _object(line)) for number, line in lines_of(content)], None


def _object(line: bytes) -> dict | BadRow:
    try:
        return row_of(line, ())
    except BadRow as bad:
        return bad


def _csv(content: bytes, name: str, columns: Collection[str]) -> tuple[Rows, tuple[str, ...]]:
    """Cells are texts as they stand: none is taken for a number, or for missing, or for a list of tags."""
    if content.startswith(UTF_16):
        raise UserError(f"{name}: is UTF-16; save it as UTF-8")
    csv.field_size_limit(sys.maxsize)
    # Bytes that are no UTF-8 become halves of characters, by which their rows are known.
    reader = csv.reader(io.StringIO(content.decode("utf-8-sig", "surrogateescape"), newline=""), strict=True)
    rows: Rows = []
    header: tuple[str, ...] | None = None
    while True:
        number = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            if str(error) == "unexpected end of data" or header is None:
                raise UserError(f"{name}:{number}: a quoted cell is never closed ({error}); mend the row") from None
            rows.append((number, BadRow("not a CSV row", f" ({error}); mend the row")))
            continue
        if header is None and cells:
            header = tuple(cells)
        elif header and cells:  # a blank line has none
            rows.append((number, _record(header, cells, columns)))
    if header is None:
        raise UserError(f"{name}: is empty; its first line must name the columns")
    if twice := [column for column in header if header.count(column) > 1]:
        raise UserError(f"{name}: two columns are called {twice[0]!r:.60}; rename one")
    return rows, header


def _record(header: tuple[str, ...], cells: list[str], columns: Collection[str]) -> dict | BadRow:
    if len(cells) != len(header):
        return BadRow("not as many cells as columns", f": {len(cells)}, not {len(header)}; mend the row")
    try:
        "".join(cells).encode()
    except UnicodeEncodeError:
        return BadRow("not UTF-8 text", "; save the file as UTF-8")
    return {name: cell for name, cell in zip(header, cells, strict=True) if name in columns and name != "tags"}


def _parquet(file: Path, name: str, columns: Collection[str]) -> tuple[Rows, tuple[str, ...]]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise UserError(f"{name}: Parquet files need the pyarrow package: {HUB}") from None
    if not file.is_file():
        read_bytes(file, "give the path of a Parquet file")  # says why not
    try:
        with parquet.ParquetFile(file) as opened:
            schema = opened.schema_arrow
            if twice := [column for column in schema.names if schema.names.count(column) > 1]:
                raise UserError(f"{name}: two columns are called {twice[0]!r:.60}; rename one")
            wanted = [column for column in schema.names if column in columns and _is_read(schema.field(column))]
            batches = opened.iter_batches(columns=wanted)
            rows = [row for batch in batches for row in (_records(batch) if wanted else [{}] * batch.num_rows)]
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{name}: not readable as Parquet ({reason:.120}); fetch or write it anew") from None
    return list(enumerate(rows, start=1)), tuple(schema.names)


def _is_read(field) -> bool:
    """Tags are lists of texts; a column of that name with anything else is not ours."""
    import pyarrow

    kinds = [pyarrow.list_(kind) for kind in (pyarrow.string(), pyarrow.large_string())]
    return field.name != "tags" or field.type in kinds


def _records(batch) -> list[dict | BadRow]:
    try:
        return batch.to_pylist()
    except UnicodeDecodeError:  # of one row at least, which has to be found
        return [_one(batch.slice(place, 1)) for place in range(batch.num_rows)]


def _one(batch) -> dict | BadRow:
    try:
        return batch.to_pylist()[0]
    except UnicodeDecodeError:
        return BadRow("not UTF-8 text", "; mend the row")
