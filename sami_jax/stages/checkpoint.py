"""Training checkpoints through Orbax: the whole train state, so that a resumed run goes on to the same bits.

Orbax restores flipped bytes and other dtypes without a word. So a checkpoint is sealed once it is on disk: seal.json holds the
digest of each of its files, and the shape and dtype of each array. What has no seal was not finished, what does not fit it is
damaged: both are set aside, loudly, and the newest one that is whole is taken.

    checkpoints/12/{params,optimizer}/, seal.json     newest two, and the newest that canaries looked at
    checkpoints/model/                                what an exported model needs beside its weights
    checkpoints/damaged/                              what was set aside
"""

import concurrent.futures
import fnmatch
import itertools
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath
from ml_collections import ConfigDict

from sami_jax.contrast.update import TrainState, abstract_state, state_shardings
from sami_jax.data.jsonl import replace_text
from sami_jax.errors import UserError
from sami_jax.ground import hosts
from sami_jax.ground.digests import files_below, json_digest, shared_digests
from sami_jax.ground.disk import check_space
from sami_jax.ground.display import doing
from sami_jax.ground.finite import check_finite
from sami_jax.ground.terminal import say
from sami_jax.models.adapters import trained
from sami_jax.models.config import ModelConfig
from sami_jax.models.decoder import abstract_params, param_shardings
from sami_jax.sharding import put

SIDE_FILES = "model"  # config.json and tokenizer of the model being trained, so that a checkpoint can be exported alone
SEAL, DAMAGED = "seal.json", "damaged"
KEPT = 2  # newest checkpoints
_seals = itertools.count()  # the same in all processes
_UNWRITABLE = "\\"  # native code takes it for the sign between folders, and would write elsewhere
_PATIENCE = 86_400  # s a save may take. Orbax counts by the wall clock, which jumps where a machine has slept


def check_place(folder: Path) -> None:
    """
    Raises:
      UserError: no checkpoints can be written below the folder.
    """
    if _UNWRITABLE in str(folder.absolute()):
        raise UserError(
            f"{folder}: checkpoints cannot be written below a folder with {_UNWRITABLE!r} in its name; use another"
        )


class _Literal(type(epath.Path())):
    """A path as Orbax wants it, whose own name is never a pattern: else, below a folder with brackets in its name, Orbax does not
    find what it has just written, and leaves a checkpoint without its arrays."""

    def glob(self, pattern: str) -> Iterator["_Literal"]:
        return (path for path in self.iterdir() if fnmatch.fnmatchcase(path.name, pattern))


