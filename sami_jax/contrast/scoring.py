"""S for many examples at once, batch after batch: what `sami score` and the evaluation read; log-probs of tokens likewise."""

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import jax
import numpy as np

from sami_jax.contrast.likelihood import likelihoods, token_logprobs
from sami_jax.data.batches import ContrastBatch, ContrastExample, pack, shape_for
from sami_jax.errors import NotFinite
from sami_jax.ground.progress import track
from sami_jax.models.config import ModelConfig
from sami_jax.sharding import batch_shards, gathered, put

T = TypeVar("T")

# Sizes are rounded up to a multiple of this, so that few shapes are compiled.
BUCKET = 32


@functools.partial(jax.jit, static_argnames="config")
def _summed(params, batch: ContrastBatch, *, config: ModelConfig) -> jax.Array:
    return likelihoods(params, config, batch, compute_dtype=params["embedding"].dtype).summed


@functools.partial(jax.jit, static_argnames="config")
def _by_token(params, batch: ContrastBatch, *, config: ModelConfig) -> jax.Array:
    return token_logprobs(params, config, batch, compute_dtype=params["embedding"].dtype)


def score(
    params: dict, config: ModelConfig, examples: Sequence[ContrastExample], mesh: jax.sharding.Mesh, batch_size: int
) -> Iterator[tuple[int, np.ndarray]]:
    """Yields each example's place and its [C, C] float32 of log p(y_j | c_i, x), summed over the tokens of y_j.

    Longest first: texts of like lengths are scored together, and if memory is short, it shows at once. All examples must have
    the same C; `batch_size` queries are scored together, rounded up to a multiple of the mesh's batch shards.

    Raises:
      NotFinite: a log-likelihood is no number.
    """
    yield from _in_batches(_summed, params, config, examples, mesh, batch_size)


def score_tokens(
    params: dict, config: ModelConfig, examples: Sequence[ContrastExample], mesh: jax.sharding.Mesh, batch_size: int
) -> Iterator[tuple[int, np.ndarray]]:
    """Yields each example's place and its [C, L] float32 of log p(token | c_i, x, tokens before it), longest first.

    Args:
      examples: of the same number C of prompts, with one response each, of L tokens.
    """
    for place, logprobs in _in_batches(_by_token, params, config, examples, mesh, batch_size):
        (response,) = examples[place].responses
        yield place, logprobs[:, : len(response)]


def tracked(
    scored: Iterable[tuple[int, T]], title: str, examples: Sequence[ContrastExample]
) -> Iterator[tuple[int, T]]:
    """What is yielded by the examples' places, as `score` does, behind a progress bar that counts their tokens."""

    def tokens(one: tuple[int, T]) -> int:
        return examples[one[0]].tokens

    return track(scored, title, len(examples), tokens=tokens, to_come=sum(example.tokens for example in examples))


def _in_batches(
    kernel: Callable, params: dict, config: ModelConfig, examples: Sequence[ContrastExample], mesh, batch_size: int
) -> Iterator[tuple[int, np.ndarray]]:
    """Yields each example's place and its share of what `kernel` makes of the packed batches, longest rows first."""
    shards = batch_shards(mesh)
    size = -(-batch_size // shards) * shards
    places = sorted(range(len(examples)), key=lambda place: -examples[place].longest_row)
    for start in range(0, len(places), size):
        chunk = places[start : start + size]
        filled = [examples[place] for place in chunk + chunk[-1:] * (size - len(chunk))]
        packed = pack(filled, shape_for(filled, BUCKET))
        batch = jax.tree.map(lambda array: put(array, mesh, ("batch",)), packed)
        with jax.set_mesh(mesh):
            values = gathered(kernel(params, batch, config=config))
        if not np.isfinite(values).all():
            raise NotFinite("a log-likelihood is no number; is a weight of the model too large, or damaged?")
        yield from zip(chunk, values, strict=False)
