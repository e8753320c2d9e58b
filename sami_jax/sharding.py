"""The device mesh and the rules that lay arrays out on it. Nothing else names a mesh axis.

Code elsewhere speaks of logical axes ("batch", "embed", "heads", ...). `RULES` maps each to the mesh axes it is split
over, so that a change of parallelism is a change of this table or of the mesh sizes, never of the model.
"""

import collections
import math
from collections.abc import Callable, Sequence
from typing import overload

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from sami_jax.errors import UserError
from sami_jax.ground.accelerators import left_idle
from sami_jax.ground.terminal import say

MESH_AXES = (DATA_AXIS, FSDP_AXIS, EXPERT_AXIS, TENSOR_AXIS) = ("data", "fsdp", "expert", "tensor")
ALL_DEVICES = {FSDP_AXIS: -1}  # mesh sizes where no config chooses them

BLOCK_BYTES = 2**28  # of an array that is gathered lie on every device at once

# Logical axis -> mesh axes. A logical axis that is missing is an error; None keeps the axis whole on every device.
RULES = {
    "batch": (DATA_AXIS, FSDP_AXIS, EXPERT_AXIS),  # rows: queries, prompts, (constitution, response) pairs
    "embed": (FSDP_AXIS, EXPERT_AXIS),  # model width of weights: gathered by layer (fully sharded data parallelism)
    "experts": EXPERT_AXIS,  # an expert's weights lie whole on that axis ...
    "expert_embed": FSDP_AXIS,  # ... and are gathered along this one
    "heads": TENSOR_AXIS,
    "kv_heads": TENSOR_AXIS,
    "mlp": TENSOR_AXIS,
    # Rows of weights that lead back to the model's width, which is whole then: gathered too, and split by their first dimension, as GPUs
    # gather; else XLA keeps a transposed copy of all layers there. See splits_rows.
    "heads_in": (TENSOR_AXIS, FSDP_AXIS, EXPERT_AXIS),
    "mlp_in": (TENSOR_AXIS, FSDP_AXIS, EXPERT_AXIS),
    "vocab": TENSOR_AXIS,
    None: None,
    "layer": None,
    "choices": None,  # a router's logits
    "rank": None,  # of a low-rank adapter
    "head_dim": None,
    "sequence": None,
    "kept_sequence": TENSOR_AXIS,  # of activations between layers (Korthikanti et al., arXiv 2205.05198): gathered in each
    "activation": None,  # model width of activations
}


