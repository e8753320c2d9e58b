"""S for many examples at once, batch after batch: what `sami score` and the evaluation read."""

import functools
from collections.abc import Iterator, Sequence

import jax
import numpy as np

from sami_jax.data.batches import ContrastBatch, ContrastExample, pad, padded_sizes
from sami_jax.likelihood import token_logprobs
from sami_jax.models.config import ModelConfig
from sami_jax.sharding import batch_shards, named_sharding

# Prompts and responses are padded to a multiple of this, so that few shapes are compiled.
BUCKET = 32


@functools.partial(jax.jit, static_argnames="config")
def _summed(params, batch: ContrastBatch, *, config: ModelConfig) -> jax.Array:
    return token_logprobs(params, config, batch).sum(axis=-1)


def score(
    params: dict, config: ModelConfig, examples: Sequence[ContrastExample], mesh: jax.sharding.Mesh, batch_size: int
) -> Iterator[np.ndarray]:
    """Yields, for each example in order, [C, C] float32 of log p(y_j | c_i, x) summed over the tokens of y_j.

    All examples of one batch must have the same C; `batch_size` queries are scored together, rounded up to a multiple of
    the mesh's batch shards.
    """
    shards = batch_shards(mesh)
    size = -(-batch_size // shards) * shards
    for start in range(0, len(examples), size):
        chunk = list(examples[start : start + size])
        filled = chunk + [chunk[-1]] * (size - len(chunk))
        batch = pad(filled, *padded_sizes(filled, BUCKET))
        batch = ContrastBatch(*(jax.device_put(array, named_sharding(mesh, ("batch",))) for array in batch))
        with jax.set_mesh(mesh):
            summed = np.asarray(_summed(params, batch, config=config))
        yield from summed[: len(chunk)]


def normalized(summed: np.ndarray, example: ContrastExample, normalize: str) -> np.ndarray:
    """S [C, C] of one example under `normalize` ("mean" over each response's tokens, or "sum")."""
    if normalize == "sum":
        return summed
    lengths = np.array([max(len(response), 1) for response in example.responses])
    return summed / lengths[None]
