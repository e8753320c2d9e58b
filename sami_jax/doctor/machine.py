"""The machine: its memory and disk, and what jax makes of its devices.

jax is started in a process of its own: it may refuse, abort in native code, or wait for a device that another process holds.
"""

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

from sami_jax.doctor.finding import MISSING, NOTE, Finding
from sami_jax.doctor.limits import limits, own_cores, own_memory
from sami_jax.ground.accelerators import cuda_extra, has_nvidia_gpu, has_tpu, nvidia_driver
from sami_jax.ground.redaction import redact

GIB = 2**30
PATIENCE = 180  # seconds jax may take to start and to run the trial
LEAST_DISK = 2 * GIB  # bytes; a run of the embedded model takes 0.2 GiB


def host(root: Path = Path("/")) -> list[Finding]:
    """Cores and memory that this process may use, and disk where runs and compiled programs go.

    Args:
      root: below which /proc and control groups are looked for.
    """
    held = limits(root)
    cores, there = min(own_cores(), held.cores or math.inf), os.cpu_count() or 1
    findings = [Finding("host cores", f"{cores:g}" + (f" of {there}" if cores < there else ""))]
    meminfo = root / "proc/meminfo"
    if meminfo.exists():
        sizes = dict(line.split(":") for line in meminfo.read_text(encoding="ascii").splitlines())
        all_of_it, unused = (int(sizes[name].split()[0]) * 1024 for name in ("MemTotal", "MemAvailable"))
        total = min(filter(None, (all_of_it, held.memory, own_memory())))
        free = min(unused, total, total if held.free is None else held.free)
        whole = f"; the machine has {all_of_it / GIB:.1f} GiB" if total < all_of_it else ""
        findings.append(Finding("host memory", f"{total / GIB:.1f} GiB, {free / GIB:.1f} GiB free{whole}"))
    findings.append(_disk("disk, this folder", Path(os.curdir)))
    if cache := os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        findings.append(_disk("disk, compiled programs", Path(cache)))
    return findings


def driver(root: Path = Path("/")) -> list[Finding]:
    """NVIDIA's, where there is one, and which extra goes with it: a cluster's driver is its administrator's.

    Args:
      root: below which /proc is looked for.
    """
    version = nvidia_driver(root)
    if version is None:
        return []
    extra = cuda_extra(version)
    if extra is None:
        return [Finding("nvidia driver", version, NOTE, "too old for CUDA 12 and 13: have it updated to 525 or newer")]
    return [Finding("nvidia driver", f"{version}, for the extra {extra}")]


def _disk(about: str, place: Path) -> Finding:
    try:
        place = place.absolute()
    except OSError:
        return Finding(about, "is gone", NOTE, "change into a folder that is there")
    there = next(one for one in (place, *place.parents) if one.is_dir())
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
        done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", timeout=PATIENCE)
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
        ("gpu", has_nvidia_gpu(), cuda_extra(nvidia_driver())),
        ("tpu", has_tpu(), "tpu"),
    ):
        if here and platform not in platforms and extra:
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