class Checkpoints:
    """The checkpoints of one training stage, newest two kept, and one more on demand. A context manager; leaving it waits for
    pending saves."""

    def __init__(self, folder: Path, write_side_files: Callable[[Path], None]):
        """
        Args:
          write_side_files: puts all that an exported model needs beside its weights into a folder.
        """
        check_place(folder)
        self.folder = folder.absolute()
        side_files = self.folder / SIDE_FILES

        def prepare() -> None:
            side_files.mkdir(parents=True, exist_ok=True)
            write_side_files(side_files)

        hosts.once(prepare)
        sys.unraisablehook = _print_unless_late
        meet = _unless_failed if hosts.count() > 1 else None
        patient = ocp.options.AsyncOptions(timeout_secs=_PATIENCE, barrier_sync_fn=meet)
        self._keep = _Keep()
        # A checkpoint gets its name by a renaming, on every kind of storage: Orbax may come to choose a marker file for some
        # (orbax#3537), and one that it adds after the seal would break it.
        renamed = ocp.path.atomicity.AtomicRenameTemporaryPath
        options = ocp.CheckpointManagerOptions(
            preservation_policy=self._keep, async_options=patient, temporary_path_class=renamed
        )
        self._manager = ocp.CheckpointManager(_Literal(self.folder), options=options)
        self._sealer = concurrent.futures.ThreadPoolExecutor(1, "seal")
        self._pending: concurrent.futures.Future | None = None

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_) -> None:
        try:
            self.settle()
        finally:
            self._sealer.shutdown()
            self._manager.close()

    def save(self, state: TrainState, keep: int = 0) -> None:
        """Starts saving in the background; `state.step` names the checkpoint.

        Args:
          keep: the update whose checkpoint stays, however old it is; 0 is none.
        Raises:
          NotFinite: a weight is no number; nothing is saved.
          UserError: the disk is full, now or while the one before was saved; those before stand.
        """
        step, content = int(state.step), {"params": state.params, "optimizer": state.opt_state}
        check_finite(state.params, f"update {step} was not saved")
        self.settle()
        size = sum(leaf.nbytes for leaf in jax.tree.leaves(content))
        hosts.expect(size)
        check_space(self.folder, size, "a checkpoint")
        self._keep.step = keep
        items = {name: ocp.args.StandardSave(tree) for name, tree in content.items()}
        self._manager.save(step, args=ocp.args.Composite(**items))
        self._pending = self._sealer.submit(self._seal, step, _arrays(content), next(_seals))

    def restore_latest(
        self, model_config: ModelConfig, config: ConfigDict, mesh: jax.sharding.Mesh
    ) -> TrainState | None:
        """The newest whole state, in its shards on `mesh`; None where there is none. Damaged ones are set aside.

        Raises:
          UserError: arrays of another shape or dtype than `config` asks for.
        """
        self.settle()
        with doing(f"checking {self.folder}"):
            step = self._newest_whole()
        self._manager.reload()
        if step is None:
            return None
        abstract = jax.tree.map(
            _with_sharding, abstract_state(model_config, config), state_shardings(model_config, config, mesh)
        )
        content = {"params": abstract.params, "optimizer": abstract.opt_state}
        hosts.once(lambda: _check_arrays(self.folder / str(step), _arrays(content)))
        items = {name: ocp.args.StandardRestore(tree) for name, tree in content.items()}
        with doing(f"loading {self.folder / str(step)}"):
            restored = self._manager.restore(step, args=ocp.args.Composite(**items))
        return TrainState(restored["params"], restored["optimizer"], put(jax.numpy.int32(step), mesh))

    def drop_after(self, step: int) -> None:
        """Removes the checkpoints of later updates."""
        self.settle()
        for later in [found for found in self._manager.all_steps() if found > step]:
            self._manager.delete(later)

    def _seal(self, step: int, arrays: dict[str, str], number: int) -> None:
        """Runs beside the training, once the checkpoint is whole; of many processes each reads its share, and the first writes."""
        self._manager.wait_until_finished()
        folder = self.folder / str(step)
        files = _digests(folder, f"seal/{number}")
        if hosts.first():
            content = {"files": files, "arrays": arrays}
            replace_text(folder / SEAL, json.dumps({**content, "digest": json_digest(content)}, indent=1))

    def settle(self) -> None:
        """Waits until what is being saved is whole; raises its error."""
        pending, self._pending = self._pending, None
        try:
            if pending:
                with doing("waiting for the checkpoint to be whole"):
                    pending.result()
        except TimeoutError as error:
            raise UserError(
                f"{self.folder}: a checkpoint was not finished in time, by this machine's clock: the disk is slow or gone, or the"
                " clock jumped forward; the same command continues"
            ) from error

    def _newest_whole(self) -> int | None:
        hosts.expect(hosts.once(lambda: sum(file.stat().st_size for file in files_below([self.folder]))))
        for step in hosts.once(lambda: list(_steps(self.folder))):
            fault = _fault(self.folder / str(step))
            if fault is None:
                return step
            hosts.once(lambda step=step, fault=fault: self._set_aside(step, fault))
        return None

    def _set_aside(self, step: int, fault: str) -> None:
        aside = self.folder / DAMAGED / str(step)
        while aside.exists():
            aside = aside.with_name(aside.name + "+")
        aside.parent.mkdir(exist_ok=True)
        (self.folder / str(step)).rename(aside)
        say(f"  WARNING: checkpoint of update {step}: {fault}; set aside: {aside}")


class _Keep:
    """Orbax's PreservationPolicy: the newest, and one that is named."""

    step = 0

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        newest = {info.step for info in checkpoints[-KEPT:]}
        return [info.step in newest or info.step == self.step for info in checkpoints]


