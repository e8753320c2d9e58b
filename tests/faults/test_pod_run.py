"""A whole run on four hosts with addresses of their own, over a plain folder and over a bucket as gcsfuse shows it: whatever becomes of a
host or of its storage, all end in bounded time with the status that launchers go by, and the same command ends in the same bits."""

import contextlib
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
HOSTS, LOST_AFTER, START_WITHIN = 4, 30, 600
SLACK = 120  # seconds of a busy machine
WORK = 1200  # seconds that a run may take there
RUN = [
    *JOINED,
    "--config.train.updates=(3,)",
    "--config.mesh.data=2",
    "--config.mesh.fsdp=2",
    "--config.sampling.batch_size=48",
    "--config.sampling.max_new_tokens=8",
    "--config.evaluation.queries=2",
]
OURS = "iteration_1"
# What hosts share: a name, the options of support/bucket.py, None for a plain folder, and what it needs.
through_a_bucket = pytest.mark.skipif(not bucket.can_be_mounted(), reason="needs /dev/fuse, mfusepy and libfuse")
STORAGE = [
    ("plain folder", None, ()),
    ("bucket", [], through_a_bucket),  # as launch/ mounts it
    ("flat bucket", ["--flat"], through_a_bucket),
    ("bucket with caches", ["--ttl=60", "--negative_ttl=5"], through_a_bucket),  # gcsfuse's own settings
]
# What stages leave, which must not depend on what happened on the way.
LEFT = ("responses.jsonl", "pairs.jsonl", "metrics.jsonl", "evaluation.json", "model/model.safetensors")
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
    with Pod(tmp_path, HOSTS, request.param) as pod:
        yield pod


def workdir(pod: Pod) -> Path:
    return pod.seen / "run"


def start(pod: Pod, compiled: dict[str, str], *numbers: int, program=("-m", "sami_jax.cli")) -> None:
    for number in numbers or range(HOSTS):
        there = ["--coordinator", f"node0:{PORT}", "--processes", str(HOSTS), "--process", str(number)]
        waits = ["--lost_after", str(LOST_AFTER), "--start_within", str(START_WITHIN)]
        argv = ["run", *RUN, "--workdir", str(pod.shared / "run"), *there, *waits]
        pod.start(number, *program, *argv, **compiled)


def sampled(pod: Pod) -> str:
    """The responses that the storage holds."""
    for name in ("responses.jsonl.partial", "responses.jsonl"):
        with contextlib.suppress(FileNotFoundError):  # they are renamed, at some moment
            return (workdir(pod) / OURS / name).read_text()
    return ""


def kept(pod: Pod) -> str:
    """What the storage holds of the run, in words."""
    folder = workdir(pod) / OURS
    sealed = sorted(int(seal.parent.name) for seal in folder.glob("checkpoints/[0-9]*/seal.json"))
    lines = sampled(pod).count("\n")
    return f"{lines} responses, checkpoints {sealed}" + (", model" if (folder / "model").exists() else "")


def ends(pod: Pod, fault: str, numbers, seconds: float) -> dict[int, tuple[int, str]]:
    """How they end, in bounded time; told for the table."""
    began = time.monotonic()
    found = {number: pod.ends(number, max(1.0, began + seconds - time.monotonic())) for number in numbers}
    tell(pod, fault, {number: status for number, (status, _) in found.items()}, began)
    assert all("Traceback" not in said for _, said in found.values()), found
    return found


def tell(pod: Pod, fault: str, how, began: float) -> None:
    print(f"| {fault} | {how} | {time.monotonic() - began:.0f} | {kept(pod)} |", file=sys.__stderr__, flush=True)


def ends_well(pod: Pod, fault: str) -> dict[int, tuple[int, str]]:
    found = ends(pod, fault, range(HOSTS), WORK)
    assert all(status == 0 for status, _ in found.values()), found
    return found


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


@pytest.mark.parametrize(
    "pod", [pytest.param(options, marks=marks, id=name) for name, options, marks in STORAGE], indirect=True
)
def test_a_run_that_all_of_it_happens_to(pod, request, undisturbed, compiled):
    """One after the other, the same command each time."""
    storage = request.node.callspec.id
    begins_late(pod, storage, compiled)
    loses_the_first_host_while_it_samples(pod, storage, undisturbed)
    loses_storage_or_a_host_while_it_trains(pod, storage, compiled)
    hangs(pod, storage, compiled)
    start(pod, compiled)
    ends_well(pod, f"{storage}: again, undisturbed")
    for name in LEFT:
        assert (workdir(pod) / OURS / name).read_bytes() == (undisturbed / OURS / name).read_bytes(), name
    assert main(["verify", str(workdir(pod))]) == 0


def begins_late(pod: Pod, storage: str, compiled: dict[str, str]) -> None:
    """A host starts late, another knows the coordinator's name late: they are waited for, and named."""
    began = time.monotonic()
    pod.forget(2, 0)
    start(pod, compiled, 0, 1, 2, program=("-c", SLOWLY))
    unknown, there = f"node0:{PORT}: its name is not known here", f"have reached node0:{PORT} (from 10.77.0.1"
    pod.wait_for(lambda: unknown in pod.said(2) and there in pod.said(0), WORK)
    late = time.monotonic() - began
    start(pod, compiled, 3, program=("-c", SLOWLY))
    pod.know(2, 0)
    pod.wait_for(lambda: sampled(pod).count("\n") > 1, WORK)
    tell(pod, f"{storage}: host 3 starts and host 2 knows the coordinator's name {late:.0f} s late", "it works", began)


def loses_the_first_host_while_it_samples(pod: Pod, storage: str, undisturbed: Path) -> None:
    """What had been closed is kept."""
    pod.lose(0)
    found = ends(pod, f"{storage}: host 0 gone while it samples", (1, 2, 3), LOST_AFTER + SLACK)
    assert {status for status, _ in found.values()} == {LOST}, found
    assert (undisturbed / OURS / "responses.jsonl").read_text().startswith(sampled(pod))
    pod.mount(0)


def loses_storage_or_a_host_while_it_trains(pod: Pod, storage: str, compiled: dict[str, str]) -> None:
    """Storage as where gcsfuse is ended for the memory it takes: the host says so, and the others that it is gone."""
    start(pod, compiled)
    pod.wait_for((workdir(pod) / OURS / "checkpoints/1/seal.json").exists, WORK)
    if storage == "plain folder":
        pod.lose(3)
        found = ends(pod, f"{storage}: host 3 gone while it trains", (0, 1, 2), LOST_AFTER + SLACK)
        assert {status for status, _ in found.values()} == {LOST}, found
        return
    pod.end_mount(3)
    found = ends(pod, f"{storage}: host 3 loses its storage while it trains", range(HOSTS), WORK)
    assert found[3][0] == TRY_AGAIN and "Transport endpoint is not connected" in found[3][1], found
    assert {found[other][0] for other in range(3)} <= {LOST, TRY_AGAIN}, found
    pod.lose_mount(3)
    pod.mount(3)


def hangs(pod: Pod, storage: str, compiled: dict[str, str]) -> None:
    start(pod, compiled)
    pod.wait_for(lambda: "Iteration 1" in pod.said(0), WORK)
    pod.hang(1)
    found = ends(pod, f"{storage}: host 1 hangs", (0, 2, 3), LOST_AFTER + SLACK)
    assert {status for status, _ in found.values()} == {LOST}, found
    pod.stop_all()
