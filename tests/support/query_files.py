"""Files of queries as well-known data sets have them."""

import gzip
import json
from pathlib import Path

import pyarrow
from pyarrow import parquet

from sami_jax.data.jsonl import write_jsonl

HH = [
    {
        "chosen": "\n\nHuman: What is a 俳句?\n\nAssistant: A poem.\n\nHuman: Write one 🙂\n\nAssistant: Old pond.",
        "rejected": "\n\nHuman: What is a 俳句?\n\nAssistant: A poem.\n\nHuman: Write one 🙂\n\nAssistant: No.",
    },
    {"chosen": "\n\nHuman: Hello\n\nAssistant: Hi.", "rejected": "\n\nHuman: Hello\n\nAssistant: What?"},
    {"chosen": "\n\nHuman: Hello\n\nAssistant: Hi!", "rejected": "\n\nHuman: Hello\n\nAssistant: Huh?"},
]
HH_QUERIES = ["What is a 俳句?\n\nAssistant: A poem.\n\nHuman: Write one 🙂", "Hello"]


def turns(text: str) -> list[dict]:
    """An hh-rlhf text as chat messages."""
    parts = [part.split(": ", 1) for part in text.strip().split("\n\n")]
    return [{"role": {"Human": "user", "Assistant": "assistant"}[name], "content": said} for name, said in parts]


def comparison(post: str | None, number: int) -> dict:
    """A row of openai/summarize_from_feedback's comparisons."""
    info = {"id": f"t3_{number}", "post": post, "title": "T", "subreddit": "AskReddit", "site": None, "article": None}
    summaries = [{"text": f" {word}", "policy": "sup2", "note": "ok"} for word in ("one", "two")]
    extra = {"confidence": 7}
    return {
        "info": info,
        "summaries": summaries,
        "choice": 1,
        "worker": "w",
        "batch": "b",
        "split": "train",
        "extra": extra,
    }


def write(file: Path, rows: list[dict]) -> Path:
    """The rows as JSONL or Parquet, by the file's name."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".parquet":
        parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    elif file.suffix == ".gz":
        file.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode(), mtime=0))
    else:
        write_jsonl(file, rows)
    return file
