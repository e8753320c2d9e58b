"""The loop with a real server as its sampler: `transformers serve` of the miniature. Killed in each stage; no server is left."""

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest
from support.flags import environment
from support.short_run import changed

pytestmark = [pytest.mark.faults, pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")]
TRANSFORMERS = str(Path(sys.executable).parent / "transformers")
COMMAND = (TRANSFORMERS, "serve", "{model}", "--host", "127.0.0.1", "--port", "{port}", "--device", "cpu")
OPTIONS = [
    *changed("--config.train.updates=(1,1)", "--config.evaluation.queries=2", "--config.canaries.action=off"),
    "--config.sampling.max_new_tokens=32",
    "--config.sampling.engine=server",
    f"--config.server.command={COMMAND!r}",
    "--config.server.concurrency=2",
]
PATIENCE = 900.0  # seconds for a stage, of a machine that others use too


class Run:
    """A run whose processes, and whatever they start, carry a mark."""

    def __init__(self, workdir: Path):
        self.workdir, self.mark = workdir, uuid.uuid4().hex
        argv = [sys.executable, "-m", "sami_jax.cli", "run", *OPTIONS, "--workdir", str(workdir)]
        log = open(workdir.with_suffix(".log"), "a")  # noqa: SIM115 - as long as the process
        variables = environment(SAMI_TEST_MARK=self.mark, HF_HUB_OFFLINE="1", CUDA_VISIBLE_DEVICES="")
        self.process = subprocess.Popen(argv, env=variables, stdout=log, stderr=log)

    def started(self) -> list[int]:
        """The others with its mark."""
        found = []
        for place in Path("/proc").glob("[0-9]*"):
            try:
                marked = f"SAMI_TEST_MARK={self.mark}".encode() in (place / "environ").read_bytes()
            except OSError:
                continue
            if marked and int(place.name) != self.process.pid:
                found.append(int(place.name))
        return found

    def until(self, reached) -> None:
        begun = time.monotonic()
        while not reached(self.workdir):
            assert self.process.poll() is None, self.workdir.with_suffix(".log").read_text()[-2000:]
            assert time.monotonic() - begun < PATIENCE
            time.sleep(0.05)

    def gone(self) -> bool:
        begun = time.monotonic()
        while self.started():
            if time.monotonic() - begun > 120:
                return False
            time.sleep(0.05)
        return True


def lines(file: Path) -> int:
    return file.read_text().count("\n") if file.exists() else 0


STAGES = {
    "the server starts": (signal.SIGKILL, lambda run: (run / "server.log").exists()),
    "the base answers": (signal.SIGTERM, lambda run: lines(run / "iteration_0/evaluation/trained.jsonl.partial")),
    "responses are sampled": (signal.SIGKILL, lambda run: lines(run / "iteration_1/responses.jsonl.partial") > 1),
    "the model is trained": (signal.SIGTERM, lambda run: (run / "iteration_1/checkpoints").exists()),
    "the new model answers": (signal.SIGKILL, lambda run: lines(run / "iteration_1/evaluation/trained.jsonl.partial")),
}


def test_a_run_that_is_killed_in_each_stage_goes_on_and_leaves_no_server(tmp_path):
    workdir = tmp_path / "run"
    for stage, (sent, reached) in STAGES.items():
        run = Run(workdir)
        run.until(reached)
        if stage != "the model is trained":
            assert run.started(), stage
        kept = lines(workdir / "iteration_1/responses.jsonl.partial")
        os.kill(run.process.pid, sent)
        run.process.wait(60)
        assert run.gone(), stage
        assert lines(workdir / "iteration_1/responses.jsonl.partial") >= kept, stage
    run = Run(workdir)
    assert run.process.wait(PATIENCE * 2) == 0, workdir.with_suffix(".log").read_text()[-2000:]
    assert run.gone()
    told = [json.loads(line) for line in (workdir / "agreement.jsonl").read_text().splitlines()]
    assert {Path(row["model"]).parent.name for row in told} > {"iteration_1", "iteration_2"}
    assert all(row["mean"] < 1e-3 for row in told), told
    assert (workdir / "iteration_2/evaluation.json").exists()
