"""kill -9 at moments drawn by chance, over and over, in every stage of a run: the end is the undisturbed one, to the bit."""

import random
import signal
import subprocess
from pathlib import Path

import pytest
from support.short_run import DISTURBED, assert_same, finish, sami

from sami_jax.provenance.verify import verify

CHAINS, KILLS = 8, 5  # runs, and kills in each


@pytest.mark.faults
@pytest.mark.parametrize("seed", range(CHAINS))
def test_runs_killed_at_random_end_in_the_same_bits(tmp_path, warm, seed):
    chance = random.Random(seed)
    kills, runs = [], 0
    workdir = tmp_path / "0"
    while len(kills) < KILLS:
        process = sami(workdir, options=DISTURBED)
        try:
            process.communicate(timeout=chance.uniform(1, warm.seconds))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            kills.append(_last_sign(workdir))
            continue
        # It came to its end before the moment that was drawn: another one, from the start.
        assert process.returncode == 0
        assert_same(workdir, warm.workdir)
        runs += 1
        workdir = tmp_path / str(runs)
    finish(sami(workdir, options=DISTURBED))
    assert_same(workdir, warm.workdir)
    assert verify(workdir).status == "complete"
    print(f"seed {seed}: killed after {'; '.join(kills)}")


def _last_sign(workdir: Path) -> str:
    """What a run had written last."""
    files = [file for file in workdir.rglob("*") if file.is_file() and file.name != "run.lock"]
    return max(files, key=lambda file: file.stat().st_mtime_ns).relative_to(workdir).as_posix() if files else "nothing"
