"""A whole run on four hosts with addresses of their own, over a plain folder and over a bucket as gcsfuse shows it: whatever becomes of a
host or of its storage, all end in bounded time with the status that launchers go by, and the same command ends in the same bits."""

import hashlib
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from support import bucket
from support.flags import environment
from support.pod import PORT, Pod, can_be_made
from support.short_run import JOINED

from sami_jax.cli import main
from sami_jax.errors import LOST, TRY_AGAIN

pytestmark = [pytest.mark.faults, pytest.mark.skipif(not can_be_made(), reason="needs root and network namespaces")]
through_a_bucket = pytest.mark.skipif(not bucket.can_be_mounted(), reason="needs /dev/fuse, mfusepy and libfuse")
HOSTS, LOST_AFTER, START_WITHIN = 4, 30, 600
SLACK = 120  # seconds of a busy machine
WORK = 1200  # seconds that a run may take there
RUN = [*JOINED, "--config.train.updates=(4,)", "--config.mesh.data=2", "--config.mesh.fsdp=2"]
OURS = "iteration_1"
ADVISED: list[str] = []  # as launch/ mounts it: nothing is remembered
# What stages leave, which must not depend on what happened on the way.
LEFT = [f"{OURS}/{name}" for name in ("responses.jsonl", "pairs.jsonl", "metrics.jsonl", "evaluation.json", "model")]
# As `sami`, which closes what it samples once a minute; so short a run does within a second, and takes its time.
SLOWLY = """
import sys, time
from sami_jax.data import jsonl
from sami_jax.cli import main
jsonl.CLOSED_EVERY = 1.0
add = jsonl.Appended.add
def slowly(self, row):
    time.sleep(0.2)
    add(self, row)
jsonl.Appended.add = slowly
sys.exit(main())
"""


@pytest.fixture(scope="module")
def compiled(tmp_path_factory) -> dict[str, str]:
    """Programs are compiled once, as they are on a pod."""
    folder = str(tmp_path_factory.mktemp("compiled"))
    return {"JAX_COMPILATION_CACHE_DIR": folder, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, compiled) -> Path:
    """The folder of a run on a pod that nothing happened to."""
    with Pod(tmp_path_factory.mktemp("undisturbed"), HOSTS) as pod:
        start(pod, compiled)
        ends_well(pod, "nothing, a plain folder")
    return workdir(pod)


@pytest.fixture
def pod(request, tmp_path):
    """Over the storage that a test names: None, or options of a bucket."""
    with Pod(tmp_path, HOSTS, getattr(request, "param", None)) as pod:
        yield pod


def over(*mounted):
    """Over each of these; None is a plain folder."""
    cases = [pytest.param(given, id="plain folder") if given is None else _bucket(given) for given in mounted]
    return pytest.mark.parametrize("pod", cases, indirect=True)


def _bucket(options: list[str]):
    return pytest.param(options, marks=through_a_bucket, id=" ".join(["bucket", *options]))


def workdir(pod: Pod) -> Path:
    return pod.seen / "run"


def start(pod: Pod, compiled: dict[str, str], *numbers: int, program=("-m", "sami_jax.cli")) -> None:
    for number in numbers or range(HOSTS):
        there = ["--coordinator", f"node0:{PORT}", "--processes", str(HOSTS), "--process", str(number)]
        waits = ["--lost_after", str(LOST_AFTER), "--start_within", str(START_WITHIN)]
        argv = ["run", *RUN, "--workdir", str(pod.shared / "run"), *there, *waits]
        pod.start(number, *program, *argv, **compiled)


def wait_for(pod: Pod, sign: str) -> None:
    end = time.monotonic() + WORK
    while not list(workdir(pod).glob(sign)):
        ended = [number for number, process in pod.processes.items() if process.poll() is not None]
        assert not ended, {number: pod.ends(number, 5) for number in ended}
        assert time.monotonic() < end, f"{sign} does not come"
        time.sleep(0.1)


def kept(pod: Pod) -> str:
    """What the storage holds of the run, in words."""
    folder = workdir(pod) / OURS
    sealed = sorted(int(seal.parent.name) for seal in folder.glob("checkpoints/[0-9]*/seal.json"))
    responses = [file for file in folder.glob("responses.jsonl*") if file.suffix in (".jsonl", ".partial")]
    lines = sum(file.read_bytes().count(b"\n") for file in responses)
    return f"{lines} responses, checkpoints {sealed}" + (", model" if (folder / "model").exists() else "")


def ends(pod: Pod, fault: str, numbers, seconds: float) -> dict[int, tuple[int, str]]:
    """How they end, in bounded time; told for the table."""
    began = time.monotonic()
    found = {number: pod.ends(number, max(1.0, began + seconds - time.monotonic())) for number in numbers}
    statuses = {number: status for number, (status, _) in found.items()}
    print(f"| {fault} | {statuses} | {time.monotonic() - began:.0f} | {kept(pod)} |", file=sys.__stderr__, flush=True)
    assert all("Traceback" not in said for _, said in found.values()), found
    return found


def ends_well(pod: Pod, fault: str) -> dict[int, tuple[int, str]]:
    found = ends(pod, fault, range(HOSTS), WORK)
    assert all(status == 0 for status, _ in found.values()), found
    return found


def assert_same(pod: Pod, undisturbed: Path) -> None:
    """To the bit, and proven by its own books."""
    for name in LEFT:
        assert digests(workdir(pod) / name) == digests(undisturbed / name), name
    assert main(["verify", str(workdir(pod))]) == 0


