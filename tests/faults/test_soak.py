"""Hundreds of small iterations in one process: memory, open files and compiled programs stop growing."""

import json
import signal
import statistics
import subprocess
from pathlib import Path

import pytest
from support.short_run import changed, sami

MINUTES = 20.2
# A run that writes down, every few seconds, what it holds.
WATCHED = """
import json, os, sys, threading, time
from pathlib import Path

def watch(file, started=time.monotonic()):
    import jax
    while True:
        time.sleep(3)
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        found = {
            "seconds": time.monotonic() - started,
            "bytes": pages * os.sysconf("SC_PAGE_SIZE"),
            "files": len(os.listdir("/proc/self/fd")),
            "threads": threading.active_count(),
            "programs": len(jax.devices()[0].client.live_executables()),
        }
        with open(file, "a") as stream:
            stream.write(json.dumps(found) + "\\n")

threading.Thread(target=watch, args=[os.environ["WATCHED"]], daemon=True).start()
from sami_jax.cli import main
sys.exit(main())
"""
OPTIONS = changed(
    f"--config.train.updates={(1,) * 2000}",
    "--config.train.batch_size=8",
    "--config.evaluation.queries=2",
    "--config.canaries.queries=2",
)


def soak(workdir: Path, seconds: float) -> list[dict]:
    """What a run held over so many seconds, and that it then ends as it is asked to."""
    told = workdir.with_suffix(".watched")
    process = sami(workdir, options=OPTIONS, wrapper=("-c", WATCHED), WATCHED=str(told))
    with pytest.raises(subprocess.TimeoutExpired):
        process.communicate(timeout=seconds)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate()
    assert process.returncode == 143, err
    return [json.loads(line) for line in told.read_text().splitlines()]


@pytest.mark.faults
def test_nothing_grows_in_a_long_run(tmp_path):
    workdir = tmp_path / "run"
    rows = soak(workdir, 60 * MINUTES)
    iterations = len(list(workdir.glob("iteration_*")))
    warm = rows[len(rows) // 4 :]
    first, last = warm[: len(warm) // 3], warm[-len(warm) // 3 :]
    held = {
        name: tuple(statistics.median(row[name] for row in part) for part in (first, last))
        for name in ("bytes", "files", "threads", "programs")
    }
    print(f"{iterations} iterations; medians after warm-up, early and late: {held}")
    assert held["bytes"][1] < 1.05 * held["bytes"][0], held
    assert held["files"][1] <= held["files"][0] + 2, held
    assert held["threads"][1] <= held["threads"][0] + 2, held
    assert held["programs"][1] < 1.05 * held["programs"][0], held
