"""The decoder: an NNX module whose layers are stacked and scanned, and the functional core around it.

The module is split once: everything else handles `params`, a plain nested dict of arrays, and binds it to its
`ModelConfig` inside jit (`bind(config, params)(tokens, ...)`), which costs nothing at run time.
"""

import contextlib
import functools
import operator
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from sami_jax.data.packing import PackedRows
from sami_jax.kernels.attention import KERNELS, Kernel, packed_attention, whole_attention
from sami_jax.models.attention import Attend, cached_attention, causal_attention, soft_capped
from sami_jax.models.cache import Cache, LayerCache, new_cache, of_layer
from sami_jax.models.config import ModelConfig
from sami_jax.models.experts import RouterLosses
from sami_jax.models.layers import Block, RMSNorm, projection_axes, random_weight
from sami_jax.models.rope import Kind, kinds
from sami_jax.models.stack import accumulate_layers, scan_layers
from sami_jax.sharding import check_divisible, constrain, divides, named_sharding, shards_here, splits_rows

# Logical axes of the weights that are no part of a `Projection`, by name; those of the stacked blocks carry "layer" in front.
_AXES = {
    "embedding": ("vocab", "embed"),
    "unembedding": ("embed", "vocab"),
    "gates": ("experts", "expert_embed", "mlp"),
    "ups": ("experts", "expert_embed", "mlp"),
    "downs": ("experts", "mlp", "expert_embed"),
    "scale": ("activation",),
}


# The blocks' weights, for sampling: stacked, or each layer's by itself.
Layers = dict | Sequence[dict]


class Packed(NamedTuple):
    hidden: jax.Array  # [N, T, D] in the compute dtype, after the final norm
    router: RouterLosses | None  # means over layers and tokens; None without experts
    accumulator: dict | None  # the one that was given


