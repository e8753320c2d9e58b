"""Sampling: jitted prefill, and decode in one compiled loop with a key-value cache that is updated in place.

A fixed number of rows is decoded together. Rows that finish leave and waiting prompts take their places (continuous
batching), so the speed does not fall to that of the longest response. Each prompt has a seed of its own, and token t of
its response is drawn with fold_in(seed, t): what it says does not depend on its neighbours, its batch or its place.
"""

import contextlib
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sami_jax.ground import compilation, display, hosts
from sami_jax.models.cache import Cache, cache_shardings, new_cache, reach_of
from sami_jax.models.config import ModelConfig
from sami_jax.models.decoder import Layers, bind, layers_apart, whole
from sami_jax.sampling.drawing import SamplingOptions, choose, contrasted
from sami_jax.sampling.forecast import Forecast
from sami_jax.sharding import batch_shards, constrain, gathered, named_sharding, put, weight_shards

# Decode steps between two looks of the host, at most, where there are stop strings or other hosts.
SEGMENT = 32
# Seconds between two looks, about, else: often enough for who waits, too seldom to cost anything.
LOOK = 1.0
# Prompts are padded to a multiple of this at least, so that few shapes are compiled.
SMALLEST_BUCKET = 16
# Waiting prompts enter in groups of 1 / REFILL of the rows: fewer groups waste rows, more groups waste prefills.
REFILL = 4


class Response(NamedTuple):
    text: str
    token_ids: tuple[int, ...]  # that were sampled, the one that ended it among them; a stop string's are left out
    tokens: int  # of these, the one that ended it not counted
    finish_reason: str  # "stop": end of text or a stop string; "length": max_new_tokens reached


class Slots(NamedTuple):
    """State of the decode loop; R rows, each holding a response in progress or none (finished)."""

    cache: Cache
    seeds: jax.Array  # [R] uint32
    last: jax.Array  # [R] int32, latest token, not yet in the cache
    position: jax.Array  # [R] int32, where `last` goes
    sampled: jax.Array  # [R] int32, tokens sampled so far
    finished: jax.Array  # [R] bool
    generated: jax.Array  # [R, max_new_tokens] int32, whatever lies behind the first `sampled` is stale


@functools.partial(jax.jit, static_argnums=range(6))
def empty_slots(
    config: ModelConfig, options: SamplingOptions, rows: int, positions: int, dtype, stacked: bool
) -> Slots:
    zeros = constrain(jnp.zeros(rows, jnp.int32), "batch")
    return Slots(
        cache=new_cache(config, rows, positions, dtype, stacked),
        seeds=jnp.zeros(rows, jnp.uint32),
        last=zeros,
        position=zeros,
        sampled=zeros,
        finished=jnp.ones(rows, bool),
        generated=jnp.zeros((rows, options.max_new_tokens), jnp.int32),
    )


@functools.partial(jax.jit, static_argnames="config", donate_argnames="slots")
def admit_prompts(params, layers, slots: Slots, shared, prompts, lengths, seeds, rows, *, config) -> Slots:
    """Puts a group of prompts, all of which begin with `shared` [D, C], into `rows` [G], each one's last token as the first to decode;
    rows past the last are dropped.

    Args:
      shared: once for each shard of a batch. C may be 0.
      prompts: [G, P], behind it.
    """

    def put(old, new):
        return old.at[rows].set(new, mode="drop")

    last = jnp.take_along_axis(prompts, lengths[:, None] - 1, axis=1)[:, 0]
    return slots._replace(
        cache=bind(config, whole(params, layers)).prefill(layers, shared, prompts, lengths, slots.cache, rows),
        seeds=put(slots.seeds, seeds),
        last=put(slots.last, last),
        position=put(slots.position, shared.shape[1] + lengths - 1),
        sampled=put(slots.sampled, 0),
    )


