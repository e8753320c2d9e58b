"""Training checkpoints through Orbax: the whole train state, so that a resumed run goes on to the same bits."""

from collections.abc import Callable
from pathlib import Path

import jax
import orbax.checkpoint as ocp
from ml_collections import ConfigDict

from sami_jax import hosts
from sami_jax.errors import UserError
from sami_jax.models.adapters import trained
from sami_jax.models.config import ModelConfig
from sami_jax.models.decoder import abstract_params, param_shardings
from sami_jax.sharding import put
from sami_jax.training import TrainState, abstract_state, state_shardings

SIDE_FILES = "model"  # config.json and tokenizer of the model being trained, so that a checkpoint can be exported alone


class Checkpoints:
    """The checkpoints of one training stage, newest two kept. A context manager; leaving it waits for pending saves."""

    def __init__(self, folder: Path, write_side_files: Callable[[Path], None]):
        """
        Args:
          write_side_files: puts all that an exported model needs beside its weights into a folder.
        """
        self.folder = folder.absolute()
        side_files = self.folder / SIDE_FILES

        def prepare() -> None:
            side_files.mkdir(parents=True, exist_ok=True)
            write_side_files(side_files)

        hosts.once(prepare)
        self._manager = ocp.CheckpointManager(self.folder, options=_options())

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_) -> None:
        self._manager.wait_until_finished()
        self._manager.close()

    def save(self, state: TrainState) -> None:
        """Starts saving in the background; `state.step` names the checkpoint."""
        items = {"params": ocp.args.StandardSave(state.params), "optimizer": ocp.args.StandardSave(state.opt_state)}
        self._manager.save(int(state.step), args=ocp.args.Composite(**items))

    def latest_step(self) -> int | None:
        """The newest checkpoint's update; None where nothing is saved yet."""
        return self._manager.latest_step()

    def restore_latest(
        self, model_config: ModelConfig, config: ConfigDict, mesh: jax.sharding.Mesh
    ) -> TrainState | None:
        """The newest saved state, in its shards on `mesh`; None where nothing is saved yet."""
        self._manager.wait_until_finished()
        step = self._manager.latest_step()
        if step is None:
            return None
        abstract = jax.tree.map(
            _with_sharding, abstract_state(model_config, config), state_shardings(model_config, config, mesh)
        )
        items = {
            "params": ocp.args.StandardRestore(abstract.params),
            "optimizer": ocp.args.StandardRestore(abstract.opt_state),
        }
        restored = self._manager.restore(step, args=ocp.args.Composite(**items))
        return TrainState(restored["params"], restored["optimizer"], put(jax.numpy.int32(step), mesh))


def restore_params(folder: Path, model_config: ModelConfig, mesh: jax.sharding.Mesh, dtype) -> tuple[int, dict]:
    """The newest checkpoint's number and the weights that were trained, alone.

    Raises:
      UserError: no checkpoint in the folder.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give a run's iteration_N/checkpoints")
    with ocp.CheckpointManager(folder.absolute(), options=_options(read_only=True)) as manager:
        step = manager.latest_step()
        if step is None:
            raise UserError(f"{folder}: no checkpoint here; give a run's iteration_N/checkpoints")
        weights = trained(model_config, abstract_params(model_config))
        shaped = jax.tree.map(lambda w: jax.ShapeDtypeStruct(w.shape, dtype), weights)
        abstract = jax.tree.map(_with_sharding, shaped, trained(model_config, param_shardings(model_config, mesh)))
        return step, manager.restore(step, args=ocp.args.Composite(params=ocp.args.StandardRestore(abstract)))["params"]


def _options(**more) -> ocp.CheckpointManagerOptions:
    return ocp.CheckpointManagerOptions(max_to_keep=None if more.get("read_only") else 2, **more)


def _with_sharding(leaf: jax.ShapeDtypeStruct, sharding) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