class Decoder(nnx.Module):
    """Token ids to hidden states, and hidden states to logits."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.embedding = random_weight(rngs, (config.vocab_size, config.d_model), config.d_model)
        self.blocks = nnx.vmap(lambda keys: Block(config, rngs=keys))(rngs.split(config.n_layers))
        self.final_norm = RMSNorm(config.d_model, config)
        if not config.tie_embeddings:
            self.unembedding = random_weight(rngs, (config.d_model, config.vocab_size), config.d_model)

    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Hidden states [B, T, D] of tokens [B, T], after the final norm. Padding belongs behind a text."""
        config = self.config

        def seen(tokens: jax.Array):
            return *_causal(config, tokens), jnp.ones(tokens.shape, bool)

        return self._stack(tokens, tokens, seen, self.embedding.dtype, "none", None).hidden

    def packed(self, rows: PackedRows, dtype, remat: str = "none", accumulator: dict | None = None) -> Packed:
        """Goes through packed rows.

        Args:
          dtype: of activations; weights are cast to it where they are used.
          remat: key of REMAT_POLICIES; where there is an accumulator, it is "full".
          accumulator: for the gradient of the blocks, see `stack.accumulate_layers`; None for the usual way.
        """
        config = self.config

        def seen(rows: PackedRows):
            owners = rows.owners()
            positions = rows.positions(owners)
            attend = _by_kind(
                config,
                lambda window: causal_attention(positions, window, owners, rows.sizes, config.attention_cap),
                lambda kernel, window: packed_attention(kernel, rows, owners, window),
            )
            return positions, attend, owners >= 0

        return self._stack(rows.tokens, rows, seen, dtype, remat, accumulator)

    def prefill(
        self, layers: Layers, shared: jax.Array, prompts: jax.Array, lengths: jax.Array, cache: Cache, rows: jax.Array
    ) -> Cache:
        """Reads prompts [G, P] of `lengths` [G], right-padded, into `rows` [G] of the cache; rows past the last are dropped.

        Only keys and values are wanted, so compilation leaves out what the last layer does besides.

        Args:
          shared: [D, C], what all prompts begin with before these tokens, once for each shard of a batch; no window is narrower.
        """
        count, ahead = shared.shape
        start = new_cache(self.config, count, ahead, self.embedding[...].dtype, isinstance(cache, LayerCache))
        if ahead:
            start = self.prefill(layers, shared[:, :0], shared, jnp.full(count, ahead), start, jnp.arange(count))
        positions, attend = _causal(self.config, prompts, ahead)

        def admitting(layer_cache: LayerCache, kind: Kind, number) -> Attend:
            def attend_and_admit(q: jax.Array, k: jax.Array, v: jax.Array):
                if ahead:
                    keys, values = of_layer(start, number).texts(k.shape[0])
                    k, v = jnp.concatenate([keys, k], axis=1), jnp.concatenate([values, v], axis=1)
                out, (keys, values) = attend(kind)(q, k, v)
                return out, layer_cache.admit(keys, values, ahead + lengths, rows)

            return attend_and_admit

        return self._through(layers, prompts, positions, cache, admitting)[1]

    def decode(
        self, layers: Layers, tokens: jax.Array, positions: jax.Array, cache: Cache, reach: int | None = None
    ) -> tuple[jax.Array, Cache]:
        """Reads one more token a row, tokens [R] at positions [R] -> hidden states [R, D] and the cache with them.

        Args:
          reach: how far the cache is read, see `cached_attention`.
        """

        def attending(layer_cache: LayerCache, kind: Kind, number) -> Attend:
            window = self.config.sliding_window if kind.window is None else kind.window
            return cached_attention(layer_cache, positions, window, self.config.attention_cap, reach)

        x, cache = self._through(layers, tokens[:, None], positions[:, None], cache, attending)
        return self.final_norm(x)[:, 0], cache

    def _embedded(self, embeddings: jax.Array) -> jax.Array:
        scale = jnp.asarray(self.config.d_model**0.5, embeddings.dtype)
        x = embeddings * scale if self.config.embedding_scale else embeddings
        return constrain(x, "batch", "sequence", "activation")

    def _through(self, layers: Layers, tokens: jax.Array, positions: jax.Array, cache: Cache, attend: Callable):
        """Embeds, and goes through the blocks with a cache: x [N, T, D], not normed, and the cache after them.

        Args:
          layers: the weights, as the cache: all stacked, or each layer's apart.
          attend: a layer's cache, kind and number -> Attend that keeps the layer's cache as it is afterwards.
        """
        x = self._embedded(self.embedding[...][tokens])
        graphdef, _ = nnx.split(self.blocks)
        of_layers = kinds(self.config)

        def block(x, weights, layer_cache, kind: Kind, number):
            layer = nnx.merge(graphdef, weights)
            return layer(x, positions, attend(layer_cache, kind, number), turns=kind.frequencies)[:2]

        if isinstance(cache, LayerCache):

            def step(carry, layer):
                (x, cache), (weights, kind, number) = carry, layer
                x, cache = block(x, weights, of_layer(cache, number), kind, number)
                return (x, cache._replace(layer=None)), None

            numbers = jnp.arange(self.config.n_layers)
            return jax.lax.scan(step, (x, cache), (layers, of_layers, numbers))[0]
        kept = []
        for number, (weights, layer_cache) in enumerate(zip(layers, cache, strict=True)):
            x, keeps = block(x, weights, layer_cache, jax.tree.map(operator.itemgetter(number), of_layers), number)
            kept.append(keeps)
        return x, tuple(kept)

    def _stack(self, tokens: jax.Array, context, seen: Callable, dtype, remat: str, accumulator: dict | None) -> Packed:
        """Embeds, goes through the blocks, norms.

        Args:
          seen: context -> positions [N, T], `attend` of a kind of layer, and [N, T] which tokens are no padding.
        """
        # Looked up in float32, so that a frequent token's gradient, of thousands of places, adds up in it.
        x = self._embedded(self.embedding[...].astype(jnp.float32)[tokens].astype(dtype))
        graphdef, stacked = nnx.split(self.blocks)
        stacked = {**nnx.to_pure_dict(stacked), "kind": kinds(self.config)}
        once, config = seen(context) if accumulator is None else None, self.config

        # It has a gradient of its own where there is an accumulator, and must then hold no weights but those that it is given: not `self`.
        def layer(carry, weights, context):
            x, router = carry
            x = constrain(_between_layers(x), "batch", "sequence", "activation")
            positions, attend, real = once or seen(context)
            own = {name: weight for name, weight in weights.items() if name != "kind"}
            kind = weights["kind"]
            x, _, routing = nnx.merge(graphdef, own)(x, positions, attend(kind), remat == "full", kind.frequencies)
            if routing is not None:
                losses = routing.losses(config.experts_per_token, real)
                router = jax.tree.map(lambda mean, own: mean + own / config.n_layers, router, losses)
            return _between_layers(x), router

        carry = (
            _between_layers(x),
            RouterLosses(jnp.float32(0), jnp.float32(0)) if self.config.n_experts else None,
        )
        if accumulator is None:
            x, router = scan_layers(layer, carry, stacked, context, remat)
        else:
            # Of a function with a gradient of its own, no type is known.
            through: Any = accumulate_layers(layer, carry, stacked, context, accumulator)
            (x, router), accumulator = through
        x = constrain(x, "batch", "sequence", "activation")
        return Packed(self.final_norm(x), router, accumulator)

    def table(self) -> jax.Array:
        """The unembedding, [D, V]."""
        return self.embedding[...].T if self.config.tie_embeddings else self.unembedding[...]

    def unembed(self, hidden: jax.Array) -> jax.Array:
        """Hidden states [..., D] to float32 logits [..., V]."""
        logits = jnp.matmul(hidden, self.table().astype(hidden.dtype), preferred_element_type=jnp.float32)
        return soft_capped(logits, self.config.logit_cap)


