"""Scalars over time: JSON Lines always, trackers beside them.

Trackers count updates and evaluations in one row of steps: the base's evaluation is step 0, then come the updates of iteration
1, its evaluation, the updates of iteration 2, and so on.
"""

import math
from collections.abc import Mapping
from pathlib import Path

from ml_collections import ConfigDict

from sami_jax.config import iterations
from sami_jax.data.jsonl import Appended, parse_measured, read_appended, read_json, read_jsonl, write_jsonl
from sami_jax.ground import hosts
from sami_jax.tracking.trackers import Trackers

EXAMPLES = 3  # texts shown of an evaluation
METRICS, EVALUATION = "metrics.jsonl", "evaluation.json"  # in an iteration's folder


def steps_before(config: ConfigDict, iteration: int) -> int:
    """The step of the evaluation before an iteration's updates, whose first is the next one."""
    return sum(config.train.updates[: iteration - 1]) + iteration - 1


def tell_evaluation(trackers: Trackers, config: ConfigDict, iteration: int, folder: Path) -> None:
    """Tells trackers of an evaluation, 0 for the base model's: its scalars, and its first responses as tables.

    Args:
      folder: holds evaluation.json and evaluation/SET.jsonl.
    """
    if not hosts.first():
        return
    results = read_json(folder / EVALUATION, "restore it, or remove it to measure again", parse_measured)
    scalars = {
        f"evaluation/{name}/{metric}": value
        for name, measured in results.items()
        for metric, value in measured.items()
        if isinstance(value, int | float) and math.isfinite(value)
    }
    examples = {
        f"evaluation/{name}/examples": [
            {column: row[column] for column in ("query", "constitution", "response")}
            for row in read_jsonl(folder / "evaluation" / f"{name}.jsonl")[:EXAMPLES]
        ]
        for name in results
    }
    trackers.tell(steps_before(config, iteration + 1), scalars, examples)


def tell_again(trackers: Trackers, config: ConfigDict, workdir: Path) -> None:
    """Tells trackers all that the folder of a run holds."""
    if not hosts.first():
        return
    for iteration in (0, *iterations(config)):
        folder = workdir / f"iteration_{iteration}"
        if (folder / METRICS).exists():
            for row in read_appended(folder / METRICS):
                _tell_update(trackers, config, iteration, row["step"], row)
        if (folder / EVALUATION).exists():
            tell_evaluation(trackers, config, iteration, folder)


def _tell_update(
    trackers: Trackers, config: ConfigDict, iteration: int, number: int, scalars: Mapping[str, float | None]
) -> None:
    told = {
        f"iteration_{iteration}/{name}": value
        for name, value in scalars.items()
        if name != "step" and value is not None and math.isfinite(value)
    }
    trackers.tell(steps_before(config, iteration) + number, told)


class MetricsLog:
    """Appends {"step", name: value, ...} lines to metrics.jsonl, one an update of an iteration, and tells trackers.

    Lines past `resume_step` are of a life before this one: removed, and those before told again.
    """

    def __init__(self, folder: Path, trackers: Trackers, config: ConfigDict, iteration: int, resume_step: int = 0):
        self._file = folder / METRICS
        self._lines = Appended(self._file)
        self._rows = [row for row in read_appended(self._file) if row["step"] <= resume_step]
        write_jsonl(self._file, self._rows)
        self._trackers, self._config, self._iteration = trackers, config, iteration
        trackers.rewind(steps_before(config, iteration) + 1)
        for row in self._rows:
            _tell_update(trackers, config, iteration, row["step"], row)

    def latest(self, name: str, default: float) -> float:
        """A scalar as it was when the log was opened."""
        return self._rows[-1].get(name, default) if self._rows else default

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """A line of an update; more of the newest one goes into its line. What is no number is null in the file."""
        latest = self._rows and self._rows[-1]["step"] == step
        before = self._rows.pop() if latest else {"step": step}
        numbers = {name: value for name, value in scalars.items() if math.isfinite(value)}
        self._rows.append({**before, **dict.fromkeys(scalars), **numbers})
        if not hosts.first() or self._rows[-1] == before:
            return
        if len(before) == 1:
            self._lines.add(self._rows[-1])
        else:
            self.settle()
            write_jsonl(self._file, self._rows)
        _tell_update(self._trackers, self._config, self._iteration, step, numbers)

    def settle(self) -> None:
        """What was written is on the storage: before a checkpoint, which the lines up to it belong to, and at the end."""
        self._lines.close()
