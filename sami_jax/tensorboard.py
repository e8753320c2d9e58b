"""TensorBoard's event files, written as the numbers come: without a thread of its own, so that a full disk is an error here."""

import time
from pathlib import Path

from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event


class EventFile:
    """One event file, a context manager. A run that goes on begins another one in the same folder."""

    def __init__(self, folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        # The library's own name tells the second only: two files begun in one would be the same.
        self._writer = EventsWriter(str(folder / "events"), filename_suffix=f".{time.time_ns()}")

    def __enter__(self) -> "EventFile":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        self._writer.close()

    def scalar(self, tag: str, value: float, step: int) -> None:
        self._add(summary.scalar(tag, value), step)

    def text(self, tag: str, text: str, step: int) -> None:
        """Shown as Markdown."""
        self._add(summary.text(tag, text), step)

    def _add(self, content, step: int) -> None:
        self._writer.write_event(Event(wall_time=time.time(), step=step, summary=content))
        self._writer.flush()