def make_mesh(sizes: dict[str, int], devices=None) -> Mesh:
    """Lays the devices out on the mesh axes. Where they are slices of TPUs joined by a slower network, each slice holds whole
    shares of the data axis, so that only gradients cross it.

    Args:
      sizes: devices along mesh axes, 1 where one is left out; at most one may be -1, "the rest".
      devices: the devices to use, by default all of them.
    Raises:
      UserError: the product of the sizes is not the number of devices, or the slices do not divide the data axis.
    """
    if devices is None:
        devices = jax.devices()
        if devices[0].platform == "cpu" and (idle := left_idle()):
            say(idle)
    devices = list(devices)
    shape = [sizes.get(axis, 1) for axis in MESH_AXES]
    fixed = math.prod(size for size in shape if size != -1)
    if shape.count(-1) == 1 and len(devices) % fixed == 0:
        shape[shape.index(-1)] = len(devices) // fixed
        fixed = len(devices)
    if fixed != len(devices) or -1 in shape:
        wanted = " x ".join(f"{axis}={size}" for axis, size in sizes.items())
        raise UserError(
            f"config.mesh: {wanted} does not use {len(devices)} device(s) exactly; make the product {len(devices)}, or set one axis to -1"
        )
    # Explicit, today's default of make_mesh, would put shardings into types; ours are given at jit boundaries.
    explicit = {"axis_types": (AxisType.Auto,) * len(MESH_AXES)}
    # Other platforms number hosts as slices, which a faster network may join.
    slices = len({getattr(device, "slice_index", 0) for device in devices}) if devices[0].platform == "tpu" else 1
    if slices == 1:
        return jax.make_mesh(shape, MESH_AXES, devices=devices, **explicit)
    if shape[0] % slices:
        raise UserError(f"config.mesh.data={shape[0]}: must be a multiple of the {slices} slices; set it to {slices}")
    within, across = [shape[0] // slices, *shape[1:]], [slices, *(1 for _ in shape[1:])]
    return Mesh(mesh_utils.create_hybrid_device_mesh(within, across, devices), MESH_AXES, **explicit)


def partition_spec(logical_axes) -> PartitionSpec:
    """The mesh axes of an array whose dimensions carry these logical axes."""
    return PartitionSpec(*(RULES[axis] for axis in logical_axes))


def named_sharding(mesh: Mesh, logical_axes=()) -> NamedSharding:
    """The sharding of an array on `mesh`; without axes, a copy on every device."""
    return NamedSharding(mesh, partition_spec(logical_axes))


def put(array: np.ndarray | np.generic | jax.Array, mesh: Mesh, logical_axes=()) -> jax.Array:
    """A host's array on `mesh`. Of many hosts, which all have it, each hands its own devices their shares."""
    array = np.asarray(array)
    return jax.make_array_from_callback(array.shape, named_sharding(mesh, logical_axes), lambda index: array[index])


def put_parts(forms: Sequence[jax.ShapeDtypeStruct], read: Callable[..., Sequence[np.ndarray]]) -> list[jax.Array]:
    """Arrays that are split alike, in their shards, a part after the other, so that a host holds one at a time.

    Args:
      read: ranges of the first one's dimensions -> that part of each.
    """
    first, by_part = forms[0], collections.defaultdict(list)
    for device, index in first.sharding.addressable_devices_indices_map(first.shape).items():
        sizes = zip(index, first.shape, strict=True)  # pyright: ignore[reportArgumentType] None is for others' devices
        by_part[tuple(range(*part.indices(size)) for part, size in sizes)].append(device)
    shards: list[list[jax.Array]] = [[] for _ in forms]
    for ranges, devices in by_part.items():
        for own, piece in zip(shards, read(ranges), strict=True):
            own += jax.block_until_ready([jax.device_put(piece, device) for device in devices])
    return [
        jax.make_array_from_single_device_arrays(form.shape, form.sharding, own)
        for form, own in zip(forms, shards, strict=True)
    ]


@overload
def gathered(x: jax.Array | np.ndarray) -> np.ndarray: ...
@overload
def gathered(x: jax.Array | np.ndarray, wanted: bool) -> np.ndarray | None: ...
def gathered(x: jax.Array | np.ndarray, wanted: bool = True) -> np.ndarray | None:
    """An array on any devices, whole on this host; the processes of all of them must call this. Blocks of rows lie on all devices
    in turn.

    Args:
      wanted: whether this process takes it; else None is returned.
    """
    if isinstance(x, np.ndarray) or x.is_fully_addressable or x.is_fully_replicated:
        return np.asarray(x) if wanted else None
    rows = max(1, BLOCK_BYTES * x.shape[0] // x.nbytes)
    whole = np.empty(x.shape, x.dtype) if wanted else None
    take = jax.jit(_rows, static_argnames="size", out_shardings=NamedSharding(_mesh_of(x), PartitionSpec()))
    for start in range(0, x.shape[0], rows):
        block = take(x, np.int32(start), size=min(rows, x.shape[0] - start)).block_until_ready()
        if whole is not None:
            whole[start : start + rows] = block.addressable_data(0)
    return whole


def _mesh_of(x: jax.Array) -> Mesh:
    if not (isinstance(x.sharding, NamedSharding) and isinstance(x.sharding.mesh, Mesh)):
        raise TypeError(f"an array that lies on no mesh but as {x.sharding}")
    return x.sharding.mesh


def _rows(x: jax.Array, start: jax.Array, *, size: int) -> jax.Array:
    return jax.lax.dynamic_slice_in_dim(x, start, size)


def constrain(x: jax.Array, *logical_axes: str | None) -> jax.Array:
    """Inside jit, pins the layout of an activation; outside a mesh (`jax.set_mesh`), does nothing."""
    if jax.sharding.get_abstract_mesh().empty:
        return x
    return jax.lax.with_sharding_constraint(x, partition_spec(logical_axes))


def batch_shards(mesh) -> int:
    """Over how many devices the batch axis is split: row counts must be multiples of it."""
    return _shards(mesh, "batch")


def weight_shards(mesh) -> int:
    """Over how many devices weights are split that are gathered where they are used."""
    return _shards(mesh, "embed")


def shards_here(logical_axis: str) -> int:
    """Inside jit: over how many devices of the mesh that was set an axis is split; 1 without a mesh."""
    mesh = jax.sharding.get_abstract_mesh()
    return 1 if mesh.empty else _shards(mesh, logical_axis)


def _shards(mesh, logical_axis: str) -> int:
    axes = RULES[logical_axis] or ()
    return math.prod(mesh.shape[axis] for axis in ((axes,) if isinstance(axes, str) else axes))


def splits_rows(mesh) -> bool:
    """Whether weights that lead back to the model's width are split by rows ("heads_in", "mlp_in"). TPUs gather columns as well, and rows
    cost them memory: in a microbatch of Mistral-7B on v5e:4x4 1.91 GiB of temporaries in place of 1.02."""
    device = mesh.abstract_mesh.abstract_device
    return device is None or device.platform != "tpu"


def on_gpus() -> bool:
    """Inside jit: whether what is compiled is for GPUs, here or not."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    return (device.platform if device else jax.default_backend()) in ("gpu", "cuda", "rocm")


def divides(mesh: Mesh, shape, logical_axes) -> bool:
    """Whether `shape` can be split evenly."""
    return all(size % _shards(mesh, axis) == 0 for size, axis in zip(shape, logical_axes, strict=True))


def check_divisible(mesh: Mesh, shape, logical_axes, what: str) -> None:
    """Raises UserError naming the dimension and the mesh axis where `shape` cannot be split evenly."""
    for size, logical in zip(shape, logical_axes, strict=True):
        axes, rest = RULES[logical], size
        for axis in (axes,) if isinstance(axes, str) else axes or ():
            if rest % mesh.shape[axis]:
                raise UserError(
                    f"config.mesh.{axis}={mesh.shape[axis]} does not divide {what}'s {logical} dimension of {rest}; choose a divisor of {rest}"
                )
            rest //= mesh.shape[axis]
