"""Four hosts with addresses of their own: one dies, one hangs, one comes late, a name is known late; the run ends or goes on, each time
with the status that launchers go by, and nothing that was kept is lost."""

import json
import signal
import sys
import time

import pytest
from support.pod import PORT, Pod, can_be_made

from sami_jax.errors import LOST, TRY_AGAIN

pytestmark = [pytest.mark.faults, pytest.mark.skipif(not can_be_made(), reason="needs root and network namespaces")]
HOSTS, LOST_AFTER, START_WITHIN = 4, 10, 60
SLACK = 30  # seconds of a busy machine
# As a run does: joins, computes over all devices, keeps lines as it goes, and goes on after the last.
WORK = """
import pathlib, sys
from sami_jax.errors import UserError
from sami_jax.ground import gathering, hosts
folder, index, steps, lost_after, start_within = pathlib.Path(sys.argv[1]), *map(int, sys.argv[2:6])
gathering.QUIET = 8
try:
    hosts.join("node0:PORT", 4, index, lost_after, start_within)
    import jax, numpy as np, time
    from sami_jax.data.jsonl import Appended, read_appended
    from sami_jax.sharding import make_mesh, put
    mesh = make_mesh({"data": -1})
    add = jax.jit(lambda x: x + x.sum())
    kept = folder / "kept.jsonl"
    done = hosts.once(lambda: len(read_appended(kept)))
    with Appended(kept if hosts.first() else "/dev/null") as lines:
        for step in range(done, steps):
            add(put(np.zeros(4, np.float32), mesh, ("batch",))).block_until_ready()
            lines.add({"step": step})
            (folder / f"at{index}").write_text(str(step))
            time.sleep(0.1)
    hosts.leave()
except UserError as error:
    print(f"sami: {error}", file=sys.stderr)
    hosts.exit_now(error.status)
except Exception:
    hosts.crash()
""".replace("PORT", str(PORT))


@pytest.fixture
def pod(tmp_path):
    with Pod(tmp_path, HOSTS) as pod:
        yield pod


def start(pod: Pod, *numbers: int, steps: int = 100_000) -> None:
    for number in numbers:
        pod.start(number, "-c", WORK, str(pod.shared), str(number), str(steps), str(LOST_AFTER), str(START_WITHIN))


def wait_for_work(pod: Pod) -> None:
    signs = [pod.shared / f"at{number}" for number in range(HOSTS)]
    pod.wait_for(lambda: all(sign.exists() and sign.read_text() > "1" for sign in signs), START_WITHIN + 2 * SLACK)


def wait_for_words(pod: Pod, words: dict[int, str]) -> None:
    """Until these hosts say for what they wait."""
    pod.wait_for(lambda: all(said in pod.said(number) for number, said in words.items()), START_WITHIN + SLACK)


def kept(pod: Pod) -> int:
    rows = [json.loads(line) for line in (pod.shared / "kept.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(len(rows)))  # none lost, none doubled
    return len(rows)


def end_of(pod: Pod, fault: str, numbers, seconds: float) -> dict[int, tuple[int, str]]:
    """How they end, in bounded time; told for the table."""
    began = time.monotonic()
    ends = {number: pod.ends(number, max(1.0, began + seconds - time.monotonic())) for number in numbers}
    lines = kept(pod) if (pod.shared / "kept.jsonl").exists() else 0
    statuses = {number: status for number, (status, _) in ends.items()}
    print(f"| {fault} | {statuses} | {time.monotonic() - began:.0f} | {lines} lines |", file=sys.__stderr__)
    return ends


def goes_on(pod: Pod, fault: str) -> None:
    """The same command on all hosts continues."""
    before = kept(pod)
    start(pod, *range(HOSTS), steps=before + 5)
    ends = end_of(pod, f"{fault}, again", range(HOSTS), START_WITHIN + 2 * SLACK)
    assert all(status == 0 for status, _ in ends.values()), ends
    assert kept(pod) == before + 5


@pytest.mark.parametrize("number", [0, 2])
@pytest.mark.parametrize("how", ["killed", "stopped", "cut off"])
def test_a_host_that_is_lost_ends_the_others_and_the_run_goes_on(pod, how, number):
    start(pod, *range(HOSTS))
    wait_for_work(pod)
    if how == "cut off":
        pod.cut_off(number)
    else:
        pod.processes[number].send_signal(signal.SIGKILL if how == "killed" else signal.SIGSTOP)
    others = [other for other in range(HOSTS) if other != number]
    fault = f"host {number} {how}"
    ends = end_of(pod, fault, others, 3 * LOST_AFTER + SLACK)
    assert {status for status, _ in ends.values()} == {LOST}, ends
    assert all("Traceback" not in said for _, said in ends.values())
    pod.stop_all()
    if how != "cut off":
        goes_on(pod, fault)


def test_a_host_that_comes_late_is_waited_for(pod):
    start(pod, 0, 1, 2, steps=5)
    there = "3 of 4 have reached node0:8476 (from 10.77.0.1, 10.77.0.2, 10.77.0.3)"
    wait_for_words(pod, {0: there, 1: "node0:8476 answers, others are missing"})
    start(pod, 3, steps=5)
    ends = end_of(pod, "host 3 starts late", range(HOSTS), START_WITHIN + SLACK)
    assert all(status == 0 for status, _ in ends.values()), ends


def test_a_host_that_does_not_come_is_named_and_no_loss(pod):
    start(pod, 0, 1, 3)
    ends = end_of(pod, "host 2 does not come", (0, 1, 3), START_WITHIN + 2 * SLACK)
    assert {status for status, _ in ends.values()} == {TRY_AGAIN}, ends
    assert "3 of 4 have reached node0:8476 (from 10.77.0.1, 10.77.0.2, 10.77.0.4)" in ends[0][1]


def test_a_name_that_is_known_late(pod):
    pod.forget(3, 0)
    start(pod, *range(HOSTS), steps=5)
    wait_for_words(pod, {3: "node0:8476: its name is not known here"})
    pod.know(3, 0)
    ends = end_of(pod, "host 3 knows the coordinator's name late", range(HOSTS), START_WITHIN + SLACK)
    assert all(status == 0 for status, _ in ends.values()), ends
