"""MLflow: the server or store that MLFLOW_TRACKING_URI names, or else one of the run's own, in its folder."""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sami_jax.errors import UserError
from sami_jax.provenance.manifest import leaves
from sami_jax.tracking.tracker import Table

STORE, ARTIFACTS = "mlflow.db", "mlflow"  # of the store in the run's folder
LONGEST = 500  # characters of a parameter; the whole config is an artifact


class MLflow:
    """One run there.

    MLflow keeps every number it is given, so that one it has already, of a life before, is not given again: of a step that is
    computed anew after a stop, the first stays.
    """

    def __init__(self, workdir: Path, project: str, name: str, id: str | None = None):
        """
        Args:
          project: MLflow's experiment.
          id: of a run to continue.
        Raises:
          UserError: the store cannot be opened, or does not have the run.
        """
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # what a run does is not told to MLflow's makers
        os.environ.setdefault(
            "MLFLOW_LOGGING_LEVEL", "WARNING"
        )  # news of its store would stand between the user and ours
        import mlflow
        from mlflow.entities import Metric, Param

        given = os.environ.get("MLFLOW_TRACKING_URI")
        where = given or f"sqlite:///{(workdir / STORE).resolve()}"
        self.faults: tuple[type[Exception], ...] = (mlflow.MlflowException,)
        self._metric, self._param = Metric, Param
        self._known: dict[str, set[int]] = {}  # scalar -> steps at which it is there
        self._continued = id is not None
        try:
            self._client = mlflow.MlflowClient(where)
            if id is None:
                found = self._client.get_experiment_by_name(project)
                artifacts = None if given else (workdir / ARTIFACTS).resolve().as_uri()
                experiment = found.experiment_id if found else self._client.create_experiment(project, artifacts)
                id = self._client.create_run(experiment, run_name=name).info.run_id
            else:
                self._client.update_run(id, status="RUNNING")
        except mlflow.MlflowException as error:
            raise UserError(
                f"config.track.to: mlflow, {where}: {' '.join(str(error).split()):.300}; set MLFLOW_TRACKING_URI to the store "
                "that the run was begun with, or remove trackers.json to begin a new one"
            ) from None
        self.id = id

    def _log_rows(self, rows: Table, file: str) -> None:
        content: Any = list(rows)  # a list is logged as well as the dict that mlflow asks for
        self._client.log_dict(self.id, content, file)

    def describe(self, config: dict, principles: Table) -> None:
        self._client.log_dict(self.id, config, "config.json")
        self._log_rows(principles, "principles.json")
        if self._continued:  # parameters never change there, though a run that is forced to go on may have others
            return
        params = [self._param(path, str(value)[:LONGEST]) for path, value in leaves(config)]
        for start in range(0, len(params), 100):  # as many as a request may hold
            self._client.log_batch(self.id, params=params[start : start + 100])

    def rewind(self, step: int) -> None:
        """What is there stays."""

    def tell(self, step: int, scalars: Mapping[str, float], tables: Mapping[str, Table]) -> None:
        now = time.time_ns() // 10**6
        if new := [name for name in scalars if step not in self._steps(name)]:
            self._client.log_batch(self.id, metrics=[self._metric(name, scalars[name], now, step) for name in new])
        for name in new:
            self._steps(name).add(step)
        for name, rows in tables.items():
            self._log_rows(rows, f"{name}/{step}.json")

    def close(self, done: bool) -> None:
        self._client.set_terminated(self.id, "FINISHED" if done else "KILLED")

    def _steps(self, name: str) -> set[int]:
        """Those at which the scalar is there."""
        if name not in self._known:
            history = self._client.get_metric_history(self.id, name) if self._continued else []
            self._known[name] = {metric.step for metric in history}
        return self._known[name]
