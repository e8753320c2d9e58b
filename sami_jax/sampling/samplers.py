"""Who samples: our own program, or what stands in for it."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import jax

from sami_jax.models.pretrained import ModelFolder
from sami_jax.sampling.decoding import Response, generate
from sami_jax.sampling.drawing import SamplingOptions


@dataclasses.dataclass(frozen=True)
class Prompt:
    key: dict  # what the output line starts with, for example {"id": ..., "constitution": ...}
    ids: list[int]
    seed: int  # 0 <= seed < 2**32
    against: list[int] = dataclasses.field(default_factory=list)  # what it is held against, where there is a contrast


class Sampler(Protocol):
    """Samples from one model."""

    @property
    def model(self) -> ModelFolder: ...

    def responses(
        self, prompts: Sequence[Prompt], options: SamplingOptions, decode: Callable[[list[int]], str]
    ) -> Iterator[Response]:
        """One to each prompt, in order. All processes of a run call this, and get the same.

        Args:
          decode: token ids to text.
        """
        ...


@dataclasses.dataclass(frozen=True)
class OwnSampler:
    model: ModelFolder
    params: dict  # weights in the compute dtype
    mesh: jax.sharding.Mesh
    batch_size: int  # rows decoded together

    def responses(
        self, prompts: Sequence[Prompt], options: SamplingOptions, decode: Callable[[list[int]], str]
    ) -> Iterator[Response]:
        return generate(
            self.params,
            self.model.config,
            [prompt.ids for prompt in prompts],
            [prompt.seed for prompt in prompts],
            options,
            end_tokens=self.model.end_tokens,
            decode=decode,
            mesh=self.mesh,
            batch_size=self.batch_size,
            against=[prompt.against for prompt in prompts],
        )
