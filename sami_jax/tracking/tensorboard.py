"""TensorBoard's event files, written as the numbers come: without a thread of its own, so that a full disk is an error here."""

import json
import time
from collections.abc import Mapping
from pathlib import Path

from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog

from sami_jax.tracking.tracker import Table

FOLDER = "tensorboard"


class TensorBoard:
    """Event files in WORKDIR/tensorboard. A run that goes on begins another one there, and TensorBoard forgets what comes again."""

    id = FOLDER
    faults: tuple[type[Exception], ...] = ()  # what cannot be written here is the disk's fault, and ends the run

    def __init__(self, workdir: Path, project: str, name: str, id: str | None = None):
        folder = workdir / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        # The library's own name tells the second only: two files begun in one would be the same.
        self._writer = EventsWriter(str(folder / "events"), filename_suffix=f".{time.time_ns()}")

    def describe(self, config: dict, principles: Table) -> None:
        self.rewind(0)
        self._text(0, "config", _block(json.dumps(config, indent=2, ensure_ascii=False)))
        self._text(0, "principles", _rows(principles))

    def rewind(self, step: int) -> None:
        self._add(step, session_log=SessionLog(status=SessionLog.START))

    def tell(self, step: int, scalars: Mapping[str, float], tables: Mapping[str, Table]) -> None:
        for name, value in scalars.items():
            self._add(step, summary=summary.scalar(name, value))
        for name, rows in tables.items():
            self._text(step, name, _rows(rows))

    def close(self, done: bool) -> None:
        self._writer.close()

    def _text(self, step: int, name: str, markdown: str) -> None:
        self._add(step, summary=summary.text(name, markdown))

    def _add(self, step: int, **content) -> None:
        self._writer.write_event(Event(wall_time=time.time(), step=step, **content))
        self._writer.flush()


def _rows(rows: Table) -> str:
    return "\n\n---\n\n".join(map(as_markdown, rows))


def as_markdown(row: Mapping[str, str]) -> str:
    """A row as Markdown in which each text is a block of code: nothing in it comes to life."""
    return "\n\n".join(f"**{column}**\n\n{_block(text)}" for column, text in row.items())


def _block(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())
