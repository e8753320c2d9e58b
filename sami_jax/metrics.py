"""Scalars over time: JSON Lines always, TensorBoard beside it."""

import json
import math
from pathlib import Path

from sami_jax import hosts
from sami_jax.data.jsonl import read_appended, read_jsonl, write_jsonl
from sami_jax.redaction import redact
from sami_jax.tensorboard import EventFile
from sami_jax.terminal import visible

EXAMPLES = 3  # texts shown of an evaluation


def show_evaluation(tensorboard: Path, iteration: int, results: dict[str, dict], responses: Path) -> None:
    """Adds an evaluation to TensorBoard: its scalars by iteration, and its first responses as texts.

    Args:
      results: evaluation.json's content.
      responses: folder that holds each set's, SET.jsonl.
    """
    if not hosts.first():
        return
    with EventFile(tensorboard) as events:
        for name, scalars in results.items():
            for metric, value in scalars.items():
                if isinstance(value, int | float):
                    events.scalar(f"evaluation/{name}/{metric}", value, iteration)
            for place, row in enumerate(read_jsonl(responses / f"{name}.jsonl")[:EXAMPLES]):
                events.text(f"evaluation/{name}/example {place + 1}", example_text(row), iteration)


def example_text(row: dict) -> str:
    """A response with what it answers, as Markdown in which each text is a block of code: nothing in it comes to life."""
    texts = {key: visible(redact(row[key])).splitlines() for key in ("query", "constitution", "response")}
    return "\n\n".join(f"**{key}**\n\n" + "\n".join(f"    {line}" for line in lines) for key, lines in texts.items())


class MetricsLog:
    """Appends {"step", name: value, ...} lines to `file`. Lines past `resume_step` are of a life before this one: removed."""

    def __init__(self, file: Path, tensorboard: Path | None, prefix: str, resume_step: int = 0):
        self._rows = [row for row in read_appended(file) if row["step"] <= resume_step]
        write_jsonl(file, self._rows)
        self._file = file
        self._events = EventFile(tensorboard) if tensorboard and hosts.first() else None
        self._prefix = prefix

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(self, *_) -> None:
        if self._events:
            self._events.close()

    def latest(self, name: str, default: float) -> float:
        """A scalar as it was when the log was opened."""
        return self._rows[-1].get(name, default) if self._rows else default

    def write(self, step: int, scalars: dict[str, float]) -> None:
        """What is no number is null in the file."""
        if not hosts.first():
            return
        numbers = {name: value for name, value in scalars.items() if math.isfinite(value)}
        with open(self._file, "a", encoding="utf-8") as stream:
            stream.write(json.dumps({"step": step, **dict.fromkeys(scalars), **numbers}) + "\n")
        if self._events:
            for name, value in numbers.items():
                self._events.scalar(f"{self._prefix}/{name}", value, step)
