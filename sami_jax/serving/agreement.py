"""Whether a server computes the model that is trained: before it samples, both score the same tokens.

A sampler that differs from its trainer (another model, other weights, another rope, too few bits) is a fault that no loss shows: what is trained on
is then not what the model says.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from sami_jax.contrast.scoring import score_tokens
from sami_jax.data.batches import ContrastExample
from sami_jax.errors import UserError
from sami_jax.ground import hosts
from sami_jax.sampling.drawing import SamplingOptions
from sami_jax.sampling.samplers import OwnSampler, Prompt
from sami_jax.serving.completions import Completion, Completions
from sami_jax.serving.in_order import in_order

PROMPTS = 16
FEW = 3  # after which it is clear whether a server tells log-probs; of one response it may have lost a token
TOKENS = 32  # of each response, at most


class Agreement(NamedTuple):
    """How far a server is from the model, in nats a token."""

    mean: float
    largest: float  # of a token
    tokens: int  # that both scored
    by: str  # "log-probs", or "likeliest tokens" of a server that tells no log-probs

    def told(self) -> str:
        return f"{self.mean:.4f} nats a token in the mean, {self.largest:.3f} at most, over {self.tokens} tokens, by {self.by}"


def agreement(
    completions: Completions, own: OwnSampler, prompts: Sequence[Prompt], longest: int, concurrency: int
) -> Agreement:
    """Of the first prompts. All processes of a run call this; the first asks.

    Where the server tells log-probs, these are of what it samples at temperature 1, beside ours of the same tokens: the mean of the
    absolute differences. Else both take the likeliest token until they part: by how much, there, ours lies above the server's in our
    own log-probs, over all tokens so far.

    Args:
      longest: tokens that a response may have.
    Raises:
      UserError: the server failed, or answers without a token.
    """
    prompts, longest = prompts[:PROMPTS], min(TOKENS, longest)

    def asked(temperature: float, prompts: Sequence[Prompt]) -> list[tuple[list[int], Sequence[float] | None]]:
        options = SamplingOptions(temperature=temperature, max_new_tokens=longest)
        ask = functools.partial(_ask, completions, options, own)
        found = in_order(ask, prompts, concurrency)
        return [(list(one.response.token_ids), one.logprobs) for one in found]

    sampled = hosts.once(lambda: asked(1.0, prompts[:FEW]))
    if any(theirs for _, theirs in sampled):
        sampled += hosts.once(lambda: asked(1.0, prompts[FEW:]))
        kept = [(prompt.ids, *two) for prompt, two in zip(prompts, sampled, strict=True) if two[1]]
        ours = _scores(own, [(prompt, ids) for prompt, ids, _ in kept])
        apart = np.abs(np.concatenate([a - np.array(theirs) for a, (_, _, theirs) in zip(ours, kept, strict=True)]))
        return Agreement(float(apart.mean()), float(apart.max()), len(apart), "log-probs")
    theirs = hosts.once(lambda: [ids for ids, _ in asked(0.0, prompts)])
    return _by_likeliest(own, prompts, theirs, longest)


def _ask(completions: Completions, options: SamplingOptions, own: OwnSampler, prompt: Prompt) -> Completion:
    return completions.complete(prompt.ids, prompt.seed, options, own.model.decode)


def _by_likeliest(own: OwnSampler, prompts: Sequence[Prompt], theirs: Sequence[list[int]], longest: int) -> Agreement:
    options = SamplingOptions(temperature=0.0, max_new_tokens=longest)
    ours = [list(response.token_ids) for response in own.responses(prompts, options, own.model.decode)]
    tokens, parted = 0, []
    for prompt, mine, other in zip(prompts, ours, theirs, strict=True):
        # A server that keeps the token which ended a text to itself has said it all the same.
        length = min(len(mine), len(other))
        same = next((place for place in range(length) if mine[place] != other[place]), length)
        tokens += same
        if same < length:
            tokens += 1
            parted.append((prompt.ids, mine[: same + 1], other[: same + 1]))
    if not tokens:
        raise UserError("the server's likeliest tokens cannot be compared: it answers none of the prompts with a token")
    best = _scores(own, [(prompt, mine) for prompt, mine, _ in parted])
    said = _scores(own, [(prompt, other) for prompt, _, other in parted])
    lost = [float(mine[-1] - other[-1]) for mine, other in zip(best, said, strict=True)]
    return Agreement(sum(lost) / tokens, max(lost, default=0.0), tokens, "likeliest tokens")


def _scores(own: OwnSampler, pairs: Sequence[tuple[list[int], list[int]]]) -> list[np.ndarray]:
    """Our log-probs of each response's tokens."""
    examples = [ContrastExample((tuple(prompt),), (tuple(ids),)) for prompt, ids in pairs]
    found: dict[int, np.ndarray] = {}
    for place, logprobs in score_tokens(own.params, own.model.config, examples, own.mesh, PROMPTS):
        found[place] = logprobs[0]
    return [found[place] for place in range(len(examples))]
