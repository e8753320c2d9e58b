"""The audit log: audit.jsonl, one event a line, each with the hash of the line before. Lines are only ever added.

    {"number": 3, "time": "2026-11-24T10:00:00+00:00", "event": "trained", ..., "previous": HASH, "hash": HASH}

A line's hash is that of its canonical JSON without the key "hash". So a changed, removed or inserted line breaks the chain
from there on, and the manifest, which is bound to the log's end, shows where lines were cut off.
"""

import datetime
import json
import os
from pathlib import Path

from sami_jax.data.jsonl import parse, read_bytes
from sami_jax.data.shape import misfit
from sami_jax.errors import UserError
from sami_jax.ground import hosts
from sami_jax.ground.digests import json_digest
from sami_jax.ground.redaction import redacted

START = "0" * 64
# What readers rely on in an event.
EVENT = {
    "number": int,
    "time": str,
    "event": str,
    "iteration?": int,
    "files?": {str: str},
    "digest?": str,
    "fields?": {str: str},
    "previous": str,
    "hash": str,
}


class AuditLog:
    """The log of one run, open for adding.

    A last line that was torn by a crash was never acted on, and is taken away.
    """

    def __init__(self, file: Path):
        """
        Raises:
          UserError: the log was changed by another hand; names the line.
        """
        self._file = file
        self.events = [_in_short(event) for event in read_audit(file)] if hosts.once(self._mend) else []

    def add(self, event: str, **facts) -> None:
        """Adds a line, on disk before this returns."""
        self.events.append(_in_short(hosts.once(lambda: self._append(event, facts))))

    def _mend(self) -> bool:
        """Takes a torn last line away; whether there is a log."""
        if not self._file.exists():
            return False
        whole, newline, torn = self._file.read_bytes().rpartition(b"\n")
        if torn:
            with open(self._file, "r+b") as stream:
                stream.truncate(len(whole) + len(newline))
        return True

    def _append(self, event: str, facts: dict) -> dict:
        line = {
            "number": len(self.events) + 1,
            "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "event": event,
            **redacted(facts),
            "previous": self.head,
        }
        line["hash"] = json_digest(line)
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with open(self._file, "a", encoding="utf-8") as stream:
            stream.write(json.dumps(line, ensure_ascii=False) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        return line

    @property
    def head(self) -> str:
        """Hash of the last line."""
        return self.events[-1]["hash"] if self.events else START

    def last(self, event: str, **facts) -> dict | None:
        """The latest event of this name with these facts."""
        found = (e for e in reversed(self.events) if e["event"] == event and facts.items() <= e.items())
        return next(found, None)


def read_audit(file: Path) -> list[dict]:
    """The events of a log, its chain checked.

    Raises:
      UserError: no log, or a line that does not follow from the one before; names it.
    """
    if not file.exists():
        raise UserError(f"{file}: missing; a run's folder holds its audit log")
    events, previous = [], START
    for number, line in enumerate(read_bytes(file, "restore it").splitlines(), start=1):
        if (event := _event(line)) is None:
            raise UserError(f"{file}:{number}: the line was changed: its hash does not fit its content")
        if event["previous"] != previous or event["number"] != number:
            raise UserError(
                f"{file}:{number}: the line does not follow from the one before; lines were removed or moved"
            )
        events.append(event)
        previous = event["hash"]
    return events


def _in_short(event: dict) -> dict:
    """Without the digests of fields: most of a log, and asked of the file alone. Of a long run they would fill memory."""
    return {name: value for name, value in event.items() if name != "fields"}


def _event(line: bytes) -> dict | None:
    """A line's event; None where the line was changed."""
    try:
        event = parse(line)
        if misfit(event, EVENT):
            return None
        datetime.datetime.fromisoformat(event["time"])
    except ValueError:
        return None
    return event if event["hash"] == json_digest({k: v for k, v in event.items() if k != "hash"}) else None