def _causal(config: ModelConfig, tokens: jax.Array, ahead: int = 0) -> tuple[jax.Array, Callable[[Kind], Attend]]:
    """Positions of tokens [B, T] behind others, and their attention to those before."""
    positions = jnp.arange(ahead + tokens.shape[1])[None]
    by_window = functools.partial(causal_attention, positions, cap=config.attention_cap, ahead=ahead)
    attend = _by_kind(config, by_window, functools.partial(whole_attention, ahead=ahead))
    return jnp.broadcast_to(positions[:, ahead:], tokens.shape), attend


def _by_kind(
    config: ModelConfig,
    by_window: Callable[[Any], Attend],
    by_kernel: Callable[[Kernel, Any], Attend],
) -> Callable[[Kind], Attend]:
    """The attention of each kind of layer; made here, once, where it is the same for all.

    Args:
      by_window: takes a window, which may be known only when it is computed.
      by_kernel: likewise with a kernel, which must know it before.
    """
    kernel = KERNELS.get(config.attention)
    of = functools.partial(by_kernel, kernel) if kernel else by_window
    if not config.local:
        alike = of(config.sliding_window)
        return lambda kind: alike
    if not kernel:
        return lambda kind: of(kind.window)
    near, far = of(config.sliding_window), of(None)
    return lambda kind: lambda q, k, v: jax.lax.cond(kind.window == config.sliding_window, near, far, q, k, v)


def _between_layers(x: jax.Array) -> jax.Array:
    """What is kept of each layer for the backward pass, which the devices that split the heads have a share of each."""
    shared = x.shape[1] % shards_here("kept_sequence") == 0
    return constrain(x, "batch", "kept_sequence" if shared else "sequence", "activation")


@functools.lru_cache
def _abstract(config: ModelConfig):
    graphdef, state = nnx.split(nnx.eval_shape(lambda: Decoder(config, rngs=nnx.Rngs(0))))
    return graphdef, nnx.to_pure_dict(state)


def abstract_params(config: ModelConfig) -> dict:
    """The params tree with shapes and dtypes in place of arrays; allocates nothing."""
    return _abstract(config)[1]


def bind(config: ModelConfig, params: dict) -> Decoder:
    """The module with these weights."""
    return nnx.merge(_abstract(config)[0], params)


def whole(params: dict, layers: Layers) -> dict:
    """Params to bind where the blocks go by themselves, as `layers`: what stands for them is not looked at."""
    return params | {"blocks": layers if isinstance(layers, dict) else layers[0]}


@contextlib.contextmanager
def layers_apart(params: dict) -> Iterator[list[dict]]:
    """The blocks' weights with arrays of their own for each layer. Until the block is left `params` lacks them, so that they lie in
    memory once, unless somebody else holds them; they are moved a weight at a time."""
    leaves, structure = jax.tree.flatten(params.pop("blocks"))
    shardings, columns = [leaf.sharding for leaf in leaves], []
    while leaves:
        columns.append(_unstacked(leaves.pop(0)))
    layers = [structure.unflatten(layer) for layer in zip(*columns, strict=True)]
    try:
        yield layers
    finally:
        layers.clear()
        # A generator that is dropped as the program ends leaves this too: nobody wants them then, and nothing compiles any more.
        if not sys.is_finalizing():
            stacked = [jax.jit(jnp.stack, out_shardings=sharding)(columns.pop(0)) for sharding in shardings]
            params["blocks"] = structure.unflatten(stacked)


@jax.jit
def _unstacked(weight: jax.Array) -> list[jax.Array]:
    return list(weight)


def logical_axes(config: ModelConfig, by_rows: bool = True) -> dict:
    """The params tree with a tuple of logical axes in place of each array; `by_rows` as `projection_axes` has it."""

    def axes(path, leaf):
        name = path[-1].key
        own = _AXES[name] if name in _AXES else projection_axes(path[-2].key, name, by_rows)
        return ("layer",) * (len(leaf.shape) - len(own)) + own

    return jax.tree_util.tree_map_with_path(axes, abstract_params(config))


def param_shardings(config: ModelConfig, mesh: jax.sharding.Mesh) -> dict:
    """The params tree with a NamedSharding in place of each array.

    Raises:
      UserError: a dimension that its mesh axis does not divide.
    """

    def sharding(path, leaf, axes, by_columns):
        axes = axes if divides(mesh, leaf.shape, axes) else by_columns
        check_divisible(mesh, leaf.shape, axes, ".".join(key.key for key in path))
        return named_sharding(mesh, axes)

    axes = logical_axes(config, splits_rows(mesh)), logical_axes(config, by_rows=False)
    return jax.tree_util.tree_map_with_path(sharding, abstract_params(config), *axes)


def init_params(
    config: ModelConfig, seed: int, mesh: jax.sharding.Mesh, chosen: Callable[[dict], dict] = lambda params: params
) -> dict:
    """Random float32 weights, made in their shards.

    Args:
      chosen: takes the part that is wanted of a tree like the params; only that is made.
    """

    def init():
        return chosen(nnx.to_pure_dict(nnx.state(Decoder(config, rngs=nnx.Rngs(seed)), nnx.Param)))

    with jax.set_mesh(mesh):
        return jax.jit(init, out_shardings=chosen(param_shardings(config, mesh)))()
