"""The programs of a run, compiled for devices that are not there: what each needs, and what it sends."""

import dataclasses
import functools
import re
import time
from collections.abc import Iterator

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from sami_jax.contrast import scoring, update
from sami_jax.data.batches import ContrastBatch, ContrastExample, pack, shape_for
from sami_jax.models.config import ModelConfig
from sami_jax.models.decoder import abstract_params, param_shardings
from sami_jax.models.stack import joined
from sami_jax.planning import hlo
from sami_jax.planning.collectives import Collective, collectives
from sami_jax.planning.costs import Texts
from sami_jax.planning.topology import quiet
from sami_jax.quantization.blocks import forms
from sami_jax.sampling import decoding
from sami_jax.sampling.drawing import SamplingOptions
from sami_jax.sharding import batch_shards, named_sharding

LARGEST = 8  # buffers named


@dataclasses.dataclass(frozen=True)
class Buffer:
    bytes: int
    shape: str
    source: str  # a weight's name, or the operation in Python


@dataclasses.dataclass(frozen=True)
class Compiled:
    """One program. Sizes are bytes on each device."""

    name: str
    arguments: int
    unused: int  # what the program is given, and does not take
    temporaries: int
    outputs: int  # those that do not take an argument's place
    seconds: float  # that compiling took
    collectives: tuple[Collective, ...]
    largest: tuple[Buffer, ...]  # temporaries
    refusal: str = ""  # of the compiler, where it found no room

    @property
    def peak(self) -> int:
        return self.arguments + self.temporaries + self.outputs

    @property
    def sent(self) -> float:
        """Bytes by each device in one run."""
        return sum(one.sent for one in self.collectives)


