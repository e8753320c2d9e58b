"""Two real processes of four devices each: the same results as one of eight; what is lost, or bad in one, ends all in time."""

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from support.flags import environment
from support.scripted_model import free_port
from support.short_run import JOINED
from support.small_model import SMALL, mesh_of

from sami_jax.cli import main
from sami_jax.export.huggingface import export
from sami_jax.ground import hosts
from sami_jax.models.decoder import init_params

LOST_AFTER = 10  # seconds
LINE = f"sami: {hosts.LOST}\n"
SHORT = [*JOINED, "--config.mesh.data=2", "--config.mesh.fsdp=4"]


def start(*argv: str, devices: int = 4, **variables: str) -> subprocess.Popen:
    own = environment(devices, level=0, **variables)  # as here
    return subprocess.Popen([sys.executable, *argv], env=own, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def start_pair(*own: list[str]) -> list[subprocess.Popen]:
    """Starts `python OWN[i] --coordinator ...` as process i."""
    there = ["--coordinator", f"127.0.0.1:{free_port()}", "--processes", "2", "--lost_after", str(LOST_AFTER)]
    return [start(*argv, *there, "--process", str(index)) for index, argv in enumerate(own)]


def ends(processes: list[subprocess.Popen]) -> list[tuple[int, str, str]]:
    """Status, output and errors of each."""
    with contextlib.ExitStack() as stack:
        for process in processes:
            stack.callback(process.kill)
        said = [process.communicate(timeout=600) for process in processes]
    return [(process.returncode, *texts) for process, texts in zip(processes, said, strict=True)]


def run(workdir: Path, *more: str) -> list[str]:
    return ["-m", "sami_jax.cli", "run", *SHORT, "--workdir", str(workdir), *more]


# Programs of few seconds, without a model: the options come as the last arguments.
PREAMBLE = """
import pathlib, sys, time
from sami_jax.ground import hosts
from sami_jax.ground.accelerators import pass_over_cuda
pass_over_cuda()  # what compiles plans for GPUs may be installed
_, folder, *faults, _, coordinator, _, count, _, lost_after, _, index = sys.argv
folder, index = pathlib.Path(folder), int(index)
hosts.join(coordinator, int(count), index, int(lost_after))
import jax
import numpy as np
from sami_jax.errors import TryAgain, UserError
from sami_jax.models.config import ModelConfig
from sami_jax.models.decoder import init_params
from sami_jax.export.huggingface import export
from sami_jax import sharding
from sami_jax.sharding import gathered, make_mesh, put
mesh = make_mesh({"fsdp": 4, "data": 2})
"""
MEETING = """
def wrong():
    raise UserError("wrong")
assert hosts.once(lambda: [index]) == [0]
assert hosts.once(lambda: (hosts.meet(), hosts.count())) == [None, 1]  # within, the first is alone
try:
    hosts.once(wrong)
except UserError as error:
    assert str(error) == "wrong"
def gone():
    raise TryAgain("gone")
try:
    hosts.once(gone)
except TryAgain as error:  # in all, with its status
    assert (str(error), error.status) == ("gone", 75)
def numbered(items):
    return {item: [index, hosts.count()] for item in items}
assert hosts.shared(lambda: ["c", "a", "b"] if index == 0 else [], numbered) == {"c": [0, 2], "a": [1, 2], "b": [0, 2]}
beside = hosts.shared(lambda: ["x", "y"], lambda items: {item: index for item in items}, "a meeting")
assert beside == {"x": 0, "y": 1}
# A thread beside the program takes no notice of what the first does alone.
assert hosts.once(lambda: hosts._joined.count) == 2
array = np.arange(48.0).reshape(16, 3)
sharding.BLOCK_BYTES = 5 * array[0].nbytes  # blocks of 5, 5, 5 and 1 rows
assert (gathered(put(array, mesh, ("batch", None))) == array).all()
assert gathered(put(array, mesh, ("batch", None)), wanted=False) is None
export(init_params(SMALL, 0, mesh), SMALL, folder / "model", lambda folder: None, max_shard_bytes=30_000)
hosts.leave()
"""
WORKING = """
add = jax.jit(lambda x: x + x.sum())
x = put(np.zeros(8, np.float32), mesh, ("batch",))
try:
    while True:
        x = add(x).block_until_ready()
        (folder / str(index)).touch()
        if faults:
            raise ValueError("a fault of its own")
        time.sleep(0.01)
except Exception:
    hosts.crash()
"""


def program(text: str, folder: Path, *more: str) -> list[str]:
    return ["-c", f"{PREAMBLE}SMALL = {SMALL!r}\n{text}", str(folder), *more]


@pytest.mark.slow
def test_meeting_gathering_and_exporting(tmp_path):
    for status, out, err in ends(start_pair(*[program(MEETING, tmp_path)] * 2)):
        assert (status, out, err) == (0, "", "")
    export(
        init_params(SMALL, 0, mesh_of(2, 4, 1)), SMALL, tmp_path / "alone", lambda folder: None, max_shard_bytes=30_000
    )
    names = sorted(file.name for file in (tmp_path / "alone").iterdir())
    assert sum(name.endswith(".safetensors") for name in names) > 2
    assert names == sorted(file.name for file in (tmp_path / "model").iterdir())
    for name in names:
        assert (tmp_path / "model" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes(), name


@pytest.mark.slow
@pytest.mark.parametrize("lost", [0, 1])
def test_a_lost_process_ends_the_other_in_one_line(tmp_path, lost):
    processes = start_pair(*[program(WORKING, tmp_path)] * 2)
    while not (tmp_path / "1").exists() and processes[1].poll() is None:
        time.sleep(0.1)
    processes[lost].kill()
    began = time.monotonic()
    status, out, err = ends(processes)[1 - lost]
    assert (status, out, err) == (hosts.LOST_STATUS, "", LINE)
    assert time.monotonic() - began < LOST_AFTER + 20


@pytest.mark.slow
def test_a_crash_in_one_ends_the_other(tmp_path):
    first, second = ends(start_pair(program(WORKING, tmp_path), program(WORKING, tmp_path, "crash")))
    assert second[0] == 1 and "ValueError: a fault of its own" in second[2]
    assert first == (hosts.LOST_STATUS, "", LINE)


@pytest.mark.slow
def test_bad_input_is_said_once(tmp_path):
    bad = "--config.optim.learning_rate=-1"
    first, second = ends(start_pair(*[run(tmp_path / "both", bad)] * 2))
    assert first[0] == second[0] == 2
    assert first[2].startswith("sami: config.optim.learning_rate=-1.0: must be above 0") and first[2].count("\n") == 1
    assert second[2] == "" and not (tmp_path / "both").exists()
    first, second = ends(start_pair(run(tmp_path / "here"), run(tmp_path / "there")))
    assert first[0] == second[0] == 2
    for err, name in ((first[2], "here"), (second[2], "there")):
        assert err.endswith(f"{name}: process 1 does not see what process 0 writes here; use a folder that all share\n")


@pytest.mark.faults
def test_bad_input_of_one_process_ends_the_other(tmp_path):
    bad = run(tmp_path / "one", "--config.optim.learning_rate=-1")
    first, second = ends(start_pair(run(tmp_path / "one"), bad))
    assert second[0] == 2 and "must be above 0" in second[2]
    assert (first[0], first[2]) == (hosts.LOST_STATUS, LINE)


@pytest.mark.slow
def test_slurm_tells_who_the_others_are(tmp_path):
    job = str(int.from_bytes(os.urandom(3)))
    slurm = {"SLURM_JOB_ID": job, "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": "2"}
    argv = run(tmp_path / "run", "--distributed", "--config.mesh.fsdp=3")
    ranks = [{"SLURM_PROCID": str(i), "SLURM_LOCALID": str(i)} for i in range(2)]
    first, second = ends([start(*argv, **slurm, **rank) for rank in ranks])
    assert first[0] == second[0] == 2 and second[2] == ""
    assert "does not use 8 device(s) exactly" in first[2]  # those of both


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("alone") / "run"
    [(status, _, err)] = ends([start(*run(workdir), devices=8)])
    assert status == 0, err
    return workdir


@pytest.mark.faults
def test_two_processes_killed_and_continued_equal_one(alone, tmp_path):
    workdir = tmp_path / "run"
    processes = start_pair(*[run(workdir)] * 2)
    sign = workdir / "iteration_1/checkpoints/1/_CHECKPOINT_METADATA"
    while not sign.exists() and processes[0].poll() is None:
        time.sleep(0.05)
    processes[1].kill()
    began = time.monotonic()
    status, _, err = ends(processes)[0]
    assert status == hosts.LOST_STATUS and err.endswith("\n" + LINE) and "Traceback" not in err
    assert time.monotonic() - began < LOST_AFTER + 40
    assert not (workdir / "iteration_1/model").exists()

    first, second = ends(start_pair(*[run(workdir)] * 2))
    assert first[0] == second[0] == 0, first[2] + second[2]
    assert "wins over base" in first[1] and second[1:] == ("", "")
    for file in ("iteration_0/evaluation/trained.jsonl", "iteration_1/responses.jsonl", "iteration_1/pairs.jsonl"):
        assert (workdir / file).read_text() == (alone / file).read_text(), file
    ours, single = (
        safetensors.numpy.load_file(folder / "iteration_1/model/model.safetensors") for folder in (workdir, alone)
    )
    for name, expected in single.items():
        np.testing.assert_allclose(ours[name], expected, atol=1e-5, err_msg=name)
    steps = [json.loads(line)["step"] for line in (workdir / "iteration_1/metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 2]
    devices = json.loads((workdir / "run.json").read_text())["predicate"]["devices"]
    assert devices["count"] == 8 and devices["processes"] == 2
    assert main(["verify", str(workdir)]) == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--coordinator", "a:1"], "--coordinator: --processes is missing"),
        (["--process", "0", "--processes", "2"], "--processes: --coordinator is missing"),
        (["--coordinator", "a", "--processes", "2", "--process", "0"], "--coordinator a: must be HOST:PORT"),
        (["--coordinator", "a:1", "--processes", "2", "--process", "2"], "--process 2: must be from 0 to one less"),
        (["--distributed", "--process", "0"], "--distributed finds out --process by itself"),
        (["--lost_after", "30"], "--lost_after: there are no other processes"),
        (["--start_within", "30"], "--start_within: there are no other processes"),
        (["--distributed", "--start_within", "1"], "--start_within 1: must be at least 5 seconds"),
        (["--distributed", "--lost_after", "1"], "--lost_after 1: must be at least 5 seconds"),
    ],
)
@pytest.mark.parametrize("verb", ["run", "train", "evaluate"])
def test_options_that_do_not_go_together(capsys, verb, options, words):
    needed = {"run": [], "train": ["--pairs=x", "--output=x"], "evaluate": ["--model=x", "--output=x"]}
    assert main([verb, *needed[verb], *options]) == 2
    [line] = capsys.readouterr().err.strip().splitlines()
    assert words in line
