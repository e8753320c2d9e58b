"""Collectives read from programs: by hand, and from one that is compiled here."""

import jax
import jax.numpy as jnp
import pytest
from support.small_model import mesh_of

from sami_jax.planning import hlo
from sami_jax.planning.collectives import collectives
from sami_jax.sharding import named_sharding

# What XLA for TPUs writes, shortened: a loop of 32 layers by 2, a gather that goes on in two computations, a scattered sum.
PROGRAM = """\
HloModule jit_add, is_scheduled=true

%all-reduce-scatter.1 (p.1: f32[8,16]) -> f32[1,16] {
  %p.1 = f32[8,16]{1,0} parameter(0)
  ROOT %all-reduce.1 = f32[8,16]{1,0} all-reduce(%p.1), channel_id=3, replica_groups={{0,1,2,3,4,5,6,7}}, to_apply=%sum
}

%began (p.2: bf16[4,16]) -> bf16[32,16] {
  %p.2 = bf16[4,16]{1,0} parameter(0)
  ROOT %all-gather.1 = bf16[32,16]{1,0} all-gather(%p.2), channel_id=7, replica_groups=mesh['a'=8] {'a'}, dimensions={0}
}

%ended (p.3: bf16[4,16]) -> bf16[32,16] {
  %p.3 = bf16[4,16]{1,0} parameter(0)
  ROOT %all-gather.2 = bf16[32,16]{1,0} all-gather(%p.3), channel_id=7, replica_groups=mesh['a'=8] {'a'}, dimensions={0}
}

%condition (c.1: (u32[], bf16[4,16])) -> pred[] {
  %c.1 = (u32[]{:T(128)}, bf16[4,16]{1,0}) parameter(0)
  %limit = u32[]{:T(128)} constant(32)
  %counter = u32[]{:T(128)} get-tuple-element(%c.1), index=0
  ROOT %less = pred[] compare(%counter, %limit), direction=LT
}

%body (b.1: (u32[], bf16[4,16])) -> (u32[], bf16[4,16]) {
  %b.1 = (u32[]{:T(128)}, bf16[4,16]{1,0}) parameter(0)
  %now = u32[]{:T(128)} get-tuple-element(%b.1), index=0
  %two = u32[]{:T(128)} constant(2)
  %next = u32[]{:T(128)} add(%now, %two)
  %weight = bf16[4,16]{1,0} get-tuple-element(%b.1), index=1
  %started = bf16[32,16]{1,0} fusion(%weight), kind=kCustom, calls=%began
  %done = bf16[32,16]{1,0} fusion(%weight), kind=kCustom, calls=%ended
  %sent = (bf16[4,16]{1,0}, bf16[4,16]{1,0}, u32[]) collective-permute-start(%weight), channel_id=9
  ROOT %carried = (u32[]{:T(128)}, bf16[4,16]{1,0}) tuple(%next, %weight), metadata={op_name="x"}
}

ENTRY %main (a: bf16[4,16], g: f32[8,16]) -> f32[1,16] {
  %a = bf16[4,16]{1,0} parameter(0)
  %g = f32[8,16]{1,0} parameter(1)
  %zero = u32[]{:T(128)} constant(0)
  %start = (u32[]{:T(128)}, bf16[4,16]{1,0}) tuple(%zero, %a)
  %loop = (u32[]{:T(128)}, bf16[4,16]{1,0}) while(%start), condition=%condition, body=%body
  ROOT %scattered = f32[1,16]{1,0} fusion(%g), kind=kCustom, calls=%all-reduce-scatter.1
}
"""


def test_a_program_by_hand():
    found = {one.kind: one for one in collectives(hlo.parse(PROGRAM))}
    assert set(found) == {"all-gather", "collective-permute", "reduce-scatter"}
    assert found["all-gather"].times == 16  # 32 by 2; begun and ended, it is one
    assert found["all-gather"].sent == 16 * 7 * 4 * 16 * 2  # a shard of 4 x 16 bfloat16 to 7 others
    assert found["all-gather"].largest == 32 * 16 * 2
    assert found["collective-permute"].sent == 16 * 4 * 16 * 2
    assert found["reduce-scatter"].sent == 8 * 16 * 4 * 7 / 8


def test_on_gpus_many_have_the_same_number():
    one = PROGRAM.replace(":T(128)", "").replace("channel_id=7", "channel_id=1").replace("channel_id=9", "channel_id=1")
    gathered = next(c for c in collectives(hlo.parse(one)) if c.kind == "all-gather")
    assert gathered.times == 2 * 16 and gathered.sent == 2 * 16 * 7 * 4 * 16 * 2


@pytest.mark.parametrize("groups", ["{{0,1,2,3},{4,5,6,7}}", "[2,4]<=[8]", "mesh['a'=2,'b'=4] {'b'}"])
def test_groups_however_they_are_written(groups):
    one = PROGRAM.replace("{{0,1,2,3,4,5,6,7}}", groups)
    scattered = next(c for c in collectives(hlo.parse(one)) if c.kind == "reduce-scatter")
    assert scattered.sent == 8 * 16 * 4 * 3 / 4


def test_a_loop_compiled_here_counts_its_trips():
    mesh = mesh_of(1, 8, 1)
    weights = jax.ShapeDtypeStruct((6, 64, 64), jnp.float32, sharding=named_sharding(mesh, ("layer", "embed", "mlp")))
    x = jax.ShapeDtypeStruct((8, 64), jnp.float32, sharding=named_sharding(mesh, ("batch",)))

    def forward(weights, x):
        return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, weights)[0]

    jitted = jax.jit(forward, out_shardings=named_sharding(mesh, ("batch",)))
    with jax.set_mesh(mesh):
        found = collectives(hlo.parse(jitted.lower(weights, x).compile().as_text()))
    # Whichever way XLA takes: weights to the rows, or rows to the weights. None goes without crossing devices six times.
    assert sum(one.times for one in found) >= 6 and all(one.sent > 0 for one in found)
