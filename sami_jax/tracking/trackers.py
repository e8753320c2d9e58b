"""All trackers of a run behind one protocol: the same scalars and texts, by the same names, reach each of them.

A run that goes on after a stop continues the runs of its trackers, whose ids are kept in trackers.json. It first tells them
again all that its folder holds, and each takes what it lacks: a killed process may have lost what was on its way. A step that
is computed anew, after the last checkpoint, is told by the same number.

Only the first process tracks. Keys come from the environment, and no secret reaches a tracker.
"""

import importlib.util
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ml_collections import ConfigDict

from sami_jax.data.jsonl import write_json
from sami_jax.data.shape import read_shaped
from sami_jax.errors import StoppedByCanary, UserError
from sami_jax.ground import hosts
from sami_jax.ground.redaction import redact
from sami_jax.ground.terminal import say, visible
from sami_jax.tracking.tracker import Table, Tracker

IDS = "trackers.json"  # in the run's folder: each tracker's own id of the run
TRACKERS = ("tensorboard", "wandb", "mlflow")
SERVICES = ("wandb", "mlflow")  # each a package, and an extra, of that name


class Trackers:
    """Those of one run, a context manager. A service that fails is named once and left out from then on; the run goes on."""

    def __init__(self, trackers: Mapping[str, Tracker]):
        self._trackers = dict(trackers)

    def __enter__(self) -> "Trackers":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_) -> None:
        done = kind is None or issubclass(kind, StoppedByCanary)
        self._each(lambda tracker: tracker.close(done))

    def describe(self, config: dict, principles: Sequence[Mapping]) -> None:
        """
        Args:
          config: resolved, without secrets.
          principles: records as manifests hold them.
        """
        rows = [
            {
                "principle": f"{record['id']}@{record['version']}",
                "role": record["role"],
                "status": record["status"],
                "followed": record["phrasings"][0][0],
                "antithesis": record["phrasings"][0][1],
            }
            for record in principles
        ]
        self._each(lambda tracker: tracker.describe(config, shown(rows)))

    def rewind(self, step: int) -> None:
        """What was told of this step and later ones is of a life before this one, and comes again."""
        self._each(lambda tracker: tracker.rewind(step))

    def tell(self, step: int, scalars: Mapping[str, float], tables: Mapping[str, Table] | None = None) -> None:
        """All there is of a step: finite numbers, and texts."""
        texts = {name: shown(rows) for name, rows in (tables or {}).items()}
        self._each(lambda tracker: tracker.tell(step, scalars, texts))

    def _each(self, call: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self._trackers.items()):
            try:
                call(tracker)
            except tracker.faults as error:
                del self._trackers[name]
                say(f"WARNING: {name} does not follow this run any more: {' '.join(str(error).split()):.300}")


def shown(rows: Table) -> Table:
    """The texts as trackers may show them."""
    return [{column: visible(redact(text)) for column, text in row.items()} for row in rows]


def check_trackers(config: ConfigDict) -> None:
    """
    Raises:
      UserError: a tracker lacks its package or its key.
    """
    for name in config.track.to:
        if name in SERVICES and importlib.util.find_spec(name) is None:
            raise UserError(
                f"config.track.to: {name} is not installed; pip install 'sami_jax[{name}]', or leave it out"
            )
    online = os.environ.get("WANDB_MODE", "online") in ("online", "shared")
    if "wandb" in config.track.to and online and not os.environ.get("WANDB_API_KEY"):
        raise UserError(
            "config.track.to: wandb has no key; set WANDB_API_KEY in the environment, or WANDB_MODE=offline"
        )


def open_trackers(config: ConfigDict, workdir: Path) -> Trackers:
    """Begins the runs of config.track's trackers, or continues them; of many processes, in the first alone.

    Raises:
      UserError: a service cannot be reached, or does not know the run that trackers.json names.
    """
    opened: dict[str, Tracker] = {}
    hosts.once(lambda: _open(config.track, workdir, opened))
    return Trackers(opened)


def _open(track: ConfigDict, workdir: Path, opened: dict[str, Tracker]) -> None:
    file = workdir / IDS
    ids = read_shaped(file, {str: str}, "remove it to begin new runs of the trackers") if file.exists() else {}
    for name in track.to:
        opened[name] = _class_of(name)(workdir, track.project, track.name or workdir.resolve().name, ids.get(name))
    if found := {name: tracker.id for name, tracker in opened.items() if name not in ids}:
        write_json(file, ids | found)


def _class_of(name: str) -> Callable[[Path, str, str, str | None], Tracker]:
    """Takes the run's folder, project, name, and the id of a run to continue. Only what is asked for is imported."""
    if name == "wandb":
        from sami_jax.tracking.wandb import Wandb

        return Wandb
    if name == "mlflow":
        from sami_jax.tracking.mlflow import MLflow

        return MLflow
    from sami_jax.tracking.tensorboard import TensorBoard

    return TensorBoard
