"""Which accelerators the machine has, told without jax."""

import os
import re
from pathlib import Path

_TPU_DEVICE = re.compile(r"accel\d+|vfio/\d+")  # below /dev
_GOOGLE = (
    "0x1ae0"  # vendor, on the PCI bus; of its network (class 0x02) and disks (0x01) every machine in its cloud has some
)
_NO_TPU_CLASSES = ("0x01", "0x02")
_NO_LIBRARY = __file__  # jax cannot load it, and goes on to the next platform without a word
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
    return (root / "proc/driver/nvidia/version").exists()


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


def find_libtpu_again() -> None:
    """Undoes `pass_over_libtpu`, before jax is asked for what libtpu has."""
    if os.environ.get("TPU_LIBRARY_PATH") == _NO_LIBRARY:
        del os.environ["TPU_LIBRARY_PATH"]
