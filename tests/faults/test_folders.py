"""One run a folder, a folder for one run; and a clock that jumps."""

import concurrent.futures
import json
import shutil
import time

import jax
import numpy as np
import pytest
from support.quick import others_slow
from support.short_run import DISTURBED, SHORT, assert_same, finish, sami
from support.small_model import SMALL, mesh_of

from sami_jax.cli import main
from sami_jax.config import load_config
from sami_jax.contrast.update import init_state
from sami_jax.errors import UserError
from sami_jax.models.decoder import init_params
from sami_jax.stages.checkpoint import Checkpoints, restore_params

# The command line with a clock that goes back by an hour at every tenth look.
BACKWARDS = """
import datetime, itertools, sys, time
real, looks = time.time, itertools.count()
time.time = lambda: real() - 3600 * (next(looks) // 10)
time.time_ns = lambda: int(time.time() * 10**9)

class Backwards(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls.fromtimestamp(time.time(), tz)

datetime.datetime = Backwards
from sami_jax.cli import main
sys.exit(main())
"""


@pytest.mark.faults
def test_a_clock_that_jumps_back_changes_nothing(tmp_path, warm):
    workdir = tmp_path / "run"
    process = sami(workdir, options=DISTURBED, wrapper=("-c", BACKWARDS))
    while process.poll() is None and not (workdir / "iteration_1/checkpoints/3").exists():
        time.sleep(0.01)
    process.kill()
    process.communicate()
    finish(sami(workdir, options=DISTURBED, wrapper=("-c", BACKWARDS)))
    assert_same(workdir, warm.workdir)
    times = [json.loads(line)["time"] for line in (workdir / "audit.jsonl").read_text().splitlines()]
    assert times != sorted(times)
    assert main(["verify", str(workdir)]) == 0
    assert main(["report", str(workdir)]) == 0


def test_a_clock_that_jumps_forward_while_something_is_saved_is_said(tmp_path):
    """Orbax gives up by the wall clock."""
    with Checkpoints(tmp_path, lambda folder: None) as checkpoints:
        checkpoints._pending = concurrent.futures.Future()
        checkpoints._pending.set_exception(TimeoutError("timed out after 2505600.00 seconds."))
        with pytest.raises(UserError, match=r"not finished in time.*the same command continues"):
            checkpoints.settle()


@pytest.mark.slow
def test_a_second_run_in_the_folder_is_told_who_is_there(tmp_path):
    first = sami(tmp_path)
    while first.poll() is None and not (tmp_path / "run.json").exists():
        time.sleep(0.01)
    second = sami(tmp_path)
    _, err = second.communicate()
    assert second.returncode == 2
    assert err.startswith(f"sami: {tmp_path}: in use by process {first.pid} on ") and err.count("\n") == 1
    assert first.poll() is None
    first.kill()
    first.communicate()


def test_another_config_goes_on_by_force_and_that_is_recorded(undisturbed, commands, tmp_path):
    def again(*more: str) -> tuple[int, str]:
        return commands.run("run", *SHORT, "--workdir", str(tmp_path), *more)

    shutil.copytree(undisturbed.workdir, tmp_path, dirs_exist_ok=True)
    (tmp_path / "iteration_2/evaluation.json").unlink()
    more = ["--config.optim.clip_norm=0.5", "--config.evaluation.temperature=0.5"]
    status, said = again(*more)
    assert status == 2
    assert "config.evaluation.temperature was 1.0, now 0.5; config.optim.clip_norm was 1.0, now 0.5" in said
    assert "or --force_resume, which is recorded" in said
    assert again(*more, "--force_resume")[0] == 0
    events = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    [forced] = [event for event in events if event["event"] == "resumed by force"]
    assert "config.optim.clip_norm was 1.0, now 0.5" in forced["differences"]
    predicate = json.loads((tmp_path / "run.json").read_text())["predicate"]
    assert predicate["forced"] == forced["differences"] and predicate["config"]["optim"]["clip_norm"] == 0.5
    # From now on, this is the run's config; the one before is refused.
    assert again(*more)[0] == 0
    assert again()[0] == 2


@pytest.mark.parametrize("name", others_slow(["[x]", "[!a-z] é", "~x ? *"], "~x ? *"))
def test_a_checkpoint_below_any_name_is_restored(tmp_path, name):
    mesh = mesh_of(1, 1, 1)
    config = load_config("tiny", [])[0]
    state = init_state(init_params(SMALL, 0, mesh), SMALL, config, mesh)
    with Checkpoints(tmp_path / name / "checkpoints", lambda folder: None) as checkpoints:
        checkpoints.save(state)
    with Checkpoints(tmp_path / name / "checkpoints", lambda folder: None) as checkpoints:
        restored = checkpoints.restore_latest(SMALL, config, mesh)
    jax.tree.map(np.testing.assert_array_equal, restored.params, state.params)
    step, params = restore_params(tmp_path / name / "checkpoints", SMALL, mesh, np.float32)
    assert step == 0
    jax.tree.map(np.testing.assert_array_equal, params, state.params)


def test_a_name_that_checkpoints_cannot_have_is_told_before_anything_is_done(tmp_path, capsys):
    assert main(["run", f"--workdir={tmp_path}/a\\b"]) == 2
    assert "checkpoints cannot be written below a folder with" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
