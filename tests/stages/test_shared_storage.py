"""What a run writes while it trains, on storage that gets a file when it is closed and takes a change of it a second, as behind gcsfuse."""

from pathlib import Path

import pytest

from sami_jax.config import defaults
from sami_jax.data import jsonl
from sami_jax.ground import hosts
from sami_jax.stages import checkpoint
from sami_jax.stages.checkpoint import Checkpoints
from sami_jax.stages.metrics import MetricsLog
from sami_jax.tracking.trackers import Trackers


@pytest.fixture
def closed(monkeypatch):
    """How many lines each file that lines were added to had, each time that it was closed."""
    closed, opened = [], open

    class Counted:
        def __init__(self, *arguments, **options):
            self._file = opened(*arguments, **options)
            self.write, self.flush = self._file.write, self._file.flush

        def close(self):
            self._file.close()
            closed.append(Path(self._file.name).read_bytes().count(b"\n"))

    monkeypatch.setattr(jsonl, "open", Counted, raising=False)
    monkeypatch.setattr(jsonl, "replace_text", lambda file, text: file.write_text(text))
    return closed


def test_metrics_are_not_a_change_a_line_and_are_there_before_a_checkpoint(tmp_path, closed):
    log = MetricsLog(tmp_path, Trackers({}), defaults(), 1)
    for step in range(1, 6):
        log.write(step, {"loss": 1.0})
    assert closed == []
    log.settle()  # as before a checkpoint is saved
    assert closed == [5]
    log.write(6, {"loss": 1.0})
    log.write(6, {"canaries/kl": 0.0})  # more of the same line: written anew
    assert closed == [5, 6]
    log.settle()
    assert closed == [5, 6]


def test_a_checkpoint_gets_its_name_by_a_renaming_on_every_storage(tmp_path):
    """Orbax may choose a marker file for some: one that comes after the seal would break it."""
    with Checkpoints(tmp_path, lambda folder: None) as checkpoints:
        chosen = checkpoints._manager._options.temporary_path_class
    assert chosen is not None and chosen.__name__ == "AtomicRenameTemporaryPath"


def test_a_save_that_failed_here_waits_for_no_other_process(tmp_path, monkeypatch):
    """Orbax ends a save by meeting the others, even one that failed; they wait for this process in the midst of theirs."""
    monkeypatch.setattr(hosts, "_world", hosts._World(index=1, count=2))
    monkeypatch.setattr(hosts, "once", lambda action: action())
    met = []
    monkeypatch.setattr(checkpoint.ocp.multihost, "get_barrier_sync_fn", lambda: lambda **meeting: met.append(meeting))
    with Checkpoints(tmp_path, lambda folder: None) as checkpoints:
        progress = checkpoints._manager._save_progress_tracker
        progress.set(True)
        assert len(met) == 2 and progress.get()
        with pytest.raises(OSError, match="gone"):
            try:
                raise OSError("the storage is gone")
            finally:
                progress.set(False)
    assert len(met) == 2
