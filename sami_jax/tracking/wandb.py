"""Weights & Biases. It is spoken to by a process of its own, which waits for no network; WANDB_MODE=offline keeps all on disk."""

import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from sami_jax.errors import UserError
from sami_jax.tracking.tracker import Table


class Wandb:
    """One run there. Its files lie in WORKDIR/wandb.

    The service takes each step once: of one that is computed anew after a stop, it keeps the first. Offline, each life of the run
    has a folder of its own with all steps until then.
    """

    def __init__(self, workdir: Path, project: str, name: str, id: str | None = None):
        """
        Args:
          id: of a run to continue.
        Raises:
          UserError: the service does not take it.
        """
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # its own errors are told here, not to its makers
        import wandb

        self.id = id or secrets.token_hex(4)
        self.faults: tuple[type[Exception], ...] = (wandb.Error,)
        self._wandb = wandb
        # The run's own words stay on its terminal, its code where it is.
        settings = wandb.Settings(
            console="off", silent=True, disable_git=True, save_code=False, disable_job_creation=True
        )
        try:
            self._run = wandb.init(
                project=project, name=name, id=self.id, resume="allow", dir=str(workdir), settings=settings
            )
        except wandb.Error as error:
            raise UserError(
                f"config.track.to: wandb does not take run {self.id}: {' '.join(str(error).split())}; see WANDB_API_KEY, "
                "WANDB_BASE_URL and WANDB_ENTITY, or set WANDB_MODE=offline"
            ) from None

    def describe(self, config: dict, principles: Table) -> None:
        self._run.config.update(config, allow_val_change=True)
        if self._run.step == 0:  # the base's evaluation completes the step
            self._run.log({"principles": self._table(principles)}, step=0, commit=False)

    def rewind(self, step: int) -> None:
        """What is there stays."""

    def tell(self, step: int, scalars: Mapping[str, float], tables: Mapping[str, Table]) -> None:
        if step < self._run.step:  # it is there; the service would warn of each
            return
        shown = {name: self._table(rows) for name, rows in tables.items()}
        self._run.log({**scalars, **shown}, step=step, commit=True)

    def _table(self, rows: Table):
        return self._wandb.Table(columns=list(rows[0]) if rows else [], data=[list(row.values()) for row in rows])

    def close(self, done: bool) -> None:
        self._run.finish(exit_code=0 if done else 1)
