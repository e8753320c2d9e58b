"""A run of the miniature that passes through every stage in seconds, as a process that can be disturbed."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import safetensors.numpy

from support.flags import environment

# Two iterations, to sample from a trained model too; no more queries than a stage needs to be met in its midst. Rows are padded so far
# that all microbatches of equally many queries have one shape: what one test has compiled, others find.
SHORT = [
    "--config=tiny:smoke",
    "--config.train.updates=(2,2)",
    "--config.train.checkpoint_every=1",
    "--config.train.batch_size=8",
    "--config.train.microbatches=2",
    "--config.train.shapes=1",
    "--config.train.bucket=64",
    "--config.sampling.batch_size=16",
    "--config.evaluation.queries=4",
    "--config.canaries.queries=4",
]


def changed(*options: str) -> list[str]:
    """SHORT with these in place of its own for the same fields."""
    fields = {option.partition("=")[0] for option in options}
    return [*(option for option in SHORT if option.partition("=")[0] not in fields), *options]


def arguments(options: list[str]) -> dict[str, str]:
    """Of `sami_jax.load_config`, for these options of the command: the config's name as `spec`."""
    spec, *fields = (option.removeprefix("--config").removeprefix(".").split("=", 1) for option in options)
    return {"spec": spec[1]} | {name.replace(".", "__"): value for name, value in fields}


# More moments in training, and fewer checkpoints: what was not saved on schedule is saved when a run is asked to end.
DISTURBED = changed(
    "--config.train.updates=(4,4)",
    "--config.train.checkpoint_every=3",
)
# One iteration without canaries, for several processes.
JOINED = [
    "--config=tiny:smoke",
    "--config.train.updates=(2,)",
    "--config.train.batch_size=8",
    "--config.train.microbatches=1",
    "--config.train.shapes=1",
    "--config.train.checkpoint_every=1",
    "--config.sampling.batch_size=16",
    "--config.sampling.max_new_tokens=16",
    "--config.evaluation.queries=4",
    "--config.canaries.action=off",
    "--config.principles.held_out=()",
    "--config.principles.held_out_phrasings=0",
]
# One iteration at a rate so high that its model follows principles far more often than the base.
IMPROVED = [
    "--config=tiny",
    "--config.optim.learning_rate=1e-3",
    "--config.train.updates=(16,)",
    "--config.train.batch_size=32",
    "--config.train.microbatches=2",
    "--config.train.checkpoint_every=16",
    "--config.train.shapes=1",
    "--config.evaluation.queries=48",
    "--config.canaries.action=off",
]
# What a run leaves that must not depend on how often it was disturbed.
LEFT = [
    f"iteration_{n}/{name}"
    for n in (1, 2)
    for name in ("responses.jsonl", "pairs.jsonl", "metrics.jsonl", "canaries.jsonl", "evaluation.json")
]


def sami(
    workdir: Path, *more: str, options=SHORT, wrapper=("-m", "sami_jax.cli"), **variables: str
) -> subprocess.Popen:
    """`sami run` on one device.

    Args:
      wrapper: what Python runs in place of the command line.
      variables: of the environment.
    """
    argv = [sys.executable, *wrapper, "run", *options, "--workdir", str(workdir), *more]
    return subprocess.Popen(
        argv, env=environment(**variables), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


class Undisturbed(NamedTuple):
    """A finished run that nothing happened to."""

    workdir: Path
    out: str
    err: str
    seconds: float  # it took


def once(workdir: Path, options: list[str]) -> Undisturbed:
    """Runs in `workdir`, which the first process to ask does; others wait, and get the same."""
    told = workdir.with_suffix(".json")
    with open(workdir.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not told.exists():
            started = time.monotonic()
            process = sami(workdir, options=options)
            out, err = process.communicate()
            assert process.returncode == 0, err
            told.write_text(json.dumps([out, err, time.monotonic() - started]))
        return Undisturbed(workdir, *json.loads(told.read_text()))


def half_of(undisturbed: Undisturbed, workdir: Path) -> None:
    """What a run by SHORT leaves where it is stopped after its first iteration: the second passes through every stage."""
    shutil.copytree(undisturbed.workdir, workdir)
    shutil.rmtree(workdir / "iteration_2")
    (workdir / "report.html").unlink()


class Commands:
    """A process on one device that runs `sami` commands one after the other, as fast as a user's own would be after its start."""

    CODE = (
        "import contextlib, io, json, os, sys\n"
        "from sami_jax.cli.start import set_up\n"
        "set_up()\n"
        "from sami_jax.ground import terminal\n"
        "from sami_jax.cli import main\n"
        "for line in sys.stdin:\n"
        "    argv, folder = json.loads(line)\n"
        "    os.chdir(folder)\n"
        "    told = io.StringIO()\n"
        "    terminal.console.file = told\n"
        "    with contextlib.redirect_stderr(told), contextlib.redirect_stdout(told):\n"
        "        status = main(argv)\n"
        "    print(json.dumps([status, told.getvalue()]), flush=True)\n"
    )

    def __init__(self):
        pipes = dict.fromkeys(("stdin", "stdout"), subprocess.PIPE)
        self._process = subprocess.Popen([sys.executable, "-c", self.CODE], env=environment(), text=True, **pipes)

    def run(self, *argv: str) -> tuple[int, str]:
        """The exit status, and what was said, in the folder where we are."""
        self._process.stdin.write(json.dumps([argv, os.getcwd()]) + "\n")
        self._process.stdin.flush()
        status, told = json.loads(self._process.stdout.readline())
        return status, told

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()


def finish(process: subprocess.Popen) -> str:
    """Waits for the good end; what was said on stderr."""
    _, err = process.communicate()
    assert process.returncode == 0, err
    return err


def weights(workdir: Path, iteration: int = 2) -> dict[str, np.ndarray]:
    return safetensors.numpy.load_file(workdir / f"iteration_{iteration}" / "model" / "model.safetensors")


def assert_same(workdir: Path, undisturbed: Path) -> None:
    """Every bit of both models and of what was logged is the same, and the audit log tells each stage once."""
    for iteration in (1, 2):
        found = weights(workdir, iteration)
        for name, expected in weights(undisturbed, iteration).items():
            np.testing.assert_array_equal(found[name], expected, err_msg=name)
    for file in LEFT:
        assert (workdir / file).read_text() == (undisturbed / file).read_text(), file
    told = [stages(folder) for folder in (workdir, undisturbed)]
    assert told[0] == told[1], told


def stages(workdir: Path) -> list[tuple]:
    """The audit log's stages, in order, with the digests of what they left."""
    events = [json.loads(line) for line in (workdir / "audit.jsonl").read_text().splitlines()]
    return [(event["event"], event["iteration"], event["files"]) for event in events if "files" in event]
