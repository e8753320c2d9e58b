"""Query files: JSONL with an id and a query (or prompt) a line."""

import dataclasses
from pathlib import Path

from sami_jax.data.jsonl import read_numbered
from sami_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Query:
    id: str
    text: str
    tags: tuple[str, ...] = ()  # slices it belongs to


def read_queries(file: Path) -> list[Query]:
    """Reads lines {"id", "query"} or {"id", "prompt"}, and a list of "tags" if there is one; other keys are passed over.

    Raises:
      UserError: a line without id or text, with an empty text, or with an id seen before; names file and line.
    """
    queries, seen = [], set()
    for number, row in read_numbered(file, required=("id",)):
        text = row.get("query", row.get("prompt"))
        if not isinstance(text, str) or not text.strip():
            raise UserError(f"{file}:{number}: neither 'query' nor 'prompt' holds text; add the query")
        if (id := str(row["id"])) in seen:
            raise UserError(f"{file}:{number}: id {id!r} stands on an earlier line too; make ids unique")
        tags = row.get("tags") or []
        if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
            raise UserError(f"{file}:{number}: tags must be a list of texts; mend the line")
        seen.add(id)
        queries.append(Query(id, text.strip(), tuple(tags)))
    return queries


def split(queries: list[Query], splits: int, iteration: int) -> list[Query]:
    """The queries of one iteration (from 1): disjoint splits that take turns (paper, section 4)."""
    return queries[(iteration - 1) % splits :: splits]
