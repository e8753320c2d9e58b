"""Sampling: jitted prefill, then decode in one compiled loop with a KV cache.

Each row has a seed of its own, and token t of a row is drawn with fold_in(seed, t): what a row says does not depend on
its neighbours or its batch. Rows are right-padded, and each keeps its own position.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sami_jax.models.cache import LayerCache, new_cache
from sami_jax.models.config import ModelConfig
from sami_jax.models.decoder import bind
from sami_jax.sharding import batch_shards, named_sharding

# Decode steps between two looks of the host at stop strings and finished rows.
SEGMENT = 32
# Prompts are padded to a multiple of this, so that few shapes are compiled.
PROMPT_BUCKET = 64


@dataclasses.dataclass(frozen=True)
class SamplingOptions:
    temperature: float = 1.0  # 0 takes the likeliest token
    top_p: float = 1.0  # smallest set of likeliest tokens whose probability reaches this; 1 keeps all
    top_k: int = 0  # this many likeliest tokens; 0 keeps all
    max_new_tokens: int = 64
    stop: tuple[str, ...] = ()  # texts that end a response and are cut off, with all that follows them


class Response(NamedTuple):
    text: str
    tokens: int  # sampled tokens, the end-of-text token not counted
    finish_reason: str  # "stop": end of text or a stop string; "length": max_new_tokens reached


class _Decoding(NamedTuple):
    """State of the decode loop; R rows."""

    cache: LayerCache
    last: jax.Array  # [R] int32, latest token, not yet in the cache
    position: jax.Array  # [R] int32, where `last` goes
    finished: jax.Array  # [R] bool
    generated: jax.Array  # [R, max_new_tokens] int32, end of text where nothing was sampled
    step: jax.Array  # [] int32, tokens sampled so far


def choose(logits: jax.Array, keys: jax.Array, options: SamplingOptions) -> jax.Array:
    """Draws one token a row: logits [R, V] float32, keys [R] -> [R] int32. Temperature, then top-k, then top-p."""
    if options.temperature == 0:
        return jnp.argmax(logits, axis=-1)
    logits = logits / options.temperature
    if options.top_k:
        threshold = jax.lax.top_k(logits, min(options.top_k, logits.shape[-1]))[0][:, -1:]
        logits = jnp.where(logits < threshold, -jnp.inf, logits)
    if options.top_p < 1:
        ordered = jnp.sort(logits, axis=-1, descending=True)
        probabilities = jax.nn.softmax(ordered, axis=-1)
        # A token stays while the ones likelier than it do not reach top_p yet; the likeliest always stays.
        kept = jnp.cumsum(probabilities, axis=-1) - probabilities < options.top_p
        threshold = jnp.min(jnp.where(kept, ordered, jnp.inf), axis=-1, keepdims=True)
        logits = jnp.where(logits < threshold, -jnp.inf, logits)
    return jax.vmap(jax.random.categorical)(keys, logits)


@functools.partial(jax.jit, static_argnames=("config", "options", "end_tokens"))
def _prefill(
    params, prompts, lengths, seeds, finished, *, config: ModelConfig, options: SamplingOptions, end_tokens
) -> _Decoding:
    """prompts [R, P], lengths [R], seeds [R] uint32 -> the state after the first sampled token."""
    model = bind(config, params)
    rows, prompt_slots = prompts.shape
    cache = new_cache(config, rows, prompt_slots + options.max_new_tokens, params["embedding"].dtype)
    positions = jnp.broadcast_to(jnp.arange(prompt_slots)[None], prompts.shape)
    hidden, cache = model(prompts, positions, cache=cache)
    last_hidden = jnp.take_along_axis(hidden, lengths[:, None, None] - 1, axis=1)[:, 0]
    generated = jnp.full((rows, options.max_new_tokens), end_tokens[0], jnp.int32)
    state = _Decoding(cache, jnp.zeros_like(lengths), lengths, finished, generated, jnp.int32(0))
    return _append(state, model.unembed(last_hidden), seeds, options, end_tokens)


@functools.partial(jax.jit, static_argnames=("config", "options", "end_tokens"), donate_argnames=("state",))
def _decode_segment(
    params, state: _Decoding, seeds, *, config: ModelConfig, options: SamplingOptions, end_tokens
) -> _Decoding:
    """Decodes until SEGMENT more tokens are sampled, the budget is spent, or every row has finished."""
    model = bind(config, params)
    until = jnp.minimum(state.step + SEGMENT, options.max_new_tokens)

    def one_token(state: _Decoding) -> _Decoding:
        hidden, cache = model(state.last[:, None], state.position[:, None], cache=state.cache)
        state = state._replace(cache=cache, position=state.position + 1)
        return _append(state, model.unembed(hidden[:, 0]), seeds, options, end_tokens)

    return jax.lax.while_loop(lambda s: (s.step < until) & ~jnp.all(s.finished), one_token, state)


def _append(
    state: _Decoding, logits: jax.Array, seeds: jax.Array, options: SamplingOptions, end_tokens: tuple[int, ...]
) -> _Decoding:
    keys = jax.vmap(lambda seed: jax.random.fold_in(jax.random.key(seed), state.step))(seeds)
    token = jnp.where(state.finished, end_tokens[0], choose(logits, keys, options)).astype(jnp.int32)
    ended = jnp.any(token[:, None] == jnp.array(end_tokens)[None], axis=1)
    generated = jax.lax.dynamic_update_index_in_dim(state.generated, token, state.step, axis=1)
    return state._replace(last=token, finished=state.finished | ended, generated=generated, step=state.step + 1)


def generate(
    params: dict,
    config: ModelConfig,
    prompts: Sequence[Sequence[int]],
    seeds: Sequence[int],
    options: SamplingOptions,
    *,
    end_tokens: tuple[int, ...],
    decode: Callable[[list[int]], str],
    mesh: jax.sharding.Mesh,
    batch_size: int,
) -> Iterator[Response]:
    """Samples one response to each prompt, in order.

    Args:
      params: weights, already in the compute dtype and in their shards on `mesh`.
      prompts: token ids, each not empty, prompt + max_new_tokens at most the model's max_positions.
      seeds: one per prompt, 0 <= seed < 2**32.
      end_tokens: ids that end a response.
      decode: token ids to text.
      batch_size: rows decoded together; rounded up to a multiple of the mesh's batch shards.
    """
    rows = rows_at_once(batch_size, mesh)
    static = {"config": config, "options": options, "end_tokens": end_tokens}
    for start in range(0, len(prompts), rows):
        chunk = prompts[start : start + rows]
        tokens, lengths = _pad(chunk, rows, end_tokens[0])
        row_seeds = np.zeros(rows, np.uint32)
        row_seeds[: len(chunk)] = seeds[start : start + rows]
        finished = np.arange(rows) >= len(chunk)
        by_row = functools.partial(jax.device_put, device=named_sharding(mesh, ("batch",)))
        with jax.set_mesh(mesh):
            row_seeds = by_row(row_seeds)
            state = _prefill(params, by_row(tokens), by_row(lengths), row_seeds, by_row(finished), **static)
            while True:
                stopped = _meets_stop_string(state, options, decode, end_tokens)
                if stopped.all() or int(state.step) >= options.max_new_tokens:
                    break
                state = _decode_segment(params, state._replace(finished=by_row(stopped)), row_seeds, **static)
        generated = np.asarray(state.generated)[: len(chunk)]
        for row in generated:
            yield _response(row.tolist(), options, decode, end_tokens)


def rows_at_once(batch_size: int, mesh: jax.sharding.Mesh) -> int:
    """`batch_size` rounded up to a multiple of the devices that share the rows."""
    shards = batch_shards(mesh)
    return -(-batch_size // shards) * shards


def _pad(prompts: Sequence[Sequence[int]], rows: int, padding: int) -> tuple[np.ndarray, np.ndarray]:
    longest = max(len(prompt) for prompt in prompts)
    tokens = np.full((rows, -(-longest // PROMPT_BUCKET) * PROMPT_BUCKET), padding, np.int32)
    lengths = np.ones(rows, np.int32)
    for row, prompt in enumerate(prompts):
        tokens[row, : len(prompt)] = prompt
        lengths[row] = len(prompt)
    return tokens, lengths


def _meets_stop_string(state: _Decoding, options: SamplingOptions, decode, end_tokens) -> np.ndarray:
    """Which rows have finished, those whose text holds a stop string included."""
    finished = np.array(state.finished)
    if options.stop:
        generated = np.asarray(state.generated)[:, : int(state.step)]
        for row in np.flatnonzero(~finished):
            text = decode(generated[row].tolist())
            finished[row] = any(stop in text for stop in options.stop)
    return finished


def _response(tokens: list[int], options: SamplingOptions, decode, end_tokens) -> Response:
    end = next((i for i, token in enumerate(tokens) if token in end_tokens), None)
    finish_reason = "length" if end is None else "stop"
    tokens = tokens[:end]
    text = decode(tokens)
    cuts = [text.find(stop) for stop in options.stop if stop in text]
    if cuts:
        text = text[: min(cuts)]
        # The shortest run of tokens that spells the kept text.
        kept = next(n for n in range(len(tokens) + 1) if decode(tokens[:n]).startswith(text))
        return Response(text, kept, "stop")
    return Response(text, len(tokens), finish_reason)
