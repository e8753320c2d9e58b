"""The device mesh and the rules that lay arrays out on it. Nothing else names a mesh axis.

Code elsewhere speaks of logical axes ("batch", "embed", "heads", ...). `RULES` maps each to the mesh axes it is split
over, so that a change of parallelism is a change of this table or of the mesh sizes, never of the model.
"""

import math

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from sami_jax.errors import UserError

MESH_AXES = ("data", "fsdp", "tensor")
ALL_DEVICES = {"data": 1, "fsdp": -1, "tensor": 1}  # mesh sizes where no config chooses them

# Logical axis -> mesh axes. A logical axis that is missing is an error; None keeps the axis whole on every device.
RULES = {
    "batch": ("data", "fsdp"),  # rows: queries, prompts, (constitution, response) pairs
    "embed": "fsdp",  # model width of the weights: gathered layer by layer (fully sharded data parallelism)
    "heads": "tensor",
    "kv_heads": "tensor",
    "mlp": "tensor",
    "vocab": "tensor",
    None: None,
    "layer": None,
    "head_dim": None,
    "sequence": None,
    "activation": None,  # model width of activations
}


def make_mesh(sizes: dict[str, int], devices=None) -> Mesh:
    """Lays the devices out on the axes data, fsdp, tensor.

    Args:
      sizes: devices along each mesh axis; at most one may be -1, "the rest".
      devices: the devices to use, by default all of them.
    Raises:
      UserError: the product of the sizes is not the number of devices.
    """
    devices = list(devices if devices is not None else jax.devices())
    shape = [sizes[axis] for axis in MESH_AXES]
    fixed = 1
    for size in shape:
        fixed *= size if size != -1 else 1
    if shape.count(-1) == 1 and len(devices) % fixed == 0:
        shape[shape.index(-1)] = len(devices) // fixed
        fixed = len(devices)
    if fixed != len(devices) or -1 in shape:
        wanted = " x ".join(f"{axis}={sizes[axis]}" for axis in MESH_AXES)
        raise UserError(
            f"config.mesh: {wanted} does not use {len(devices)} device(s) exactly; make the product {len(devices)}, or set one axis to -1"
        )
    # Explicit, today's default of make_mesh, would put shardings into types; ours are given at jit boundaries.
    return jax.make_mesh(shape, MESH_AXES, axis_types=(AxisType.Auto,) * len(MESH_AXES), devices=devices)


def partition_spec(logical_axes) -> PartitionSpec:
    """The mesh axes of an array whose dimensions carry these logical axes."""
    return PartitionSpec(*(RULES[axis] for axis in logical_axes))


def named_sharding(mesh: Mesh, logical_axes=()) -> NamedSharding:
    """The sharding of an array on `mesh`; without axes, a copy on every device."""
    return NamedSharding(mesh, partition_spec(logical_axes))


def constrain(x: jax.Array, *logical_axes: str) -> jax.Array:
    """Inside jit, pins the layout of an activation; outside a mesh (`jax.set_mesh`), does nothing."""
    if jax.sharding.get_abstract_mesh().empty:
        return x
    return jax.lax.with_sharding_constraint(x, partition_spec(logical_axes))


def batch_shards(mesh) -> int:
    """Over how many devices the batch axis is split: row counts must be multiples of it."""
    return math.prod(mesh.shape[axis] for axis in RULES["batch"])


def batch_shards_here() -> int:
    """As `batch_shards`, inside jit, of the mesh that was set; 1 without one."""
    mesh = jax.sharding.get_abstract_mesh()
    return 1 if mesh.empty else batch_shards(mesh)


def check_divisible(mesh: Mesh, shape, logical_axes, what: str) -> None:
    """Raises UserError naming the dimension and the mesh axis where `shape` cannot be split evenly."""
    for size, logical in zip(shape, logical_axes, strict=True):
        axes = RULES[logical]
        for axis in (axes,) if isinstance(axes, str) else axes or ():
            if size % mesh.shape[axis]:
                raise UserError(
                    f"config.mesh.{axis}={mesh.shape[axis]} does not divide {what}'s {logical} dimension of {size}; choose a divisor of {size}"
                )
