"""Processes that do not come together: what is missing is said after a minute, and a start that fails is no loss."""

import contextlib
import socket
import subprocess
import sys

import jax
import pytest
from support.scripted_model import free_port

from sami_jax.errors import TRY_AGAIN, TryAgain, UserError
from sami_jax.ground import hosts
from sami_jax.ground.gathering import connections, what_is_missing

# A first process (10.0.0.1) that listens at 8476: itself, 10.0.0.2 over IPv6's form, and one whose connection is closing.
TCP = """  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid
   0: 00000000:211C 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0
   1: 0100000A:211C 0100000A:D431 01 00000000:00000000 00:00000000 00000000 0
   2: 0100000A:D431 0100000A:211C 01 00000000:00000000 00:00000000 00000000 0
   3: 0100000A:211C 0300000A:D432 08 00000000:00000000 00:00000000 00000000 0
"""
TCP6 = """  sl  local_address                         remote_address                        st tx_queue
   0: 0000000000000000FFFF00000100000A:211C 0000000000000000FFFF00000200000A:A1B2 01 00000000:00000000
"""
START = """
import sys
from sami_jax.errors import UserError
from sami_jax.ground import gathering, hosts
gathering.QUIET = 2
try:
    hosts.join(sys.argv[1], 2, int(sys.argv[2]), start_within=5)
except UserError as error:
    sys.exit(error.status)
"""


def test_who_has_connected_is_read_from_the_kernel(tmp_path):
    (tmp_path / "proc/net").mkdir(parents=True)
    (tmp_path / "proc/net/tcp").write_text(TCP)
    (tmp_path / "proc/net/tcp6").write_text(TCP6)
    assert connections(8476, tmp_path) == ["10.0.0.1", "10.0.0.2"]
    said = what_is_missing("a:8476", first=True, count=4, root=tmp_path)
    assert said == "2 of 4 have reached a:8476 (from 10.0.0.1, 10.0.0.2)"
    assert what_is_missing("a:80", first=True, count=None, root=tmp_path) == "0 have reached a:80"


def test_what_keeps_a_process_from_the_coordinator_is_named():
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as there:
        port = there.getsockname()[1]
        assert f"127.0.0.1:{port} answers, others are missing" in what_is_missing(f"127.0.0.1:{port}", False, 2)
    said = what_is_missing(f"127.0.0.1:{port}", False, 2)
    assert "Connection refused; process 0 has not started, or the network" in said and f"no TCP to port {port}" in said
    assert "nobody.invalid:1: its name is not known here" in what_is_missing("nobody.invalid:1", False, 2)


def test_a_name_that_is_not_known_yet(monkeypatch):
    """jax waits for it before it tells the coordinator."""
    monkeypatch.setenv("TPU_WORKER_HOSTNAMES", "slice-0.invalid,slice-1.invalid")
    assert "slice-0.invalid: its name is not known" in what_is_missing(None, False, None)
    monkeypatch.setenv("MEGASCALE_COORDINATOR_ADDRESS", "first.invalid:8080")
    assert "first.invalid: its name" in what_is_missing(None, False, None)
    monkeypatch.delenv("TPU_WORKER_HOSTNAMES")
    monkeypatch.delenv("MEGASCALE_COORDINATOR_ADDRESS")
    assert "has told yet where" in what_is_missing(None, False, None)


@pytest.mark.slow
@pytest.mark.parametrize("process", [0, 1])
def test_a_start_that_fails_is_told_as_such_and_may_be_tried_again(process):
    where = f"127.0.0.1:{free_port()}"
    done = subprocess.run(
        [sys.executable, "-c", START, where, str(process)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == TRY_AGAIN
    said = [line for line in done.stderr.splitlines() if "so far" not in line]
    assert len(said) == 2 and said[0].startswith("WARNING: after 2 s, the processes of this run are not together: ")
    assert said[1].startswith("sami: the processes of this run did not come together within 5 s: ")
    assert all(where in line and "lost" not in line for line in said)
    assert ("1 of 2 have reached" if process == 0 else "Connection refused") in said[1]


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (
            ValueError("coordinator_address should be defined."),
            UserError,
            "nothing here tells which processes there are",
        ),
        (
            RuntimeError("MPI detection requires mpi4py"),
            UserError,
            "--distributed: MPI detection requires mpi4py; install it",
        ),
        (
            RuntimeError("Failed to recognize coordinator address x-0"),
            TryAgain,
            "Failed to recognize coordinator address x-0",
        ),
        (
            ConnectionError("metadata.google.internal: Max retries"),
            TryAgain,
            "metadata: metadata.google.internal: Max retries",
        ),
    ],
)
def test_why_a_start_failed(monkeypatch, error, kind, words):
    def fails(*_, **__):
        raise error

    monkeypatch.setattr(hosts, "_keep_native_output_apart", lambda: None)
    monkeypatch.setattr(jax.distributed, "initialize", fails)
    with pytest.raises(UserError) as told:
        hosts.join(process=1)
    assert type(told.value) is kind and words in str(told.value) and "None:" not in str(told.value)


def test_native_output_is_read_from_its_end(tmp_path, monkeypatch):
    """NCCL or libtpu may have said a lot before the line that says why."""
    file = tmp_path / "native"
    file.write_bytes(b"NCCL INFO\n" * 150_000 + b"distributed service detected fatal errors")
    with file.open("rb") as stream:
        monkeypatch.setattr(hosts, "_native", stream)
        assert hosts._native_output().endswith("distributed service detected fatal errors")


@pytest.mark.parametrize(
    ("error", "may_be"),
    [
        (ValueError("UNKNOWN: Gloo all-reduce failed: Connection closed by peer"), True),
        (jax.errors.JaxRuntimeError("INTERNAL: peer"), True),
        (jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory"), False),  # is told at once
        (ValueError("shapes differ"), False),
    ],
)
def test_what_a_lost_process_looks_like(error, may_be):
    assert hosts._of_runtime(error) == may_be
