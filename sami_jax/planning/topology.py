"""TPU and GPU topologies that programs are compiled for without either, and what one device of each kind has."""

import contextlib
import dataclasses
import importlib
import math
import os
import sys
from collections.abc import Iterator
from importlib import metadata, resources
from typing import Any

import jax
from jax.sharding import SingleDeviceSharding

from sami_jax.errors import UserError
from sami_jax.ground.accelerators import CUDA_PLUGINS, find_cuda_again, is_installed

GIB = 2**30
# Of a GPU's memory, what JAX takes when it starts (XLA_PYTHON_CLIENT_MEM_FRACTION); the driver's and NCCL's own lies outside.
MEMORY_FRACTION = 0.75


@dataclasses.dataclass(frozen=True)
class Chip:
    """One device, as jax counts them. Peaks are those of Google Cloud's TPU documentation, divided by the devices of a chip, and of
    NVIDIA's data sheets (SXM; dense; NVLink in one direction)."""

    memory: int  # bytes that programs may use: of a TPU's HBM as the compiler allows, of a GPU's all there are
    flops: float  # dense bfloat16 FLOP/s
    bandwidth: float  # bytes/s of HBM
    links: float  # bytes/s of the chip's links to its neighbours together
    network: float  # bytes/s for each device of the network between slices of TPUs, between hosts of GPUs
    devices: int = 1  # jax devices a chip


# 100 Gbit/s a host of four chips.
DATA_CENTER_NETWORK = 100e9 / 8 / 4
TPUS = {
    "v4": Chip(int(31.75 * GIB), 275e12, 1.23e12, 300e9, DATA_CENTER_NETWORK),
    "v5e": Chip(int(15.75 * GIB), 197e12, 0.82e12, 200e9, DATA_CENTER_NETWORK),
    "v5p": Chip(int(95.74 * GIB), 459e12, 2.77e12, 600e9, DATA_CENTER_NETWORK),
    "v6e": Chip(int(31.25 * GIB), 918e12, 1.64e12, 448e9, DATA_CENTER_NETWORK),
    "tpu7x": Chip(int(94.75 * GIB), 1153e12, 3.7e12, 600e9, DATA_CENTER_NETWORK, devices=2),
}
# Between hosts, a card of InfiniBand a GPU, as NVIDIA's DGX have them: 200 Gbit/s beside A100, 400 beside the others. What the
# compiler reads of each kind is in specifications/.
GPUS = {
    "a100": Chip(85_100_068_864, 312e12, 2.04e12, 300e9, 200e9 / 8),
    "h100": Chip(84_942_979_072, 989e12, 3.35e12, 450e9, 400e9 / 8),
    "h200": Chip(151_397_597_184, 989e12, 4.8e12, 450e9, 400e9 / 8),
}
CHIPS = TPUS | GPUS
# Shapes to go on to where one is too small, by kind.
LARGER = {
    "v4": ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4"),
    "v5e": ("2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16"),
    "v5p": ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8"),
    "v6e": ("2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16"),
    "tpu7x": ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4"),
} | dict.fromkeys(GPUS, ("1x1x2", "1x1x4", "1x1x8", "1x2x8", "1x4x8"))


@dataclasses.dataclass(frozen=True)
class Topology:
    name: str  # as it was asked for, "v5e:4x4,num_slices=2"
    chip: Chip  # of each device
    devices: tuple  # that programs are compiled for, and do not run on
    slices: int
    fraction: float | None = None  # of a GPU's memory, that `chip` has no more than

    @property
    def chips(self) -> int:
        return len(self.devices) // self.chip.devices

    @property
    def gpus(self) -> bool:
        return self.fraction is not None

    @property
    def one(self) -> str:
        """What one of its chips is called."""
        return "GPU" if self.gpus else "chip"

    @property
    def links(self) -> float:
        """Bytes/s that a device sends to those it shares weights with: of GPUs on several hosts, no more than the network takes."""
        several = self.gpus and len({device.process_index for device in self.devices}) > 1
        return self.chip.network if several else self.chip.links