class Programs:
    """Lowers a run's programs on abstract arguments that lie on a mesh as real ones would."""

    def __init__(self, config: ConfigDict, model: ModelConfig, mesh: jax.sharding.Mesh, texts: Texts):
        """
        Args:
          model: with adapters, if it is these that are trained.
        """
        self.config, self.model, self.mesh, self.texts = config, model, mesh, texts
        self.base = dataclasses.replace(model, adapter=None)
        self.state = _placed(update.abstract_state(model, config), update.state_shardings(model, config, mesh))
        self.dtype = jnp.dtype(config.train.compute_dtype)

    def add(self) -> Compiled:
        """A microbatch's gradient, added to those before it."""
        c = self.config
        total = self.total() if c.train.microbatches > 1 else None
        reference = self.weights() if update.needs_base(c) else None
        arguments = (self.state.params, self.frozen(), total, self._batch(), reference)
        return self._compile("microbatch", update.programs(self.model, c, self.mesh).add, *arguments)

    def apply(self) -> Compiled:
        """The change of the weights."""
        apply = update.programs(self.model, self.config, self.mesh).apply
        return self._compile("optimizer", apply, self.state, self.total(), count=self.config.train.microbatches)

    def prefill(self) -> Compiled:
        """A group of prompts read into the cache."""
        params, layers, slots = self._sampler()
        group = self._by_row((self.group, self.prompt), jnp.int32)
        lengths, seeds = self._by_row((self.group,), jnp.int32), self._by_row((self.group,), jnp.uint32)
        rows = jax.ShapeDtypeStruct((self.group,), jnp.int32)
        shared = self._by_row((batch_shards(self.mesh), 0), jnp.int32)  # prompts that begin alike take less
        arguments = (params, layers, slots, shared, group, lengths, seeds, rows)
        return self._compile("prefill", decoding.admit_prompts, *arguments, config=self.model)

    def decode(self) -> Compiled:
        """Tokens of all rows, step by step."""
        params, layers, slots = self._sampler()
        number = jax.ShapeDtypeStruct((), jnp.int32)
        arguments = (params, layers, slots, self._by_row((self.rows,), jnp.bool_), number, number)
        static = {"config": self.model, "options": self._options(), "end_tokens": (0,), "reach": self._places()}
        return self._compile("decode", decoding.decode_tokens, *arguments, **static)

    def check(self) -> Compiled:
        """The self-check before the first update."""
        batch = update.checked([self._example()], self.config, batch_shards(self.mesh))
        params = joined(self.frozen(), self.state.params)
        return self._compile("self-check", update.check_program(self.model, self.config), params, self._abstract(batch))

    def score(self) -> Compiled:
        """S of responses that are evaluated."""
        return self._score("scoring", self.weights())

    def score_merged(self) -> Compiled:
        """Likewise by a model that adapters were merged into, which no longer is quantized."""
        return self._score("merged", self._weights(""))

    def _score(self, name: str, weights: dict) -> Compiled:
        shards = batch_shards(self.mesh)
        examples = [self._example()] * (-(-self.config.evaluation.batch_size // shards) * shards)
        batch = pack(examples, shape_for(examples, scoring.BUCKET))
        static = {"config": self.base, "at_once": scoring.together(batch, shards)}
        return self._compile(name, scoring.summed, weights, self._abstract(batch), **static)

    @property
    def rows(self) -> int:
        """Decoded together."""
        shards = batch_shards(self.mesh) * decoding.abreast(self._options())
        return -(-self.config.sampling.batch_size // shards) * shards

    @property
    def group(self) -> int:
        """Prompts that enter together."""
        return decoding.group_size(self.rows, batch_shards(self.mesh) * decoding.abreast(self._options()))

    @property
    def prompt(self) -> int:
        """Tokens that prompts are padded to."""
        return decoding.bucket(self.texts.prefix)

    def microbatch(self) -> int:
        """Queries."""
        return self.config.train.batch_size // self.config.train.microbatches

    def together(self) -> float:
        """Rows of a microbatch that a device computes together."""
        at_once = self.config.train.constitutions_at_once or self.texts.count
        return self.microbatch() * at_once / batch_shards(self.mesh)

    def total(self) -> dict:
        """The sum of the microbatches' gradients, float32."""
        return jax.tree.map(
            lambda w: jax.ShapeDtypeStruct(w.shape, jnp.float32, sharding=w.sharding), self.state.params
        )

    def _options(self) -> SamplingOptions:
        s = self.config.sampling
        return SamplingOptions(s.temperature, s.top_p, s.top_k, s.max_new_tokens, tuple(s.stop), s.contrast)

    def _places(self) -> int:
        return decoding.places(self.texts.prefix, self._options(), self.mesh)

    def _sampler(self):
        params = self.weights()
        if self.model.adapter:  # sampled from as they are trained: beside the base
            params = joined(params, self._cast(self.state.params))
        stacked = decoding.keeps_stacked(self.mesh)
        layers = params.pop("blocks")
        if not stacked:
            layers = [jax.tree.map(_one_of, layers)] * self.model.n_layers
        static = (self.model, self._options(), self.rows, self._places(), self.dtype, stacked)
        with jax.set_mesh(self.mesh):
            slots = jax.eval_shape(functools.partial(decoding.empty_slots, *static))
        return params, layers, _placed(slots, decoding.slots_shardings(slots, self.mesh))

    def weights(self) -> dict:
        """All of the base's, as a run holds them."""
        return self._weights(self.config.lora.base)

    def _weights(self, held: str) -> dict:
        return forms(abstract_params(self.base), param_shardings(self.base, self.mesh), self.dtype, held)

    def _cast(self, weights: dict) -> dict:
        return jax.tree.map(lambda w: jax.ShapeDtypeStruct(w.shape, self.dtype, sharding=w.sharding), weights)

    def frozen(self) -> dict:
        return self.weights() if self.model.adapter else {}

    def _batch(self) -> ContrastBatch:
        examples = [self._example()] * self.microbatch()
        return self._abstract(pack(examples, shape_for(examples, self.config.train.bucket)))

    def _example(self) -> ContrastExample:
        p, length, count = self.texts
        return ContrastExample(((1,) * p,) * count, ((1,) * length,) * count)

    def _abstract(self, batch: ContrastBatch) -> ContrastBatch:
        return jax.tree.map(lambda x: self._by_row(x.shape, x.dtype), batch)

    def _by_row(self, shape, dtype) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=named_sharding(self.mesh, ("batch",)))

    def _compile(self, name: str, function, *arguments, **static) -> Compiled:
        started = time.monotonic()
        with jax.set_mesh(self.mesh):
            lowered = function.lower(*arguments, **static)
        try:
            with quiet():
                compiled = lowered.compile()
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            return _refused(name, str(error), bytes_on_each((arguments, static)), time.monotonic() - started)
        sizes, program = compiled.memory_analysis(), hlo.parse(compiled.as_text())
        return Compiled(
            name=name,
            arguments=sizes.argument_size_in_bytes,
            unused=max(bytes_on_each((arguments, static)) - sizes.argument_size_in_bytes, 0),
            temporaries=sizes.temp_size_in_bytes,
            outputs=sizes.output_size_in_bytes - sizes.alias_size_in_bytes,
            seconds=time.monotonic() - started,
            collectives=tuple(collectives(program)),
            largest=tuple(_largest(program))[:LARGEST],
        )


def bytes_on_each(tree) -> int:
    """Of the arrays that a tree describes, on each device, host memory not counted."""
    return sum(size for size, _ in _sizes(tree))


def largest_weights(state) -> list[Buffer]:
    """The largest arrays of a training state on each device."""
    found = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        if size := bytes_on_each(leaf):
            name = ".".join(str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", "")))) for key in path)
            found.append(Buffer(size, f"{leaf.dtype}{list(leaf.sharding.shard_shape(leaf.shape))}", name))
    return sorted(found, key=lambda buffer: -buffer.bytes)[:LARGEST]


def _sizes(tree) -> Iterator[tuple[int, jax.ShapeDtypeStruct]]:
    for leaf in jax.tree.leaves(tree):
        if isinstance(leaf, jax.ShapeDtypeStruct):
            sharding = leaf.sharding
            if sharding is not None and sharding.memory_kind == "pinned_host":
                continue
            shape = leaf.shape if sharding is None else sharding.shard_shape(leaf.shape)
            size = leaf.dtype.itemsize
            for dimension in shape:
                size *= dimension
            yield size, leaf


def _one_of(stacked: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    """One layer of a stacked weight."""
    spec = PartitionSpec(*stacked.sharding.spec[1:])
    return jax.ShapeDtypeStruct(stacked.shape[1:], stacked.dtype, sharding=NamedSharding(stacked.sharding.mesh, spec))


def _placed(leaves, shardings):
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), leaves, shardings)


def _largest(program: hlo.Program) -> Iterator[Buffer]:
    """The largest results of operations in the main program and its loops, but for what updates an argument in its place."""
    arguments = {i.type.partition("{")[0] for i in program.computations[program.entry] if i.kind == "parameter"}
    waiting, seen, found = [program.entry], set(), {}
    while waiting:
        name = waiting.pop()
        seen.add(name)
        for i in program.computations.get(name, []):
            if i.kind == "while":
                waiting += [body for body in hlo.loop_parts(i)[1:] if body not in seen]
            in_vector_memory = "S(1)" in i.type
            alias = i.kind in ("parameter", "get-tuple-element", "tuple", "bitcast", "while", "copy-done", "constant")
            if not (alias or in_vector_memory or i.type.startswith("(") or i.type.partition("{")[0] in arguments):
                buffer = Buffer(hlo.array_bytes(i.type), hlo.shape_name(i.type), i.source)
                found.setdefault((buffer.shape, buffer.source), buffer)
    yield from sorted(found.values(), key=lambda buffer: -buffer.bytes)


_USED = re.compile(r"Used ([\d.]+)([KMGT]?) of ([\d.]+)([KMGT]?) hbm")
_ALLOCATION = re.compile(r"Size: ([\d.]+)([KMGT]?)(.*?)(?=\n\s*\d+\. Size:|\Z)", re.DOTALL)
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def _refused(name: str, message: str, arguments: int, seconds: float) -> Compiled:
    """What the compiler's complaint says."""
    used = _USED.search(message)
    total = int(float(used[1]) * _UNITS[used[2]]) if used else arguments
    buffers = []
    for size, unit, rest in _ALLOCATION.findall(message):
        shape, operator = (re.search(pattern, rest) for pattern in (r"Shape: ([^{\s]+)", r'op_name="([^"]*)"'))
        named = Buffer(int(float(size) * _UNITS[unit]), shape[1] if shape else "?", operator[1] if operator else "")
        buffers.append(named)
    refusal = used[0] if used else message.splitlines()[0][:200]
    return Compiled(name, arguments, 0, max(total - arguments, 0), 0, seconds, (), tuple(buffers[:LARGEST]), refusal)