def digests(path: Path) -> dict[str, str]:
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    return {str(file.relative_to(path)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def goes_on(pod: Pod, compiled: dict[str, str], fault: str, undisturbed: Path) -> None:
    """The same command on all hosts ends as if nothing had been."""
    pod.stop_all()
    start(pod, compiled)
    ends_well(pod, f"{fault}, again")
    assert_same(pod, undisturbed)


def test_undisturbed_equals_one_process(undisturbed, tmp_path, compiled):
    """Of as many devices: within rounding, as sums over processes are made in another order."""
    alone = tmp_path / "run"
    argv = [sys.executable, "-m", "sami_jax.cli", "run", *RUN, "--workdir", str(alone)]
    done = subprocess.run(argv, env=environment(HOSTS, 0, **compiled), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name in ("responses.jsonl", "pairs.jsonl"):
        assert (alone / OURS / name).read_text() == (undisturbed / OURS / name).read_text(), name
    ours, theirs = (
        safetensors.numpy.load_file(folder / OURS / "model/model.safetensors") for folder in (undisturbed, alone)
    )
    for name, expected in theirs.items():
        np.testing.assert_allclose(ours[name], expected, atol=1e-5, err_msg=name)
    devices = json.loads((undisturbed / "run.json").read_text())["predicate"]["devices"]
    assert devices["count"] == devices["processes"] == HOSTS
    assert main(["verify", str(undisturbed)]) == 0


@over(ADVISED, ["--flat"], ["--ttl=60", "--negative_ttl=5"])
def test_a_bucket_is_as_good_as_a_folder(pod, request, undisturbed, compiled):
    start(pod, compiled)
    ends_well(pod, f"nothing, {request.node.callspec.id}")
    assert_same(pod, undisturbed)


@over(None, ADVISED, ["--flat"])
@pytest.mark.parametrize("number", [0, 2])
def test_a_host_that_is_gone(pod, request, number, undisturbed, compiled):
    start(pod, compiled)
    wait_for(pod, f"{OURS}/checkpoints/1/seal.json")
    pod.lose(number)
    fault = f"host {number} gone while it trains, {request.node.callspec.id.removesuffix(f'-{number}')}"
    others = [other for other in range(HOSTS) if other != number]
    found = ends(pod, fault, others, LOST_AFTER + SLACK)
    assert {status for status, _ in found.values()} == {LOST}, found
    pod.mount(number)
    goes_on(pod, compiled, fault, undisturbed)


@over(ADVISED)
def test_a_host_that_is_gone_while_it_samples(pod, undisturbed, compiled):
    """What was closed is kept, what was not is sampled again."""
    start(pod, compiled, program=("-c", SLOWLY))
    wait_for(pod, f"{OURS}/responses.jsonl.partial")
    pod.lose(0)
    fault = "host 0 gone while it samples, bucket"
    found = ends(pod, fault, range(1, HOSTS), LOST_AFTER + SLACK)
    assert {status for status, _ in found.values()} == {LOST}, found
    partial = workdir(pod) / OURS / "responses.jsonl.partial"
    before = partial.read_text()
    assert before.count("\n") > 1 and (undisturbed / OURS / "responses.jsonl").read_text().startswith(before)
    pod.mount(0)
    goes_on(pod, compiled, fault, undisturbed)


@over(None, ADVISED)
def test_a_host_that_hangs(pod, request, undisturbed, compiled):
    start(pod, compiled)
    wait_for(pod, f"{OURS}/checkpoints/1/seal.json")
    pod.hang(1)
    fault = f"host 1 hangs while it trains, {request.node.callspec.id}"
    found = ends(pod, fault, (0, 2, 3), LOST_AFTER + SLACK)
    assert {status for status, _ in found.values()} == {LOST}, found
    goes_on(pod, compiled, fault, undisturbed)


@over(ADVISED)
@pytest.mark.parametrize("number", [0, 3])
def test_storage_that_is_gone_on_one_host(pod, number, undisturbed, compiled):
    """As where gcsfuse is ended for the memory it takes: the host says so, and the others that it is gone."""
    start(pod, compiled)
    wait_for(pod, f"{OURS}/checkpoints/1/seal.json")
    pod.end_mount(number)
    fault = f"host {number}'s gcsfuse dies while it trains"
    found = ends(pod, fault, range(HOSTS), WORK)
    assert found[number][0] == TRY_AGAIN and "Transport endpoint is not connected" in found[number][1], found
    assert {found[other][0] for other in range(HOSTS)} <= {LOST, TRY_AGAIN}, found
    pod.lose_mount(number)
    pod.mount(number)
    goes_on(pod, compiled, fault, undisturbed)


@over(ADVISED)
def test_a_host_that_is_late_and_a_name_that_is(pod, undisturbed, compiled):
    pod.forget(2, 0)
    start(pod, compiled, 0, 1, 2)
    time.sleep(90)
    start(pod, compiled, 3)
    time.sleep(30)
    pod.know(2, 0)
    found = ends_well(pod, "host 3 starts 90 s late, host 2 knows the coordinator's name 120 s late")
    assert f"node0:{PORT}: its name is not known here" in found[2][1]
    assert f"node0:{PORT} (from 10.77.0.1, 10.77.0.2)" in found[0][1]
    assert_same(pod, undisturbed)
