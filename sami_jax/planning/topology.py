"""TPU topologies that programs are compiled for without a TPU, and what one device of each kind has."""

import contextlib
import dataclasses
import math
import os
import sys
from collections.abc import Iterator
from typing import Any

import jax

from sami_jax.errors import UserError

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """One device, as jax counts them. Peaks are those of Google Cloud's TPU documentation, divided by the devices of a chip."""

    memory: int  # bytes of HBM that programs may use, as the compiler allows
    flops: float  # dense bfloat16 FLOP/s
    bandwidth: float  # bytes/s of HBM
    links: float  # bytes/s of the chip's links to its neighbours together
    devices: int = 1  # jax devices a chip


CHIPS = {
    "v4": Chip(int(31.75 * GIB), 275e12, 1.23e12, 300e9),
    "v5e": Chip(int(15.75 * GIB), 197e12, 0.82e12, 200e9),
    "v5p": Chip(int(95.74 * GIB), 459e12, 2.77e12, 600e9),
    "v6e": Chip(int(31.25 * GIB), 918e12, 1.64e12, 448e9),
    "tpu7x": Chip(int(94.75 * GIB), 1153e12, 3.7e12, 600e9, devices=2),
}
# Shapes to go on to where one is too small, by kind.
LARGER = {
    "v4": ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4"),
    "v5e": ("2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16"),
    "v5p": ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8"),
    "v6e": ("2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16"),
    "tpu7x": ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4"),
}
# Bytes/s of the network between slices, for each device: 100 Gbit/s a host of four chips.
DATA_CENTER_NETWORK = 100e9 / 8 / 4


@dataclasses.dataclass(frozen=True)
class Topology:
    name: str  # as it was asked for, "v5e:4x4,num_slices=2"
    chip: Chip  # of each device
    devices: tuple  # that programs are compiled for, and do not run on
    slices: int

    @property
    def chips(self) -> int:
        return len(self.devices) // self.chip.devices


def open_topology(asked: str) -> Topology:
    """Topology by name: KIND:AxB[xC][,num_slices=N].

    Raises:
      UserError: an unknown kind or shape, or libtpu is not installed.
    """
    from jax.experimental import topologies

    name, _, rest = asked.partition(",")
    kind, _, shape = name.partition(":")
    slices = rest.removeprefix("num_slices=") if rest else "1"
    if kind not in CHIPS or not slices.isdigit() or int(slices) < 1 or not shape:
        raise UserError(
            f"--topology={asked}: no such topology; give KIND:SHAPE[,num_slices=N], as v5e:4x4, of {', '.join(CHIPS)}"
        )
    # libtpu looks for a TPU's metadata server, and for other users of a TPU, unless it is told that there is none.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    try:
        import libtpu  # noqa: F401 - its absence is to be told from an unknown shape
    except ImportError:
        raise UserError("sami plan: compiles with libtpu, which is not installed; pip install libtpu") from None
    more: dict[str, Any] = {"num_slices": int(slices)} if int(slices) > 1 else {}
    if math.prod(int(size) for size in shape.split("x") if size.isdigit()) == 1:
        more["chips_per_host_bounds"] = (1, 1, 1)  # a host of four chips is taken for granted otherwise
    try:
        with _quiet():
            devices = topologies.get_topology_desc(platform="tpu", topology_name=name, **more).devices
    except jax.errors.JaxRuntimeError as error:
        raise UserError(f"--topology={asked}: {str(error).splitlines()[0][:160]}; give another shape") from None
    return Topology(asked, CHIPS[kind], tuple(devices), int(slices))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """While libtpu starts, it complains on the process's standard error that it finds no TPU."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