def restore_params(folder: Path, model_config: ModelConfig, mesh: jax.sharding.Mesh, dtype) -> tuple[int, dict]:
    """The number of the newest whole checkpoint and the weights that were trained, alone. Damaged ones are said, and left.

    Raises:
      UserError: no whole checkpoint in the folder.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give a run's iteration_N/checkpoints")
    for step in _steps(folder):
        if (fault := _fault(folder / str(step))) is None:
            break
        say(f"WARNING: checkpoint of update {step}: {fault}; passed over")
    else:
        raise UserError(f"{folder}: no whole checkpoint here; give a run's iteration_N/checkpoints")
    weights = trained(model_config, abstract_params(model_config))
    shaped = jax.tree.map(lambda w: jax.ShapeDtypeStruct(w.shape, dtype), weights)
    abstract = jax.tree.map(_with_sharding, shaped, trained(model_config, param_shardings(model_config, mesh)))
    with ocp.CheckpointManager(
        _Literal(folder.absolute()), options=ocp.CheckpointManagerOptions(read_only=True)
    ) as manager:
        return step, manager.restore(step, args=ocp.args.Composite(params=ocp.args.StandardRestore(abstract)))["params"]


def _steps(folder: Path) -> Iterator[int]:
    """Updates that have a checkpoint, whole or not, newest first."""
    yield from sorted((int(path.name) for path in folder.iterdir() if path.name.isdecimal()), reverse=True)


def _digests(checkpoint: Path, meeting: str | None = None) -> dict[str, str]:
    """Of a checkpoint's files; all processes call this, and read a share each."""
    found = shared_digests([checkpoint], checkpoint, meeting)
    return {name: digest for name, digest in found.items() if name != SEAL}


def _fault(checkpoint: Path) -> str | None:
    """What keeps a checkpoint from being restored; None where it is whole. All processes call this."""
    seal = hosts.once(lambda: _sealed(checkpoint / SEAL))
    if isinstance(seal, str):
        return seal
    sealed, found = seal["files"], _digests(checkpoint)
    for name in sorted(found.keys() | sealed.keys()):
        if found.get(name) != sealed.get(name):
            return f"{name} " + (
                "is missing" if name not in found else "was changed" if name in sealed else "was added"
            )
    return None


def _sealed(file: Path) -> dict | str:
    """What a seal says, or what is wrong with it."""
    if not file.is_file():
        return f"{SEAL} is missing: it was not finished, or somebody removed it"
    try:
        seal = json.loads(file.read_text(encoding="utf-8"))
        if seal["digest"] != json_digest({"files": seal["files"], "arrays": seal["arrays"]}):
            return f"{SEAL} was changed"
        return {"files": dict(seal["files"])}
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"{SEAL} is damaged"


def _check_arrays(folder: Path, wanted: dict[str, str]) -> None:
    arrays = json.loads((folder / SEAL).read_text(encoding="utf-8"))["arrays"]
    for name in sorted(arrays.keys() | wanted.keys()):
        found, asked = arrays.get(name, "nothing"), wanted.get(name, "nothing")
        if found != asked:
            raise UserError(
                f"{folder}: {name} is {found}, this run asks for {asked}; go on with the config it was begun with, or use another folder"
            )


def _arrays(tree) -> dict[str, str]:
    """Dtype and shape of each array by its path, as "float32[96,32]"."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): f"{leaf.dtype}{list(leaf.shape)}".replace(" ", "")
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def _unless_failed(*, key: str, timeout_ms: int) -> None:
    """The processes meet, as Orbax has it. But where a save has failed here, Orbax would meet the others before it says so, while they
    wait for this process elsewhere: each for the other, as long as a save may take."""
    if error := sys.exception():
        raise error
    ocp.multihost.get_barrier_sync_fn()(key=key, timeout_ms=timeout_ms)


def _print_unless_late(unraisable) -> None:
    """Where a write fails, others are under way, and tell an event loop that is gone: native code prints that, each time."""
    if str(unraisable.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(unraisable)


def _with_sharding(leaf: jax.ShapeDtypeStruct, sharding) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
