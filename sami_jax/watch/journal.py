"""watch.jsonl: its first line says how the windows were made, every other is one window. Appended to, and read again to go on."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

from sami_jax.data.jsonl import parse_measured
from sami_jax.data.shape import NUMBER, misfit
from sami_jax.errors import UserError

NAME = "watch.jsonl"
_ROW = {
    "window": int,
    "from": NUMBER | None,
    "until": NUMBER | None,
    "answers": int,
    "cells": {str: {str: (int, NUMBER, NUMBER)}},
    "alarms": [
        {"measure": str, "slice": str, "value": NUMBER, "before": NUMBER, "p": NUMBER, "window": int, "since": int}
        | {"since_time": str | None, "against": str, "examples": [{"place": str, "time": str | None}]}
    ],
}


@dataclasses.dataclass(frozen=True)
class Made:
    """How windows are made: rows that were made otherwise cannot be compared.

    Attributes:
      window: answers, or seconds with an "s" behind.
      first: windows of the reference.
    """

    window: str
    sample: int
    first: int
    judge: str
    seed: int


class Journal:
    def __init__(self, folder: Path, made: Made):
        """
        Raises:
          UserError: the folder's file was made otherwise.
        """
        self.file, self._made = folder / NAME, made

    def rows(self) -> Iterator[dict]:
        """The windows of earlier calls. A torn last line is taken away.

        Raises:
          UserError: it was made otherwise, or a line is none of ours.
        """
        if not self.file.exists() or not self.file.stat().st_size:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            self._append({"made": dataclasses.asdict(self._made)})
            return
        whole = 0
        with open(self.file, "rb") as stream:
            for number, line in enumerate(stream, start=1):
                if not line.endswith(b"\n"):
                    break
                whole += len(line)
                row = self._read(number, line)
                if number == 1:
                    self._check(row)
                else:
                    yield row
        with open(self.file, "r+b") as stream:
            stream.truncate(whole)
        if not whole:
            self._append({"made": dataclasses.asdict(self._made)})

    def add(self, row: dict) -> None:
        self._append(row)

    def _append(self, row: dict) -> None:
        with open(self.file, "a", encoding="utf-8") as stream:
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")

    def _read(self, number: int, line: bytes) -> dict:
        try:
            row = parse_measured(line)
            wrong = misfit(row, {"made": {str: str | int}} if number == 1 else _ROW)
        except ValueError as error:
            raise UserError(
                f"{self.file}:{number}: not readable JSON ({error}); restore it, or give another --output"
            ) from None
        if wrong:
            raise UserError(f"{self.file}:{number}: {wrong}; restore it, or give another --output")
        return row

    def _check(self, row: dict) -> None:
        for name, value in dataclasses.asdict(self._made).items():
            if row["made"].get(name) != value:
                raise UserError(
                    f"{self.file}: its windows were made with {name} {row['made'].get(name)}, not {value}; give the same, or another --output"
                )
