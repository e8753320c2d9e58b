"""Queries, from the rows of files and datasets of many formats (docs/data.md)."""

import dataclasses
import os
from collections.abc import Iterable
from pathlib import Path

from sami_jax.data import dialogue, hub
from sami_jax.data.dialogue import Message
from sami_jax.data.fields import BadRow, absent, id_of, tags_of, texts_in
from sami_jax.data.rows import Skipped, good, read_file, usable
from sami_jax.data.sources import Source
from sami_jax.data.tables import Rows
from sami_jax.errors import UserError
from sami_jax.ground.digests import file_digest, json_digest
from sami_jax.ground.terminal import say

# Where a query is looked for: the first of these that a row has. A dot leads into an object.
COLUMNS = ("query", "prompt", "messages", "chosen", "info.post")
_MISSING = object()


@dataclasses.dataclass(frozen=True)
class Query:
    id: str
    text: str
    tags: tuple[str, ...] = ()  # slices it belongs to
    turns: tuple[Message, ...] = ()  # of a dialogue of several, the last of them the user's; `text` has all of them

    @property
    def row(self) -> dict:
        """How rows of responses and pairs keep it: its text and, if there are several, its turns."""
        turns = [dataclasses.asdict(turn) for turn in self.turns]
        return {"query": self.text, "turns": turns} if turns else {"query": self.text}


@dataclasses.dataclass(frozen=True)
class QuerySet:
    """What a source holds, and what a manifest says of it."""

    queries: list[Query]
    record: dict


def read_queries(file: Path, skipped: Skipped | None = None) -> list[Query]:
    """The queries of a file or folder; see `read_source`."""
    return read_source(Source(str(file)), skipped).queries


def read_source(source: Source, skipped: Skipped | None = None) -> QuerySet:
    """Reads all queries of a source.

    A row's query stands in `source.column`, or in the first of COLUMNS that it has: a text, or a dialogue, whose turns up to the
    last of the user are taken. Its id stands in `source.id_column`. Where no row has that column, rows have their numbers for
    ids, and of rows with the same query, as data of comparisons have them, the first is taken; how many were not is said.

    Args:
      skipped: takes bad rows; None refuses them.
    Raises:
      UserError: nothing can be read, or a row has no query, or an id that a row before it has; names file and row.
    """
    files, passed_over = _files(source)
    read = {name: read_file(file, name, _columns(source)) for name, file in files.items()}
    for name, (_, columns) in read.items():
        _check_columns(name, columns, source)
    numbered = not any(
        isinstance(row, dict) and not absent(row.get(source.id_column)) for rows, _ in read.values() for _, row in rows
    )
    if numbered and source.id_column not in ("", "id"):
        raise UserError(
            f"config.data.id_column={source.id_column!r}: no row of {source.place} has it; '' numbers the rows"
        )
    reader = _Reader(source, numbered)
    queries: list[Query] = []
    for place, (name, (rows, columns)) in enumerate(read.items(), start=1):
        reader.prefix = f"{place}." if len(read) > 1 else ""
        # A table's column of that name may hold anything else, and is not ours then.
        reader.tagged = columns is None or any(map(texts_in, _tags(rows)))
        if not reader.tagged and any(texts_in(tags) is None for tags in _tags(rows)):
            passed_over.append(f'the tags of {name}, which are no lists of texts such as ["a", "b"]')
        lines = ((number, (number, row)) for number, row in rows)
        queries += [query for _, query in usable(name, lines, reader.query, skipped) if query]
    total = sum(len(rows) for rows, _ in read.values())
    if passed_over:
        say(f"{source.place}: not read: {'; '.join(passed_over)}")
    if reader.repeated:
        say(
            f"{source.place}: {reader.repeated} of {total} rows repeat an earlier row's query; each query is taken once"
        )
    return QuerySet(queries, _record(source, files, queries, rows=total, repeated=reader.repeated, used=reader.used))


