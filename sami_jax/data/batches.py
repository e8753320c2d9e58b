"""Token ids of contrast examples, and the packed batches that programs of few fixed shapes take."""

import dataclasses
import itertools
from collections.abc import Callable, Sequence

import grain
import jax
import numpy as np

from sami_jax.data.packing import Sizes


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ContrastBatch:
    """B queries with C constitutions each: packed rows of prompt i (constitution i with query b) and all C responses.

    Where tokens are scored and not S, there may be fewer responses than constitutions, or more.
    """

    tokens: np.ndarray  # [B, C, T] int32
    prefix_lengths: np.ndarray  # [B, C] int32, tokens of each prompt, at least 1
    response_lengths: np.ndarray  # [B, C] int32, tokens of each response; 0 gives a log-likelihood of 0
    sizes: Sizes = dataclasses.field(metadata={"static": True})


@dataclasses.dataclass(frozen=True)
class ContrastExample:
    """One query: C prompts and, for S, C responses as token ids. Prompt and response are tokenised apart, never jointly: a
    joint tokenisation can merge tokens across the border between them."""

    prompts: tuple[tuple[int, ...], ...]
    responses: tuple[tuple[int, ...], ...]

    @property
    def longest_text(self) -> int:
        """Tokens of the longest prompt with the longest response."""
        return max(map(len, self.prompts)) + max(map(len, self.responses))

    @property
    def longest_row(self) -> int:
        """Tokens of the longest prompt with all responses."""
        return max(map(len, self.prompts)) + sum(map(len, self.responses))

    @property
    def tokens(self) -> int:
        """Tokens of the packed rows without padding: each prompt once, and all responses behind each."""
        return sum(map(len, self.prompts)) + len(self.prompts) * sum(map(len, self.responses))


@dataclasses.dataclass(frozen=True)
class Shape:
    """What a batch is padded to: one compiled program each."""

    row: int  # T
    sizes: Sizes


def shape_for(examples: Sequence[ContrastExample], bucket: int) -> Shape:
    """The smallest shape that holds the examples, in multiples of `bucket` tokens."""

    def up(lengths) -> int:
        return -(-max(lengths) // bucket) * bucket or bucket

    return Shape(
        row=up(example.longest_row for example in examples),
        sizes=Sizes(
            prefix=up(len(prompt) for example in examples for prompt in example.prompts),
            response=up(len(response) for example in examples for response in example.responses),
            responses=up(sum(map(len, example.responses)) for example in examples),
        ),
    )


def pack(examples: Sequence[ContrastExample], shape: Shape) -> ContrastBatch:
    """Stacks examples of equal C, all within `shape`, into one batch."""
    rows = (len(examples), len(examples[0].prompts))
    tokens = np.zeros((*rows, shape.row), np.int32)
    prefix_lengths = np.zeros(rows, np.int32)
    response_lengths = np.zeros((len(examples), len(examples[0].responses)), np.int32)
    for b, example in enumerate(examples):
        responses = list(itertools.chain(*example.responses))
        response_lengths[b] = [len(response) for response in example.responses]
        for c, prompt in enumerate(example.prompts):
            row = [*prompt, *responses]
            tokens[b, c, : len(row)] = row
            prefix_lengths[b, c] = len(prompt)
    return ContrastBatch(tokens, prefix_lengths, response_lengths, shape.sizes)


def few_lengths(lengths: Sequence[int], count: int) -> list[int]:
    """At most `count` lengths such that raising each of `lengths` to the next of them adds least in all."""
    distinct, repeats = np.unique(np.asarray(lengths), return_counts=True)
    # cost[i, j]: padding when all from distinct[i] to distinct[j] are raised to distinct[j].
    n = len(distinct)
    items, tokens = np.append(0, np.cumsum(repeats)), np.append(0, np.cumsum(repeats * distinct))
    cost = distinct[None, :] * (items[None, 1:] - items[:-1, None]) - (tokens[None, 1:] - tokens[:-1, None])
    best, chosen = cost[0].astype(float), [[int(last)] for last in distinct]
    for _ in range(min(count, n) - 1):
        totals = np.where(np.tri(n, k=-1).T, best[:, None] + np.roll(cost, -1, axis=0), np.inf)  # [last but one, last]
        previous = totals.argmin(axis=0)
        better = totals[previous, range(n)] < best
        chosen = [[*chosen[previous[j]], int(distinct[j])] if better[j] else chosen[j] for j in range(n)]
        best = np.where(better, totals[previous, range(n)], best)
    return chosen[-1]


class TrainingBatches:
    """The batches of a training stage: the element at u - 1 belongs to update u and is a list of microbatches.

    Examples are shuffled anew each epoch. Within a batch they are sorted by length and dealt out to microbatches in that order, so
    that each holds texts of like lengths; microbatches are padded to one of a few shapes, chosen to keep padding small.
    Indexing is how a resumed run finds its place in the data again.

    Args:
      updates: batches there are.
      shapes: at most so many are used.
      bucket: tokens; sizes are multiples of it.
    """

    def __init__(
        self,
        examples: Sequence[ContrastExample],
        *,
        updates: int,
        batch_size: int,
        microbatches: int,
        seed: int,
        shapes: int,
        bucket: int,
    ):
        order = grain.MapDataset.source(list(examples)).shuffle(seed).repeat().batch(batch_size, batch_fn=list)
        size = batch_size // microbatches
        self._microbatches = []
        for update in range(updates):
            by_length = sorted(order[update] or (), key=lambda example: example.longest_row)
            self._microbatches.append([by_length[i : i + size] for i in range(0, batch_size, size)])
        self._shape_of = choose_shapes(list(itertools.chain(*self._microbatches)), shapes, bucket)

    def __len__(self) -> int:
        return len(self._microbatches)

    def __getitem__(self, index: int) -> list[ContrastBatch]:
        return [pack(microbatch, self._shape_of(microbatch)) for microbatch in self._microbatches[index]]

    def examples(self, index: int) -> list[ContrastExample]:
        """What one update is made of, shortest first."""
        return list(itertools.chain(*self._microbatches[index]))

    @property
    def shapes(self) -> list[Shape]:
        """Those in use, shortest rows first."""
        used = {self._shape_of(microbatch) for update in self._microbatches for microbatch in update}
        return sorted(used, key=lambda shape: shape.row)

    def tokens(self, index: int) -> int:
        """Tokens of one update that are no padding."""
        return sum(example.tokens for microbatch in self._microbatches[index] for example in microbatch)

    def padded_share(self, index: int) -> float:
        """Share of one update's row places that are padding."""
        places = sum(
            len(microbatch) * len(microbatch[0].prompts) * self._shape_of(microbatch).row
            for microbatch in self._microbatches[index]
        )
        return 1 - self.tokens(index) / places


def choose_shapes(
    groups: Sequence[Sequence[ContrastExample]], count: int, bucket: int
) -> Callable[[Sequence[ContrastExample]], Shape]:
    """Chooses at most `count` shapes for all groups, such that padding adds least to their rows; returns what tells a group's.

    Args:
      bucket: tokens; sizes are multiples of it.
    """

    def row(group) -> int:
        return shape_for(group, bucket).row

    rows = few_lengths([row(group) for group in groups], count)
    held: dict[int, list[ContrastExample]] = {}

    def rung(group) -> int:
        return next(length for length in rows if length >= row(group))

    for group in groups:
        held.setdefault(rung(group), []).extend(group)
    shapes = {length: dataclasses.replace(shape_for(examples, bucket), row=length) for length, examples in held.items()}
    return lambda group: shapes[rung(group)]