def open_topology(asked: str, fraction: float | None = None) -> Topology:
    """Topology by name: KIND:AxB[xC][,num_slices=N] of TPUs, KIND:[PARTITIONSxHOSTSx]DEVICES of GPUs.

    Args:
      fraction: of a GPU's memory, that may be used; None for what JAX takes.
    Raises:
      UserError: an unknown kind or shape, or there is no compiler for it.
    """
    name, _, rest = asked.partition(",")
    kind, _, shape = name.partition(":")
    slices = rest.removeprefix("num_slices=") if rest else "1"
    if kind not in CHIPS or not slices.isdigit() or int(slices) < 1 or not shape or (rest and kind in GPUS):
        raise UserError(
            f"--topology={asked}: no such topology; give KIND:SHAPE[,num_slices=N] of TPUs, as v5e:4x4, of {', '.join(TPUS)}; "
            f"or KIND:PARTITIONSxHOSTSxDEVICES of GPUs, as h100:1x1x8, of {', '.join(GPUS)}"
        )
    if kind in GPUS:
        chip, fraction = GPUS[kind], MEMORY_FRACTION if fraction is None else fraction
        devices = _gpus(asked, kind, shape)
        return Topology(asked, dataclasses.replace(chip, memory=int(fraction * chip.memory)), devices, 1, fraction)
    if fraction is not None:
        raise UserError(
            f"--memory_fraction {fraction:g}: of GPUs; TPU programs have all the memory that the compiler allows"
        )
    return Topology(asked, TPUS[kind], _tpus(asked, name, shape, int(slices)), int(slices))


def _tpus(asked: str, name: str, shape: str, slices: int) -> tuple:
    from jax.experimental import topologies

    # libtpu looks for a TPU's metadata server, and for other users of a TPU, unless it is told that there is none.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    try:
        import libtpu  # noqa: F401 - its absence is to be told from an unknown shape
    except ImportError:
        raise UserError("sami plan: compiles with libtpu, which is not installed; pip install libtpu") from None
    more: dict[str, Any] = {"num_slices": slices} if slices > 1 else {}
    if math.prod(int(size) for size in shape.split("x") if size.isdigit()) == 1:
        more["chips_per_host_bounds"] = (1, 1, 1)  # a host of four chips is taken for granted otherwise
    try:
        with quiet():
            return tuple(topologies.get_topology_desc(platform="tpu", topology_name=name, **more).devices)
    except jax.errors.JaxRuntimeError as error:
        raise UserError(f"--topology={asked}: {_first_line(error)}; give another shape") from None


def _gpus(asked: str, kind: str, shape: str) -> tuple:
    from jax.experimental import topologies

    shape = f"1x1x{shape}" if shape.isdigit() else shape
    sizes = shape.split("x")
    if len(sizes) != 3 or not all(size.isdigit() and int(size) for size in sizes):
        raise UserError(f"--topology={asked}: give PARTITIONSxHOSTSxDEVICES, devices of a host, as {kind}:1x1x8")
    _look_for_plugin()
    specification = resources.files("sami_jax.planning") / "specifications" / f"{kind}.txtpb"
    try:
        with quiet():
            jax.devices()  # jax looks for plugins once; those that a start without a GPU passed over are loaded behind it
            for module in find_cuda_again():
                importlib.import_module(module).initialize()
            devices = topologies.get_topology_desc(
                platform="cuda", target_config=specification.read_text(encoding="utf-8"), topology=shape
            ).devices
            # Without the assembler of NVIDIA's no program can be compiled: told by one that takes no time.
            one = jax.ShapeDtypeStruct((8,), "float32", sharding=SingleDeviceSharding(devices[0]))
            jax.jit(jax.numpy.sin).lower(one).compile()
    except NotImplementedError:
        raise UserError(_NO_PLUGIN) from None
    except jax.errors.JaxRuntimeError as error:
        if any(word in str(error) for word in ("libdevice", "ptxas", "PTX")):
            raise UserError(
                "sami plan: finds no ptxas (NVIDIA's assembler); pip install nvidia-cuda-nvcc-cu12"
            ) from None
        raise UserError(f"--topology={asked}: {_first_line(error)}") from None
    return tuple(devices)


_NO_PLUGIN = (
    "sami plan: compiles for GPUs with XLA's CUDA plugin, which is not installed; pip install 'sami_jax[plan-gpu]'"
)


def _look_for_plugin() -> None:
    """Raises UserError where the plugin is missing, or is another jaxlib's."""
    plugins = [package for package, module in CUDA_PLUGINS.items() if is_installed(module)]
    if not plugins:
        raise UserError(_NO_PLUGIN)
    jaxlib = metadata.version("jaxlib")
    for package in plugins:
        with contextlib.suppress(metadata.PackageNotFoundError):
            if (version := metadata.version(package)) != jaxlib:
                raise UserError(
                    f"sami plan: {package} {version} is of another jaxlib than {jaxlib}, which is installed; "
                    f"pip install {package}=={jaxlib}"
                )


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:160]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """While compilers start, they complain on the process's standard error that they find no device."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
