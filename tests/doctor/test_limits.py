"""The limits that hold for a process, in machines made up of files, and where we may make a group, in this one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sami_jax.doctor import limits as module
from sami_jax.doctor import machine
from sami_jax.doctor.limits import Limits, limits

GIB = 2**30
V1 = "35 31 0:32 {root} /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n36 31 0:33 {root} /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
V2 = "41 31 0:38 {root} /sys/fs/cgroup rw shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
M, C, U = "sys/fs/cgroup/memory/", "sys/fs/cgroup/cpu,cpuacct/", "sys/fs/cgroup/"
ANY = 9223372036854771712  # as version 1 writes that there is no limit
HYBRID = V1.format(root="/") + "42 31 0:39 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"

CASES = {
    "no groups": ("", "", {}, Limits(None, None, None)),
    "nothing of them is limited": (
        "0::/a\n",
        V2.format(root="/"),
        {U + "a/memory.max": "max\n", U + "a/cpu.max": "max 100000\n"},
        Limits(None, None, None),
    ),
    "version 2, in a container": (
        "0::/\n",
        V2.format(root="/"),
        {U + "memory.max": f"{2 * GIB}\n", U + "memory.current": f"{GIB}\n", U + "cpu.max": "150000 100000\n"},
        Limits(2 * GIB, GIB, 1.5),
    ),
    "version 2, a slice above the process's own group": (
        "0::/user.slice/job.scope\n",
        V2.format(root="/"),
        {
            U + "user.slice/memory.max": f"{4 * GIB}\n",
            U + "user.slice/cpu.max": "400000 100000\n",
            U + "user.slice/job.scope/memory.max": "max\n",
            U + "user.slice/job.scope/cpu.max": "800000 100000\n",
        },
        Limits(4 * GIB, 4 * GIB, 4.0),
    ),
    "the smallest limit and the least that is left may be of two groups": (
        "0::/a/b\n",
        V2.format(root="/"),
        {
            U + "a/memory.max": f"{8 * GIB}\n",
            U + "a/memory.current": f"{15 * GIB // 2}\n",
            U + "a/b/memory.max": f"{2 * GIB}\n",
            U + "a/b/memory.current": f"{GIB}\n",
        },
        Limits(2 * GIB, GIB // 2, None),
    ),
    "files that were read are given back": (
        "0::/a\n",
        V2.format(root="/"),
        {
            U + "a/memory.max": f"{2 * GIB}\n",
            U + "a/memory.current": f"{2 * GIB}\n",
            U + "a/memory.stat": f"anon 1\ninactive_file {GIB}\nactive_file 3\n",
        },
        Limits(2 * GIB, GIB, None),
    ),
    "version 1": (
        "5:cpu,cpuacct:/job\n4:memory:/job\n0::/\n",
        HYBRID,
        {
            M + "memory.limit_in_bytes": f"{ANY}\n",
            M + "job/memory.limit_in_bytes": f"{2 * GIB}\n",
            M + "job/memory.usage_in_bytes": f"{GIB}\n",
            M + "job/memory.stat": f"total_inactive_file {GIB // 2}\n",
            C + "job/cpu.cfs_quota_us": "250000\n",
            C + "job/cpu.cfs_period_us": "100000\n",
        },
        Limits(2 * GIB, 3 * GIB // 2, 2.5),
    ),
    "version 1, no quota": (
        "5:cpu,cpuacct:/\n4:memory:/\n",
        V1.format(root="/"),
        {C + "cpu.cfs_quota_us": "-1\n", C + "cpu.cfs_period_us": "100000\n"},
        Limits(None, None, None),
    ),
    "version 1, what is mounted is the container's own group": (
        "4:memory:/docker/abc\n",
        V1.format(root="/docker/abc"),
        {M + "memory.limit_in_bytes": f"{3 * GIB}\n"},
        Limits(3 * GIB, 3 * GIB, None),
    ),
    "a group inside that container": (
        "4:memory:/docker/abc/step\n",
        V1.format(root="/docker/abc"),
        {M + "memory.limit_in_bytes": f"{3 * GIB}\n", M + "step/memory.limit_in_bytes": f"{GIB}\n"},
        Limits(GIB, GIB, None),
    ),
    "the host's path of a group, in a container that does not see it": (
        "0::/kubepods/pod7/abc\n",
        V2.format(root="/"),
        {U + "memory.max": f"{3 * GIB}\n"},
        Limits(3 * GIB, 3 * GIB, None),
    ),
    "a group outside what is seen": (
        "0::/../other\n",
        V2.format(root="/"),
        {U + "memory.max": f"{3 * GIB}\n"},
        Limits(3 * GIB, 3 * GIB, None),
    ),
    "both versions limit": (
        "4:memory:/a\n0::/b\n",
        HYBRID,
        {
            M + "a/memory.limit_in_bytes": f"{3 * GIB}\n",
            U + "unified/b/memory.max": f"{2 * GIB}\n",
        },
        Limits(2 * GIB, 2 * GIB, None),
    ),
    "mounted elsewhere, with a space in the path": (
        "0::/a\n",
        "41 31 0:38 / /run/my\\040groups rw - cgroup2 none rw\n",
        {"run/my groups/a/memory.max": f"{GIB}\n"},
        Limits(GIB, GIB, None),
    ),
    "more is used than is allowed": (
        "0::/a\n",
        V2.format(root="/"),
        {U + "a/memory.max": f"{GIB}\n", U + "a/memory.current": f"{2 * GIB}\n"},
        Limits(GIB, 0, None),
    ),
    "files that say nothing": (
        "rubbish\n0::\n:\n",
        "rubbish\n1 2 - cgroup2\n" + V2.format(root="/"),
        {U + "memory.max": "\n", U + "cpu.max": "100000 0\n"},
        Limits(None, None, None),
    ),
}


def made_up(root: Path, held: str, mounts: str, files: dict[str, str]) -> Path:
    """A machine of 16 GiB, half of it free."""
    meminfo = f"MemTotal: {16 * 2**20} kB\nMemFree: 1 kB\nMemAvailable: {8 * 2**20} kB\n"
    files = files | {"proc/self/cgroup": held, "proc/self/mountinfo": mounts, "proc/meminfo": meminfo}
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


@pytest.mark.parametrize("case", CASES)
def test_the_smallest_limit_counts(tmp_path, case):
    held, mounts, files, expected = CASES[case]
    assert limits(made_up(tmp_path, held, mounts, files)) == expected


def test_a_machine_without_proc(tmp_path):
    assert limits(tmp_path) == Limits(None, None, None)
    assert "host memory" not in [finding.about for finding in machine.host(tmp_path)]


@pytest.mark.parametrize(
    ("case", "own", "memory"),
    [
        ("version 1", None, "2.0 GiB, 1.5 GiB free; the machine has 16.0 GiB"),
        ("version 1", GIB, "1.0 GiB, 1.0 GiB free; the machine has 16.0 GiB"),
        ("version 2, in a container", None, "2.0 GiB, 1.0 GiB free; the machine has 16.0 GiB"),
        ("no groups", None, "16.0 GiB, 8.0 GiB free"),
        ("no groups", 4 * GIB, "4.0 GiB, 4.0 GiB free; the machine has 16.0 GiB"),
    ],
)
def test_what_the_doctor_says_of_it(tmp_path, monkeypatch, case, own, memory):
    monkeypatch.setattr(machine, "own_memory", lambda: own)
    monkeypatch.setattr(machine, "own_cores", lambda: 8)
    monkeypatch.setattr(machine.os, "cpu_count", lambda: 16)
    held, mounts, files, expected = CASES[case]
    found = {finding.about: finding.found for finding in machine.host(made_up(tmp_path, held, mounts, files))}
    assert found["host memory"] == memory
    assert found["host cores"] == f"{expected.cores or 8:g} of 16"


def test_a_limit_of_our_own():
    code = "import resource; resource.setrlimit(resource.RLIMIT_AS, (2**32, 2**32))\nfrom sami_jax.doctor.limits import own_memory\nprint(own_memory())"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == f"{2**32}\n"


def test_a_group_of_this_machine():
    """As root, where groups may be made."""
    tops = [
        (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"),
        (Path("/sys/fs/cgroup"), "memory.max"),
    ]
    group = next((top / f"sami-{os.getpid()}" for top, limit in tops if (top / limit).exists()), None)
    limit = "memory.limit_in_bytes" if group and group.parent.name == "memory" else "memory.max"
    try:
        assert group
        group.mkdir()
    except (OSError, AssertionError):
        pytest.skip("no groups can be made here")
    try:
        try:
            (group / limit).write_text(str(3 * GIB // 2))
            code = "from sami_jax.doctor.limits import limits; print(limits().memory)"
            enter = f"echo $$ > {group}/cgroup.procs && exec \"$0\" -c '{code}'"
            done = subprocess.run(["sh", "-c", enter, sys.executable], capture_output=True, text=True)
        except OSError:
            pytest.skip("no limits can be set here")
        if "cgroup.procs" in done.stderr:
            pytest.skip("no process can be put into a group here")
        assert done.stdout == f"{3 * GIB // 2}\n", done.stderr
    finally:
        group.rmdir()


def test_the_doctor_looks_at_this_process():
    assert module.own_cores() == len(os.sched_getaffinity(0))
