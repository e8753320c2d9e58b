"""The mesh: sizes that fit, and one clear line where they do not."""

import jax
import pytest
from support.small_model import SMALL, mesh_of

from sami_jax.errors import UserError
from sami_jax.models.decoder import abstract_params, param_shardings
from sami_jax.sharding import batch_shards, make_mesh, named_sharding


def test_minus_one_is_the_rest():
    mesh = make_mesh({"data": 2, "fsdp": -1, "tensor": 2})
    assert dict(mesh.shape) == {"data": 2, "fsdp": 2, "expert": 1, "tensor": 2} and batch_shards(mesh) == 4


@pytest.mark.parametrize("sizes", [(3, 1, 1), (3, -1, 1), (-1, -1, 1), (1, 1, 4)])
def test_sizes_that_do_not_use_all_devices_are_refused(sizes):
    with pytest.raises(UserError, match=r"does not use 8 device\(s\) exactly"):
        make_mesh(dict(zip(("data", "fsdp", "tensor"), sizes, strict=True)))


def test_a_dimension_that_does_not_divide_is_named():
    with pytest.raises(
        UserError, match=r"config\.mesh\.tensor=4 does not divide blocks.attention.key.weight's kv_heads dimension of 2"
    ):
        param_shardings(SMALL, mesh_of(1, 1, 4))


def test_weights_are_split_as_the_rules_say():
    shardings = param_shardings(SMALL, mesh_of(2, 2, 2))
    shapes = jax.tree.map(lambda leaf, sharding: sharding.shard_shape(leaf.shape), abstract_params(SMALL), shardings)
    assert shapes["blocks"]["attention"]["query"]["weight"] == (2, 16, 2, 8)  # of (2, 32, 4, 8)
    assert shapes["blocks"]["mlp"]["down"]["weight"] == (2, 16, 32)  # of (2, 64, 32), by rows
    assert shapes["blocks"]["attention"]["output"]["weight"] == (2, 1, 8, 32)  # of (2, 4, 8, 32), likewise
    assert shapes["embedding"] == (48, 16)  # of (96, 32)
    assert named_sharding(mesh_of(2, 2, 2), ("batch",)).shard_shape((8, 3)) == (2, 3)


def test_rows_that_devices_do_not_divide_leave_the_width_to_them():
    shardings = param_shardings(SMALL, mesh_of(1, 8, 1))
    output, down = shardings["blocks"]["attention"]["output"]["weight"], shardings["blocks"]["mlp"]["down"]["weight"]
    assert output.shard_shape((2, 4, 8, 32)) == (2, 4, 8, 4)  # 4 heads
    assert down.shard_shape((2, 64, 32)) == (2, 8, 32)