@functools.partial(jax.jit, static_argnames=("config", "options", "end_tokens", "reach"), donate_argnames="slots")
def decode_tokens(
    params, layers, slots: Slots, finished, enough, steps, *, config, options, end_tokens, reach
) -> Slots:
    """Decodes until `enough` rows have finished or `steps` tokens were sampled.

    Args:
      finished: [R] bool, as the host knows it, stop strings included.
      reach: how far the cache is read; no row that is not finished gets a token at a later position.
    """
    model = bind(config, whole(params, layers))

    def one_token(carry):
        slots, step = carry
        hidden, cache = model.decode(layers, slots.last, slots.position, slots.cache, reach)
        logits = model.unembed(hidden)
        if options.contrast:
            logits = contrasted(logits, options.contrast)
        token = jnp.where(slots.finished, slots.last, _draw(logits, slots.seeds, slots.sampled, options))
        going = ~slots.finished
        place = jnp.where(going, slots.sampled, options.max_new_tokens)  # out of range: dropped
        sampled = slots.sampled + going
        slots = slots._replace(
            cache=cache,
            last=token,
            position=slots.position + going,
            sampled=sampled,
            finished=slots.finished | _ends(token, end_tokens) | (sampled == options.max_new_tokens),
            generated=slots.generated.at[jnp.arange(token.shape[0]), place].set(token, mode="drop"),
        )
        return slots, step + 1

    def goes_on(carry):
        slots, step = carry
        return (jnp.sum(slots.finished) < enough) & (step < steps)

    return jax.lax.while_loop(goes_on, one_token, (slots._replace(finished=finished), 0))[0]


def _draw(logits: jax.Array, seeds: jax.Array, sampled: jax.Array, options: SamplingOptions) -> jax.Array:
    keys = jax.vmap(lambda seed, count: jax.random.fold_in(jax.random.key(seed), count))(seeds, sampled)
    return choose(logits, keys, options).astype(jnp.int32)


def _ends(token: jax.Array, end_tokens: tuple[int, ...]) -> jax.Array:
    return jnp.any(token[:, None] == jnp.array(end_tokens)[None], axis=1)


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
    against: Sequence[Sequence[int]] = (),
) -> Iterator[Response]:
    """Samples one response to each prompt and yields them in order. What is shown while it does is told token by token.

    Args:
      params: weights, already in the compute dtype and in their shards on `mesh`. They may lack their blocks until the last response.
      prompts: token ids, each not empty, prompt + max_new_tokens at most the model's max_positions.
      seeds: one per prompt, 0 <= seed < 2**32.
      end_tokens: ids that end a response.
      decode: token ids to text.
      batch_size: rows decoded together; rounded up to a multiple of the mesh's batch shards.
      against: with `options.contrast`, what each prompt is held against, likewise. Each response then takes two rows.
    """
    if not prompts:
        return
    if options.contrast:
        prompts = [prompt for pair in zip(prompts, against, strict=True) for prompt in pair]
        seeds = [seed for seed in seeds for _ in range(2)]
    with laid_out(params, mesh) as layers:
        generation = _Generation(params, layers, config, prompts, seeds, options, end_tokens, decode, mesh, batch_size)
        yield from itertools.islice(generation.responses(), 0, None, abreast(options))


def laid_out(params: dict, mesh: jax.sharding.Mesh) -> contextlib.AbstractContextManager[Layers]:
    """The blocks' weights as the mesh wants them."""
    return contextlib.nullcontext(params["blocks"]) if keeps_stacked(mesh) else layers_apart(params)


