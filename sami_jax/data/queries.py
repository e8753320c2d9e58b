"""Query files: JSONL with an id and a query (or prompt) a line."""

import dataclasses
from pathlib import Path

from sami_jax.data.jsonl import BadRow, Skipped, id_of, read_rows, tags_of


@dataclasses.dataclass(frozen=True)
class Query:
    id: str
    text: str
    tags: tuple[str, ...] = ()  # slices it belongs to


def read_queries(file: Path, skipped: Skipped | None = None) -> list[Query]:
    """Reads lines {"id", "query"} or {"id", "prompt"}, and a list of "tags" if there is one; other keys are passed over.

    Args:
      skipped: takes bad lines; None refuses them.
    Raises:
      UserError: a line without id or text, with an empty text, or with an id seen before; names file and line.
    """
    seen: set[str] = set()

    def query(row: dict) -> Query:
        text = row.get("query", row.get("prompt"))
        if not isinstance(text, str) or not text.strip():
            raise BadRow("neither 'query' nor 'prompt' holds text", "; add the query")
        if (id := id_of(row)) in seen:
            raise BadRow("the id stands on an earlier line too", f": {id!r}; make ids unique")
        tags = tags_of(row)
        seen.add(id)
        return Query(id, text.strip(), tags)

    return [query for _, query in read_rows(file, ("id",), query, skipped)]


def split(queries: list[Query], splits: int, iteration: int) -> list[Query]:
    """The queries of one iteration (from 1): disjoint splits that take turns (paper, section 4)."""
    return queries[(iteration - 1) % splits :: splits]
