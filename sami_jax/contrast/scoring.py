"""S for many examples at once, batch after batch: what `sami score` and the evaluation read; log-probs of tokens likewise."""

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import jax
import numpy as np

from sami_jax.contrast.likelihood import likelihoods, token_logprobs
from sami_jax.data.batches import ContrastBatch, ContrastExample, Shape, choose_shapes, few_lengths, pack
from sami_jax.errors import NotFinite
from sami_jax.ground.progress import track
from sami_jax.models.config import ModelConfig
from sami_jax.sharding import batch_shards, gathered, put

T = TypeVar("T")

SHAPES = 8  # that the batches of one call are padded to, at most; each is compiled once
BUCKET = 32  # tokens; sizes are multiples of it
TOGETHER = 2**14  # tokens of the rows that a device computes together, if it can be fewer than a whole batch's


@functools.partial(jax.jit, static_argnames=("config", "at_once"))
def summed(params, batch: ContrastBatch, *, config: ModelConfig, at_once: int) -> jax.Array:
    """S of a batch, [B, C, C]."""
    return likelihoods(params, config, batch, compute_dtype=params["embedding"].dtype, at_once=at_once).summed


@functools.partial(jax.jit, static_argnames="config")
def _by_token(params, batch: ContrastBatch, *, config: ModelConfig) -> jax.Array:
    return token_logprobs(params, config, batch, compute_dtype=params["embedding"].dtype)


def together(batch: ContrastBatch, shards: int) -> int:
    """How many constitutions `summed` is to compute at once, so that its memory does not grow with their number."""
    queries, count, row = batch.tokens.shape
    fitting = [n for n in range(1, count + 1) if count % n == 0 and n * queries * row <= TOGETHER * shards]
    return max(fitting, default=1)


def score(
    params: dict, config: ModelConfig, examples: Sequence[ContrastExample], mesh: jax.sharding.Mesh, batch_size: int
) -> Iterator[tuple[int, np.ndarray]]:
    """Yields each example's place and its [C, C] float32 of log p(y_j | c_i, x), summed over the tokens of y_j.

    Longest first: texts of like lengths are scored together, and if memory is short, it shows at once. At most SHAPES programs are
    compiled, however many lengths and C there are.

    Args:
      batch_size: queries scored together, rounded up to a multiple of the mesh's batch shards.
    Raises:
      NotFinite: a log-likelihood is no number.
    """

    def kernel(params, batch: ContrastBatch) -> jax.Array:
        return summed(params, batch, config=config, at_once=together(batch, batch_shards(mesh)))

    for place, found in _in_batches(kernel, params, examples, mesh, batch_size):
        count = len(examples[place].prompts)
        yield place, found[:count, :count]


def score_tokens(
    params: dict, config: ModelConfig, examples: Sequence[ContrastExample], mesh: jax.sharding.Mesh, batch_size: int
) -> Iterator[tuple[int, np.ndarray]]:
    """Yields each example's place and its [C, L] float32 of log p(token | c_i, x, tokens before it), longest first.

    Args:
      examples: of any number C of prompts, with one response each, of L tokens.
    """
    kernel = functools.partial(_by_token, config=config)
    for place, logprobs in _in_batches(kernel, params, examples, mesh, batch_size):
        (response,) = examples[place].responses
        yield place, logprobs[: len(examples[place].prompts), : len(response)]


def tracked(
    scored: Iterable[tuple[int, T]], title: str, examples: Sequence[ContrastExample]
) -> Iterator[tuple[int, T]]:
    """What is yielded by the examples' places, as `score` does, behind a progress bar that counts their tokens."""

    def tokens(one: tuple[int, T]) -> int:
        return examples[one[0]].tokens

    return track(scored, title, len(examples), tokens=tokens, to_come=sum(example.tokens for example in examples))


def _in_batches(
    kernel: Callable, params: dict, examples: Sequence[ContrastExample], mesh: jax.sharding.Mesh, batch_size: int
) -> Iterator[tuple[int, np.ndarray]]:
    """Yields each example's place and its share of what `kernel` makes of the packed batches, longest rows first."""
    shards = batch_shards(mesh)
    batches = list(_batches(examples, -(-batch_size // shards) * shards))
    for places, filled, shape in sorted(batches, key=lambda batch: -batch[2].row):
        batch = jax.tree.map(lambda array: put(array, mesh, ("batch",)), pack(filled, shape))
        with jax.set_mesh(mesh):
            values = gathered(kernel(params, batch))
        if not np.isfinite(values).all():
            raise NotFinite("a log-likelihood is no number; is a weight of the model too large, or damaged?")
        yield from zip(places, values, strict=False)


def _batches(
    examples: Sequence[ContrastExample], size: int
) -> Iterator[tuple[list[int], list[ContrastExample], Shape]]:
    """Batches of `size` examples alike in length and in their number of prompts: the places of those in it, they themselves, made
    up to the same number and with one repeated where too few are left, and the shape to pack them in."""
    if not examples:
        return
    counts = few_lengths([len(example.prompts) for example in examples], SHAPES)
    by_count: dict[int, list[int]] = {}
    for place in sorted(range(len(examples)), key=lambda place: -examples[place].longest_row):
        by_count.setdefault(next(count for count in counts if count >= len(examples[place].prompts)), []).append(place)
    for count, places in by_count.items():
        responses = max(len(examples[place].responses) for place in places)
        chunks = [places[start : start + size] for start in range(0, len(places), size)]
        batches = [
            [_made_up(examples[place], count, responses) for place in chunk + chunk[-1:] * (size - len(chunk))]
            for chunk in chunks
        ]
        shape_of = choose_shapes(batches, SHAPES // len(by_count), BUCKET)
        for chunk, batch in zip(chunks, batches, strict=True):
            yield chunk, batch, shape_of(batch)


def _made_up(example: ContrastExample, prompts: int, responses: int) -> ContrastExample:
    """With its last prompt repeated and empty responses behind its own."""
    missing = responses - len(example.responses)
    more = example.prompts[-1:] * (prompts - len(example.prompts))
    return ContrastExample(example.prompts + more, example.responses + ((),) * missing)
