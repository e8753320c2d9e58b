"""The update, scoring, prefill and decode at the longest and widest that is claimed, compiled for TPUs without one: eight constitutions, a vocabulary of 256,000, rows of
32,768 tokens, 80 layers of Llama-3-70B's shape."""

import dataclasses

import pytest

from sami_jax.config import defaults
from sami_jax.models.published import SHAPES
from sami_jax.planning.compiling import Programs
from sami_jax.planning.costs import Texts
from sami_jax.planning.topology import open_topology
from sami_jax.sharding import make_mesh

GIB = 2**30
ROW, RESPONSE, COUNT = 32_768, 352, 8
MODEL = dataclasses.replace(SHAPES["llama-3-70b"], vocab_size=256_000, max_positions=ROW, attention="splash")


@pytest.fixture(scope="module")
def large() -> Programs:
    """On 64 chips, 16 of which split the queries and the weights, and 4 the heads."""
    config = defaults()
    config.constitutions.count, config.train.constitutions_at_once = COUNT, 1
    config.train.param_dtype = config.train.compute_dtype = "bfloat16"
    config.train.batch_size, config.train.microbatches, config.train.remat = 32, 2, "full"
    config.sampling.max_new_tokens, config.sampling.batch_size = RESPONSE, 16
    config.evaluation.batch_size = 16
    pytest.importorskip("libtpu")
    mesh = make_mesh({"fsdp": 16, "tensor": 4}, open_topology("v5p:4x4x4").devices)
    return Programs(config, MODEL, mesh, Texts(ROW - COUNT * RESPONSE, RESPONSE, COUNT))


# Logits of one row would be 31 GiB, scores of a layer 64 on each device, and what enters each layer, which an update keeps, 40: the chips
# that split the heads hold a share of it each.
@pytest.mark.parametrize(
    ("program", "bound"),
    [
        pytest.param("decode", 6, marks=pytest.mark.slow),
        # Up to three minutes of compiling each.
        *(
            pytest.param(name, bound, marks=pytest.mark.faults)
            for name, bound in (("score", 6), ("prefill", 6), ("add", 23))
        ),
    ],
)
def test_temporaries_are_bounded(large, program, bound):
    compiled = getattr(large, program)()
    assert not compiled.refusal and compiled.temporaries < bound * GIB