class _Reader:
    """Makes queries of rows, and knows those before."""

    def __init__(self, source: Source, numbered: bool):
        self._source, self._numbered = source, numbered
        self._seen: set[str] = set()  # ids, or texts where rows are numbered
        self.prefix = ""  # of the ids of numbered rows: which file
        self.tagged = True  # whether its tags are ours
        self.repeated = 0
        self.used: set[str] = set()  # columns

    def query(self, numbered_row: tuple[int, dict | BadRow]) -> Query | None:
        """None for a query that is there already.

        Raises:
          BadRow: no query, no id, or an id that is there already.
        """
        number, row = numbered_row[0], good(numbered_row[1])
        column, text, turns = _asked(row, self._source.column)
        if self._numbered:
            id, key = f"{self.prefix}{number}", text
        else:
            id = key = id_of(row, self._source.id_column)
        tags = tags_of(row) if self.tagged else ()
        if key in self._seen and self._numbered:
            self.repeated += 1
            return None
        if key in self._seen:
            raise BadRow("the id stands on an earlier line too", f": {id!r:.60}; make ids unique")
        self._seen.add(key)
        self.used.add(column)
        return Query(id, text, tags, turns)


def _asked(row: dict, column: str) -> tuple[str, str, tuple[Message, ...]]:
    """(column, text, turns if there are several) of a row's query.

    Raises:
      BadRow: there is none.
    """
    wanted = (column,) if column else COLUMNS
    there = [name for name in wanted if _value(row, name) is not _MISSING]
    if not there:
        raise BadRow(f"no query: nothing called {' or '.join(wanted)}", "; add it, or set config.data.column")
    found = next((name for name in there if not _empty(_value(row, name))), there[0])
    value = _value(row, found) if found == "query" else dialogue.messages_in(_value(row, found))
    if isinstance(value, list) and found != "query":
        return found, *_dialogue(dialogue.of_messages(value))
    if not isinstance(value, str) or not value.strip():
        raise BadRow(f"{found!r} holds no text", f" but {value!r:.40}; add the query")
    if found != "query" and (found == "chosen" or value.startswith(dialogue.START)):
        return found, *_dialogue(dialogue.of_text(value))
    return found, value.strip(), ()


def _dialogue(turns: tuple[Message, ...]) -> tuple[str, tuple[Message, ...]]:
    return dialogue.transcript(turns), turns if len(turns) > 1 else ()


def _empty(value) -> bool:
    return value is None or value == [] or (isinstance(value, str) and not value.strip())


def _tags(rows: Rows) -> list:
    """What stands in the column of tags."""
    return [row["tags"] for _, row in rows if isinstance(row, dict) and not absent(row.get("tags"))]


def _value(row: dict, column: str):
    """What stands in a column, or below it where its name has dots."""
    if column in row:
        return row[column]
    outer, _, inner = column.partition(".")
    return _value(row[outer], inner) if inner and isinstance(row.get(outer), dict) else _MISSING


def _files(source: Source) -> tuple[dict[str, Path], list[str]]:
    """The files of a source, each by the name that messages call it; and what is not read of a folder."""
    if source.repository:
        folder = hub.fetch(source)
    elif not os.path.isdir(source.place):
        return {source.place: Path(source.place)}, []
    else:
        folder = Path(source.place)
    root = os.path.abspath(folder)
    files, passed_over = hub.split_files(folder, source)
    return {f"{source.place}/{file.relative_to(root).as_posix()}": file for file in files}, passed_over


def _columns(source: Source) -> tuple[str, ...]:
    """The columns that are read; "" names none."""
    columns = (source.column,) if source.column else COLUMNS
    return tuple(filter(None, (*columns, source.id_column, "tags")))


def _check_columns(name: str, columns: Iterable[str] | None, source: Source) -> None:
    asked = [column.lower() for column in ((source.column,) if source.column else COLUMNS)]
    known = {*asked, *(column.partition(".")[0] for column in asked)}
    if columns is None or known & {column.strip().lower() for column in columns}:
        return
    wanted = source.column or ", ".join(COLUMNS)
    there = ", ".join(repr(column)[:40] for column in list(columns)[:12])
    raise UserError(f"{name}: no column {wanted}; set config.data.column to one of: {there}")


def _record(
    source: Source, files: dict[str, Path], queries: list[Query], rows: int, repeated: int, used: set[str]
) -> dict:
    """What was read, for a manifest. Of a single file the digest is the file's; of others that of the queries."""
    record = {
        "path": source.place,
        "rows": rows,
        "queries": len(queries),
        "repeated": repeated,
        "columns": sorted(used),
    }
    if list(files) == [source.place]:
        return record | {"sha256": file_digest(files[source.place])}
    pinned = {"revision": source.revision} if source.revision else {}
    digest = json_digest([dataclasses.asdict(query) for query in queries])
    return record | pinned | {"subset": source.subset, "split": source.split, "files": list(files), "sha256": digest}
