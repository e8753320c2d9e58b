"""A small model, a mixture like it, meshes and batches for them."""

import dataclasses

import jax
import numpy as np

from sami_jax.data.batches import ContrastBatch, ContrastExample, Shape, pack
from sami_jax.data.packing import Sizes
from sami_jax.models.config import ModelConfig
from sami_jax.sharding import make_mesh

SMALL = ModelConfig(
    family="mistral",
    vocab_size=96,
    d_model=32,
    n_layers=2,
    n_heads=4,
    n_kv_heads=2,
    head_dim=8,
    d_ff=64,
    max_positions=128,
    sliding_window=7,
)
MIXTURE = dataclasses.replace(SMALL, family="mixtral", n_experts=4, experts_per_token=2)


def mesh_of(data: int, fsdp: int, tensor: int, expert: int = 1) -> jax.sharding.Mesh:
    sizes = {"data": data, "fsdp": fsdp, "expert": expert, "tensor": tensor}
    return make_mesh(sizes, jax.devices()[: data * fsdp * expert * tensor])


def random_batch(seed: int, queries: int, count: int, prefix: int = 12, response: int = 9) -> ContrastBatch:
    """Ragged random prompts and responses of SMALL's vocabulary."""
    rng = np.random.default_rng(seed)

    def texts(longest: int) -> tuple[tuple[int, ...], ...]:
        lengths = rng.integers(1, longest + 1, count)
        return tuple(tuple(rng.integers(0, SMALL.vocab_size, length).tolist()) for length in lengths)

    examples = [ContrastExample(texts(prefix), texts(response)) for _ in range(queries)]
    return pack(examples, Shape(prefix + count * response, Sizes(prefix, response, count * response)))
