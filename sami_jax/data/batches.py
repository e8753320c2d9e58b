"""Token ids of contrast examples, and the padded batches that programs of fixed shape take."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import grain
import numpy as np


class ContrastBatch(NamedTuple):
    """B queries, each with C prompts (constitution i with query b) and C responses. Right-padded, padding id arbitrary."""

    prefixes: np.ndarray  # [B, C, P] int32, prompt tokens
    prefix_lengths: np.ndarray  # [B, C] int32, at least 1
    responses: np.ndarray  # [B, C, L] int32
    response_lengths: np.ndarray  # [B, C] int32, tokens that are scored; 0 gives a log-likelihood of 0


@dataclasses.dataclass(frozen=True)
class ContrastExample:
    """One query: C prompts and C responses as token ids. Prompt and response are tokenised apart, never jointly: a
    joint tokenisation can merge tokens across the border between them."""

    prompts: tuple[tuple[int, ...], ...]
    responses: tuple[tuple[int, ...], ...]


def padded_sizes(examples: Sequence[ContrastExample], bucket: int) -> tuple[int, int]:
    """The longest prompt and response, rounded up to multiples of `bucket`: the shape (P, L) of a batch of them all."""
    longest_prompt = max(len(prompt) for example in examples for prompt in example.prompts)
    longest_response = max(len(response) for example in examples for response in example.responses)
    return -(-longest_prompt // bucket) * bucket, -(-longest_response // bucket) * bucket


def pad(examples: Sequence[ContrastExample], prefix_size: int, response_size: int) -> ContrastBatch:
    """Stacks examples of equal C into one batch of shape P = prefix_size, L = response_size."""
    shape = (len(examples), len(examples[0].prompts))
    batch = ContrastBatch(
        prefixes=np.zeros((*shape, prefix_size), np.int32),
        prefix_lengths=np.zeros(shape, np.int32),
        responses=np.zeros((*shape, response_size), np.int32),
        response_lengths=np.zeros(shape, np.int32),
    )
    for b, example in enumerate(examples):
        for c, (prompt, response) in enumerate(zip(example.prompts, example.responses, strict=True)):
            batch.prefixes[b, c, : len(prompt)] = prompt
            batch.responses[b, c, : len(response)] = response
            batch.prefix_lengths[b, c], batch.response_lengths[b, c] = len(prompt), len(response)
    return batch


def tokens(batch: ContrastBatch) -> int:
    """Tokens that are no padding in a batch of any leading axes, each prefix counted once for its C responses."""
    return int(batch.prefix_lengths.sum() + batch.responses.shape[-2] * batch.response_lengths.sum())


def training_batches(
    examples: Sequence[ContrastExample], batch_size: int, microbatches: int, seed: int, bucket: int
) -> grain.MapDataset:
    """A dataset whose element u is the batch of update u, [microbatches, batch_size / microbatches, C, ...].

    Shuffled anew each epoch. Indexing it is how a resumed run finds its place in the data again.
    """
    sizes = padded_sizes(examples, bucket)

    def to_batch(chosen):
        batch = pad(chosen, *sizes)
        return ContrastBatch(*(array.reshape(microbatches, -1, *array.shape[1:]) for array in batch))

    return grain.MapDataset.source(list(examples)).shuffle(seed).repeat().batch(batch_size, batch_fn=list).map(to_batch)
