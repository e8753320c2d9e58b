"""The decoder: an NNX module whose layers are stacked and scanned, and the functional core around it.

The module is split once: everything else handles `params`, a plain nested dict of arrays, and binds it to its
`ModelConfig` inside jit (`bind(config, params)(tokens, ...)`), which costs nothing at run time.
"""

import functools

import jax
import jax.numpy as jnp
from flax import nnx

from sami_jax.models.cache import LayerCache
from sami_jax.models.config import ModelConfig
from sami_jax.models.layers import Block, RMSNorm, _param, attention_mask
from sami_jax.sharding import check_divisible, constrain, named_sharding

# What the backward pass of a layer may keep instead of recomputing. "none" keeps everything.
REMAT_POLICIES = {
    "none": None,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,  # keep matmul outputs, recompute attention
    "full": jax.checkpoint_policies.nothing_saveable,  # keep only each layer's input
}

# Logical axes of every weight, by its name; weights of the stacked blocks carry "layer" in front.
_AXES = {
    "embedding": ("vocab", "embed"),
    "unembedding": ("embed", "vocab"),
    "query": ("embed", "heads", "head_dim"),
    "key": ("embed", "kv_heads", "head_dim"),
    "value": ("embed", "kv_heads", "head_dim"),
    "output": ("heads", "head_dim", "embed"),
    "gate": ("embed", "mlp"),
    "up": ("embed", "mlp"),
    "down": ("mlp", "embed"),
    "scale": ("activation",),
}


class Decoder(nnx.Module):
    """Token ids to hidden states, and hidden states to logits."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.embedding = _param(rngs, (config.vocab_size, config.d_model), config.d_model)
        self.blocks = nnx.vmap(lambda keys: Block(config, rngs=keys))(rngs.split(config.n_layers))
        self.final_norm = RMSNorm(config)
        if not config.tie_embeddings:
            self.unembedding = _param(rngs, (config.d_model, config.vocab_size), config.d_model)

    def __call__(
        self,
        tokens: jax.Array,
        positions: jax.Array,
        valid: jax.Array | None = None,
        cache: LayerCache | None = None,
        remat: str = "none",
    ) -> tuple[jax.Array, LayerCache | None]:
        """Runs the stack.

        Args:
          tokens: [B, T] int32.
          positions: [B, T] int32, the place of each token in its own text. Padding may stand anywhere.
          valid: [B, T] bool, False at padding, which nobody attends to; None where the causal mask hides it already.
          cache: stacked keys and values; tokens are written to it at `positions` and attend to all of it.
          remat: key of REMAT_POLICIES.
        Returns:
          hidden states [B, T, D] after the final norm, and the cache.
        """
        x = constrain(self.embedding[...][tokens], "batch", "sequence", "activation")
        if cache is None:
            kv_positions = positions
        else:
            kv_positions = jnp.broadcast_to(jnp.arange(cache.keys.shape[2])[None], (x.shape[0], cache.keys.shape[2]))
        mask = attention_mask(positions, kv_positions, valid, self.config.sliding_window)
        graphdef, stacked = nnx.split(self.blocks)

        def layer(x, weights_and_cache):
            weights, layer_cache = weights_and_cache
            return nnx.merge(graphdef, weights)(x, positions, mask, layer_cache)

        if REMAT_POLICIES[remat] is not None:
            layer = jax.checkpoint(layer, policy=REMAT_POLICIES[remat], prevent_cse=False)
        x, cache = jax.lax.scan(layer, x, (stacked, cache))
        return self.final_norm(x), cache

    def unembed(self, hidden: jax.Array) -> jax.Array:
        """Hidden states [..., D] to float32 logits [..., V]."""
        table = self.embedding[...].T if self.config.tie_embeddings else self.unembedding[...]
        return jnp.matmul(hidden, table, preferred_element_type=jnp.float32)


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


def logical_axes(config: ModelConfig) -> dict:
    """The params tree with a tuple of logical axes in place of each array."""

    def axes(path, leaf):
        own = _AXES[path[-1].key]
        return ("layer",) * (len(leaf.shape) - len(own)) + own

    return jax.tree_util.tree_map_with_path(axes, abstract_params(config))


def param_shardings(config: ModelConfig, mesh: jax.sharding.Mesh) -> dict:
    """The params tree with a NamedSharding in place of each array.

    Raises:
      UserError: a dimension that its mesh axis does not divide.
    """

    def sharding(path, leaf, axes):
        check_divisible(mesh, leaf.shape, axes, path[-1].key)
        return named_sharding(mesh, axes)

    return jax.tree_util.tree_map_with_path(sharding, abstract_params(config), logical_axes(config))


def init_params(config: ModelConfig, seed: int, mesh: jax.sharding.Mesh) -> dict:
    """Random float32 weights, made in their shards."""

    def init():
        return nnx.to_pure_dict(nnx.state(Decoder(config, rngs=nnx.Rngs(seed)), nnx.Param))

    with jax.set_mesh(mesh):
        return jax.jit(init, out_shardings=param_shardings(config, mesh))()