class _Generation:
    """The host's side of one call of `generate`: which prompt is in which row, and who comes next."""

    def __init__(self, params, layers, config, prompts, seeds, options, end_tokens, decode, mesh, batch_size):
        self.params, self.layers = params, layers
        self.prompts, self.seeds, self.options = prompts, seeds, options
        self.config, self.end_tokens, self.decode, self.mesh = config, end_tokens, decode, mesh
        shards = batch_shards(mesh) * abreast(options)  # a pair of rows enters together, and lies on one device
        self.rows = -(-batch_size // shards) * shards
        self.group = group_size(self.rows, shards)
        self.occupant: list[int | None] = [None] * self.rows
        self.finished = np.ones(self.rows, bool)
        self.next_prompt = 0
        self.steps = 1  # of the next call of the device
        self.took = np.zeros(self.rows, int)  # steps, of each row's response
        self.ended: list[int] = []  # steps of the responses that ended by themselves
        self.cut = 0  # responses that were as long as may be
        self.forecast = Forecast(self.rows, options.max_new_tokens)
        self.shared = prompts[0][: shared_start(prompts, config)]
        self.places = places(max(map(len, prompts)), options, mesh)
        with jax.set_mesh(mesh):
            stacked = keeps_stacked(mesh)
            self.slots = empty_slots(config, options, self.rows, self.places, params["embedding"].dtype, stacked)

    def responses(self) -> Iterator[Response]:
        done: dict[int, Response] = {}
        for index in range(len(self.prompts)):
            while index not in done:
                with jax.set_mesh(self.mesh):
                    self._admit_waiting()
                    self._decode_some()
                done.update(self._collect())
                self._tell()
            yield done.pop(index)

    def _free(self) -> list[int]:
        return [row for row, index in enumerate(self.occupant) if index is None]

    def _admit_waiting(self) -> None:
        while self.next_prompt < len(self.prompts) and len(free := self._free()) >= self.group:
            chosen = range(self.next_prompt, min(self.next_prompt + self.group, len(self.prompts)))
            self.next_prompt = chosen.stop
            start = len(self.shared)
            longest = bucket(max(len(self.prompts[index]) - start for index in chosen))
            tokens = np.full((self.group, longest), self.end_tokens[0], np.int32)
            lengths, seeds = np.ones(self.group, np.int32), np.zeros(self.group, np.uint32)
            rows = np.full(self.group, self.rows, np.int32)  # past the last row: dropped
            for place, (index, row) in enumerate(zip(chosen, free, strict=False)):
                prompt = self.prompts[index][start:]
                tokens[place, : len(prompt)] = prompt
                lengths[place], seeds[place], rows[place] = len(prompt), self.seeds[index], row
                self.occupant[row], self.finished[row], self.took[row] = index, False, 0
            seconds = compilation.stopwatch()
            self._say(f"reading prompts {chosen.start + 1} to {chosen.stop}")
            shared = np.tile(np.array(self.shared, np.int32), (batch_shards(self.mesh), 1))
            group = map(self._by_row, (shared, tokens, lengths, seeds))
            self.slots = admit_prompts(self.params, self.layers, self.slots, *group, rows, config=self.config)
            jax.block_until_ready(self.slots.position)
            self._say("")
            self.forecast.read(seconds(), int(lengths.sum()))
            self._tell()

    def _decode_some(self) -> None:
        free = len(self._free())
        # With prompts waiting, stop as soon as a group of them can enter; else when the last row is done.
        enough = max(self.group, free + 1) if self.next_prompt < len(self.prompts) else self.rows
        longest = self._longest()
        reach = reach_of(longest, self.places)
        steps = min(self.steps, reach - longest + 1)
        seconds = compilation.stopwatch()
        finished = self._by_row(self.finished)
        static = {"config": self.config, "options": self.options, "end_tokens": self.end_tokens, "reach": reach}
        self.slots = decode_tokens(self.params, self.layers, self.slots, finished, enough, steps, **static)
        self.finished = gathered(self.slots.finished).copy()
        before, self.took = self.took, gathered(self.slots.sampled).astype(int)
        self.forecast.decoded(seconds(), int((self.took - before).max()))
        self._pace(seconds())

    def _longest(self) -> int:
        """Tokens of the longest row, its prompt and what was sampled."""
        running = ((row, index) for row, index in enumerate(self.occupant) if index is not None)
        return max(len(self.prompts[index]) + int(self.took[row]) for row, index in running)

    def _pace(self, seconds: float) -> None:
        """Chooses the steps of the next call, after one that took so many seconds. All hosts must choose alike, and their clocks
        differ."""
        limit = SEGMENT if self.options.stop or hosts.count() > 1 else self.options.max_new_tokens
        if hosts.count() > 1 or seconds < LOOK / 2:
            self.steps = min(2 * self.steps, limit)
        elif seconds > 2 * LOOK:
            self.steps = max(self.steps // 2, 1)

    def _collect(self) -> dict[int, Response]:
        """Takes finished responses out of their rows, those that hold a stop string included."""
        looked_at = [row for row, index in enumerate(self.occupant) if index is not None]
        if not self.options.stop:
            looked_at = [row for row in looked_at if self.finished[row]]
        if not looked_at:
            return {}
        generated = gathered(self.slots.generated)
        done = {}
        for row in looked_at:
            tokens = generated[row, : self.took[row]].tolist()
            response = response_of(tokens, self.options, self.decode, self.end_tokens)
            if self.finished[row] or response.finish_reason == "stop":
                done[self.occupant[row]] = response
                self.occupant[row], self.finished[row] = None, True
                if response.finish_reason == "stop":
                    self.ended.append(len(tokens))
                else:
                    self.cut += 1
        return done

    def _say(self, moment: str) -> None:
        """What it is at."""
        if work := display.current():
            work.moment = moment

    def _tell(self) -> None:
        """How far it is."""
        work = display.current()
        if work is None or not self.forecast.knows:
            return
        running = [int(self.took[row]) for row, index in enumerate(self.occupant) if index is not None]
        waiting = self.prompts[self.next_prompt :]
        unread = sum(len(prompt) - len(self.shared) for prompt in waiting)
        outlook = self.forecast.outlook(self.ended, self.cut, running, len(waiting), unread)
        tokens = sum(self.ended) + self.cut * self.options.max_new_tokens + sum(running)
        each = abreast(self.options)
        done = (len(self.ended) + self.cut) // each
        work.tell(done, outlook.share, tokens // each, outlook.seconds, outlook.at_most)

    def _by_row(self, array: np.ndarray) -> jax.Array:
        return put(array, self.mesh, ("batch",))


def abreast(options: SamplingOptions) -> int:
    """Rows that a response takes."""
    return 2 if options.contrast else 1


def keeps_stacked(mesh: jax.sharding.Mesh) -> bool:
    """Whether layers stay stacked and a loop goes through them. TPUs compile them once so. Elsewhere each layer's weights and cache
    would be copied at every token, so they lie apart; but not where weights are split: XLA gathers most layers before it computes
    the first (7 billion weights on 8 GPUs: 9.5 GiB of temporaries for 1.0, compiled)."""
    return mesh.devices.flat[0].platform == "tpu" or weight_shards(mesh) > 1


def slots_shardings(slots: Slots, mesh: jax.sharding.Mesh) -> Slots:
    """The slots with shardings in place of arrays: as they lie on `mesh`."""
    by_row = named_sharding(mesh, ("batch",))
    return jax.tree.map(lambda _: by_row, slots)._replace(cache=cache_shardings(slots.cache, mesh))


def group_size(rows: int, shards: int) -> int:
    """Prompts that enter together, a multiple of the shards of a batch."""
    return -(-rows // (REFILL * shards)) * shards


def places(longest: int, options: SamplingOptions, mesh: jax.sharding.Mesh) -> int:
    """Tokens that a row's cache has room for. On GPUs in multiples of 16: else, where cuBLAS is chosen, keys and values are padded by a copy
    at every token."""
    tokens = bucket(longest) + options.max_new_tokens
    return tokens if mesh.devices.flat[0].platform in ("cpu", "tpu") else -(-tokens // 16) * 16


def shared_start(prompts: Sequence[Sequence[int]], config: ModelConfig) -> int:
    """How many tokens at the beginning of all prompts are read once a group, and not once a prompt: as many as they share, in one of
    few sizes, where that is more than a quarter of the longest; else 0."""
    if len(prompts) == 1:
        return 0
    # As dictionaries sort: what shares its beginning with both ends, shares it with all.
    ends = min(map(tuple, prompts)), max(map(tuple, prompts))
    differing = (place for place, (one, other) in enumerate(zip(*ends, strict=False)) if one != other)
    # Of each prompt some token is left; windows, which rings of keys are as long as, hold what is shared.
    most = min(min(map(len, prompts)) - 1, *(window or config.max_positions for window in config.windows))
    count = min(next(differing, most), most)
    count -= count % _step(count)
    return count if 4 * count > max(map(len, prompts)) else 0


def bucket(length: int) -> int:
    """Four sizes an octave: a quarter of a prompt's place at most is padding, and few shapes are compiled."""
    return -(-length // _step(length)) * _step(length)


def _step(length: int) -> int:
    return max(SMALLEST_BUCKET, 2 ** (length.bit_length() - 3))


def response_of(
    tokens: list[int], options: SamplingOptions, decode: Callable[[list[int]], str], end_tokens: Sequence[int]
) -> Response:
    """The response that sampled ids are: up to the first that ends a text, or to a stop text."""
    end = next((i for i, token in enumerate(tokens) if token in end_tokens), None)
    finish_reason = "length" if end is None else "stop"
    sampled = tuple(tokens if end is None else tokens[: end + 1])
    tokens = tokens[:end]
    text = decode(tokens)
    cuts = [text.find(stop) for stop in options.stop if stop in text]
    if cuts:
        text = text[: min(cuts)]
        # The shortest run of tokens that spells the kept text.
        kept = next(n for n in range(len(tokens) + 1) if decode(tokens[:n]).startswith(text))
        return Response(text, sampled[:kept], kept, "stop")
    return Response(text, sampled, len(tokens), finish_reason)
