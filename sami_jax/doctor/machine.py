"""The machine: its memory and disk, and what jax makes of its devices.

jax is started in a process of its own: it may refuse, abort in native code, or wait for a device that another process holds.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from sami_jax.doctor.finding import MISSING, NOTE, Finding
from sami_jax.ground.redaction import redact

GIB = 2**30
PATIENCE = 180  # seconds jax may take to start and to run the trial
LEAST_DISK = 2 * GIB  # bytes; a run of the embedded model takes 0.2 GiB
_CGROUP = Path("/sys/fs/cgroup/memory.max")  # the container's limit, where there is one
_MEMINFO = Path("/proc/meminfo")
_NVIDIA = Path("/proc/driver/nvidia/version")
_TPU = ("/dev/accel0", "/dev/vfio/0")


def host() -> list[Finding]:
    """Memory, and disk where runs and compiled programs go."""
    findings = []
    if _MEMINFO.exists():
        sizes = dict(line.split(":") for line in _MEMINFO.read_text().splitlines())
        total, free = (int(sizes[name].split()[0]) * 1024 for name in ("MemTotal", "MemAvailable"))
        if _CGROUP.exists() and (limit := _CGROUP.read_text().strip()).isdigit():
            total = min(total, int(limit))
        findings.append(Finding("host memory", f"{total / GIB:.1f} GiB, {min(free, total) / GIB:.1f} GiB free"))
    places = {"disk, this folder": Path.cwd()}
    if cache := os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        places["disk, compiled programs"] = Path(cache)
    return findings + [_disk(about, place) for about, place in places.items()]


def _disk(about: str, place: Path) -> Finding:
    there = next(one for one in (place, *place.absolute().parents) if one.is_dir())
    free = shutil.disk_usage(there).free
    found = f"{free / GIB:.1f} GiB free: {place}"
    if not os.access(there, os.W_OK):
        other = "set JAX_COMPILATION_CACHE_DIR to a folder" if "programs" in about else "work in a folder"
        return Finding(about, f"{there} may not be written to", NOTE, f"{other} that may be written to")
    return Finding(about, found, NOTE, "free some space") if free < LEAST_DISK else Finding(about, found)


def devices() -> list[Finding]:
    """What jax computes on, and whether a small program compiles and gives what it should."""
    command = [sys.executable, "-m", "sami_jax.doctor.trial"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, errors="replace")
    except subprocess.TimeoutExpired:
        advice = "end the process that holds the device, or set JAX_PLATFORMS=cpu"
        return [Finding("jax", f"did not start within {PATIENCE} s", MISSING, advice)]
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        return [Finding("jax", f"does not start: {_reason(done)}", MISSING, _advice(done.stderr))]
    told = json.loads(lines[-1])
    findings = [Finding("devices", _devices(told["devices"])), _trial(told)]
    return findings + _unused({device["platform"] for device in told["devices"]})


def _devices(found: list[dict]) -> str:
    kinds: dict[tuple, int] = {}
    for device in found:
        kind = (device["platform"], device["kind"], device["memory"])
        kinds[kind] = kinds.get(kind, 0) + 1
    return "; ".join(
        f"{count} x {kind} ({platform}), {f'{memory / GIB:.1f} GiB each' if memory else 'memory of the host'}"
        for (platform, kind, memory), count in kinds.items()
    )


def _trial(told: dict) -> Finding:
    times = f"compiled in {told['compiled']:.1f} s, ran in {1000 * told['ran']:.1f} ms"
    if told["right"]:
        return Finding("trial program", times)
    advice = "update jax and the device's driver; results here are not to be trusted"
    return Finding("trial program", f"{times}, with a wrong result", MISSING, advice)


def _unused(platforms: set[str]) -> list[Finding]:
    """Accelerators that the machine has and jax does not use."""
    chosen = os.environ.get("JAX_PLATFORMS", "")
    findings = []
    for platform, here, extra in (
        ("gpu", _NVIDIA.exists(), "cuda"),
        ("tpu", any(map(os.path.exists, _TPU)), "tpu"),
    ):
        if here and platform not in platforms:
            advice = f"unset JAX_PLATFORMS={chosen}" if chosen else f"pip install 'sami_jax[{extra}]'"
            findings.append(Finding(platform, "is here, jax does not use it", NOTE, advice))
    return findings


def _reason(done: subprocess.CompletedProcess) -> str:
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    return redact(lines[-1])[:300] if lines else f"ended with status {done.returncode}"


def _advice(told: str) -> str:
    if "ModuleNotFoundError" in told:
        return "pip install sami_jax again"
    if os.environ.get("JAX_PLATFORMS"):
        return f"unset JAX_PLATFORMS={os.environ['JAX_PLATFORMS']}, or set it to cpu"
    return "install the extra of this machine's devices, or set JAX_PLATFORMS=cpu"
