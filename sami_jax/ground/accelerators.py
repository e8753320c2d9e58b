"""Which accelerators the machine has, told without jax."""

import ctypes
import os
import re
import sys
from importlib import util
from importlib.machinery import ModuleSpec
from pathlib import Path

_TPU_DEVICE = re.compile(r"accel\d+|vfio/\d+")  # below /dev
_GOOGLE = (
    "0x1ae0"  # vendor, on the PCI bus; of its network (class 0x02) and disks (0x01) every machine in its cloud has some
)
_NO_TPU_CLASSES = ("0x01", "0x02")
_CUDA13, _CUDA12 = (
    580,
    525,
)  # drivers' least versions (CUDA Toolkit release notes, table of minor version compatibility)
_NO_LIBRARY = __file__  # jax cannot load it, and goes on to the next platform without a word
# jax's plugins for CUDA, by the packages that they come in.
CUDA_PLUGINS = {f"jax-cuda{version}-pjrt": f"jax_plugins.xla_cuda{version}" for version in (12, 13)}
_passed_over: list[str] = []
# Variables that choose a platform, or describe a TPU.
_SPOKEN_OF = (
    "JAX_PLATFORMS",
    "JAX_FORCE_TPU_INIT",
    "PJRT_NAMES_AND_LIBRARY_PATHS",
    "TPU_LIBRARY_PATH",
    "TPU_NAME",
    "TPU_ACCELERATOR_TYPE",
    "TPU_WORKER_HOSTNAMES",
)


def has_nvidia_gpu(root: Path = Path("/")) -> bool:
    return (root / "proc/driver/nvidia/version").exists() or (root / "dev/nvidia0").exists()


def nvidia_driver(root: Path = Path("/")) -> str | None:
    """Its version, as "570.86.15"; None where there is none, or it does not say."""
    try:
        told = (root / "proc/driver/nvidia/version").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    found = re.search(r"Kernel Module.*?\s(\d+\.\d[\d.]*)", told)
    return found and found[1]


def cuda_extra(driver: str | None) -> str | None:
    """The extra whose CUDA a driver runs; None where it is too old for any."""
    major = int(driver.partition(".")[0]) if driver else _CUDA13
    return "cuda13" if major >= _CUDA13 else "cuda12" if major >= _CUDA12 else None


def left_idle(root: Path = Path("/")) -> str | None:
    """What to tell the user of a process that computes on the CPU, where the machine has more and nobody has chosen so."""
    if os.environ.get("JAX_PLATFORMS"):
        return None
    if has_nvidia_gpu(root) and os.environ.get("CUDA_VISIBLE_DEVICES") not in ("", "-1"):
        kind, extra = "an NVIDIA GPU", cuda_extra(nvidia_driver(root))
    elif has_tpu(root):
        kind, extra = "a TPU", "tpu"
    else:
        return None
    install = f"pip install 'sami_jax[{extra}]', " if extra else ""
    return (
        f"WARNING: computing on the CPU, a hundred times slower, while this machine has {kind} that jax does not use; "
        f"{install}`sami doctor` says more; JAX_PLATFORMS=cpu if it is meant so"
    )


def has_tpu(root: Path = Path("/")) -> bool:
    """Whether there is a TPU's device, or a TPU on the bus whose device is missing."""
    devices = (
        path.relative_to(root / "dev").as_posix()
        for pattern in ("accel*", "vfio/*")
        for path in (root / "dev").glob(pattern)
    )
    return any(map(_TPU_DEVICE.fullmatch, devices)) or any(map(_is_tpu, (root / "sys/bus/pci/devices").glob("*")))


def _is_tpu(device: Path) -> bool:
    try:
        vendor, kind = ((device / name).read_text(encoding="ascii").strip() for name in ("vendor", "class"))
    except (OSError, ValueError):
        return False
    return vendor == _GOOGLE and not kind.startswith(_NO_TPU_CLASSES)


def pass_over_libtpu() -> None:
    """Where there is no TPU, and nobody speaks of one, lets jax not start libtpu. It may be installed all the same, as `sami plan`
    compiles with it, and would complain at each start that it finds none."""
    if not any(map(os.environ.get, _SPOKEN_OF)) and not has_tpu():
        os.environ["TPU_LIBRARY_PATH"] = _NO_LIBRARY


def pass_over_cuda() -> None:
    """Where jax's CUDA plugin is installed, as `sami plan` compiles with it, but no driver to run it, lets jax not load it. It would
    look for CUDA at each start, and show the trace of not finding it."""
    if os.environ.get("JAX_PLATFORMS", "") not in ("", "cpu") or has_nvidia_gpu():
        return
    for name in CUDA_PLUGINS.values():
        if (spec := _spec(name)) and not _has_library("libcuda.so.1"):
            stand_in = util.module_from_spec(spec)
            vars(stand_in)["initialize"] = lambda: None
            sys.modules[name] = stand_in
            _passed_over.append(name)


def find_cuda_again() -> list[str]:
    """Undoes `pass_over_cuda`, before jax is asked for what the plugin has; the modules that are to be initialized now."""
    found = list(_passed_over)
    _passed_over.clear()
    for name in found:
        del sys.modules[name]
    return found


def is_installed(module: str) -> bool:
    """Whether a module can be imported, told without importing it."""
    return _spec(module) is not None


def _spec(module: str) -> ModuleSpec | None:
    try:
        return util.find_spec(module)
    except ModuleNotFoundError:  # the package that it would be in
        return None


def _has_library(name: str) -> bool:
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


def find_libtpu_again() -> None:
    """Undoes `pass_over_libtpu`, before jax is asked for what libtpu has."""
    if os.environ.get("TPU_LIBRARY_PATH") == _NO_LIBRARY:
        del os.environ["TPU_LIBRARY_PATH"]
