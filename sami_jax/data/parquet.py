"""Parquet files: the columns that are read, and no others."""

from collections.abc import Collection

from sami_jax.data.content import HUB
from sami_jax.data.fields import NO_TEXT, BadRow
from sami_jax.data.tables import Rows, column_places
from sami_jax.errors import UserError


def read_parquet(content: bytes, name: str, columns: Collection[str]) -> tuple[Rows, tuple[str, ...]]:
    """The rows, numbered from 1, and the names of all columns.

    Raises:
      UserError: the file cannot be read.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise UserError(f"{name}: Parquet files need the pyarrow package: {HUB}") from None
    try:
        with parquet.ParquetFile(pyarrow.BufferReader(content)) as opened:
            schema = opened.schema_arrow
            outer = [column.partition(".")[0] for column in columns]
            places = column_places(schema.names, dict.fromkeys([*columns, *outer]), name)
            names = {schema.names[place]: column for column, place in places.items()}
            batches = opened.iter_batches(columns=[_path(schema, own, columns) for own in names])
            rows = [row for batch in batches for row in (_records(batch) if names else [{}] * batch.num_rows)]
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{name}: not readable as Parquet ({reason:.120}); fetch or write it anew") from None
    named = (row if isinstance(row, BadRow) else {names[own]: value for own, value in row.items()} for row in rows)
    return list(enumerate(named, start=1)), tuple(schema.names)


def _path(schema, own: str, columns: Collection[str]) -> str:
    """The column, or what is read of an object in it."""
    import pyarrow

    kind = schema.field(own).type
    inner = [column for column in columns if column.startswith(f"{own}.")]
    if len(inner) == 1 and pyarrow.types.is_struct(kind) and inner[0].removeprefix(f"{own}.") in kind.names:
        return inner[0]
    return own


def _records(batch) -> list[dict | BadRow]:
    try:
        return batch.to_pylist()
    except UnicodeDecodeError:  # of one row at least, which has to be found
        return [_one(batch.slice(place, 1)) for place in range(batch.num_rows)]


def _one(batch) -> dict | BadRow:
    try:
        return batch.to_pylist()[0]
    except UnicodeDecodeError:
        return BadRow(NO_TEXT, "; mend the row")
