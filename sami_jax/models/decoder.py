"""The decoder: an NNX module whose layers are stacked and scanned, and the functional core around it.

The module is split once: everything else handles `params`, a plain nested dict of arrays, and binds it to its
`ModelConfig` inside jit (`bind(config, params)(tokens, ...)`), which costs nothing at run time.
"""

import functools

import jax
import jax.numpy as jnp
from flax import nnx

from sami_jax.models.attention import (
    Attend,
    cached_attention,
    masked_attention,
    prompt_attention,
    shared_prefix_attention,
)
from sami_jax.models.cache import Cache
from sami_jax.models.config import ModelConfig
from sami_jax.models.layers import Block, RMSNorm, random_weight
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
        self.embedding = random_weight(rngs, (config.vocab_size, config.d_model), config.d_model)
        self.blocks = nnx.vmap(lambda keys: Block(config, rngs=keys))(rngs.split(config.n_layers))
        self.final_norm = RMSNorm(config)
        if not config.tie_embeddings:
            self.unembedding = random_weight(rngs, (config.d_model, config.vocab_size), config.d_model)

    def __call__(
        self, tokens: jax.Array, positions: jax.Array, valid: jax.Array | None = None, remat: str = "none"
    ) -> jax.Array:
        """Hidden states [B, T, D] after the final norm.

        Args:
          tokens: [B, T] int32.
          positions: [B, T] int32, the place of each token in its own text. Padding may stand anywhere.
          valid: [B, T] bool, False at padding, which nobody attends to; None where causality hides it already.
          remat: key of REMAT_POLICIES.
        """
        attend = masked_attention(positions, valid, self.config.sliding_window)
        return self._stack(tokens, positions, attend, remat)[0]

    def prefill(self, prompts: jax.Array, lengths: jax.Array) -> tuple[jax.Array, Cache]:
        """Reads prompts [G, P] of `lengths` [G], right-padded.

        Returns:
          the hidden state [G, D] at each prompt's last token, and keys and values by position.
        """
        positions = jnp.broadcast_to(jnp.arange(prompts.shape[1])[None], prompts.shape)
        hidden, kept = self._stack(prompts, positions, prompt_attention(positions, self.config.sliding_window))
        return jnp.take_along_axis(hidden, lengths[:, None, None] - 1, axis=1)[:, 0], kept

    def decode(self, tokens: jax.Array, positions: jax.Array, cache: Cache) -> tuple[jax.Array, Cache]:
        """Reads one more token a row, tokens [R] at positions [R] -> hidden states [R, D] and the cache with them."""
        x = constrain(self.embedding[...][tokens][:, None], "batch", "sequence", "activation")
        graphdef, stacked = nnx.split(self.blocks)

        def layer(carry, number_and_weights):
            x, cache = carry
            number, weights = number_and_weights
            attend = cached_attention(cache, number, positions[:, None], self.config.sliding_window)
            return nnx.merge(graphdef, weights)(x, positions[:, None], attend), None

        (x, cache), _ = jax.lax.scan(layer, (x, cache), (jnp.arange(self.config.n_layers), stacked))
        return self.final_norm(x)[:, 0], cache

    def after_shared_prefix(
        self, prefixes: jax.Array, prefix_lengths: jax.Array, responses: jax.Array, remat: str = "none"
    ) -> jax.Array:
        """Hidden states that predict the tokens of C responses to one prefix, which is computed once.

        Args:
          prefixes: [N, P] int32, right-padded.
          prefix_lengths: [N] int32, at least 1.
          responses: [N, C, L] int32, right-padded.
        Returns:
          [N, C, L, D]: at the prefix's last token, then along each response but for its last token.
        """
        n, count, length = responses.shape
        prefix = prefixes.shape[1]
        after = prefix_lengths[:, None, None] + jnp.broadcast_to(jnp.arange(length)[None, None], (n, count, length))
        before = jnp.broadcast_to(jnp.arange(prefix)[None], (n, prefix))
        positions = jnp.concatenate([before, after.reshape(n, -1)], axis=1)
        tokens = jnp.concatenate([prefixes, responses.reshape(n, -1)], axis=1)
        attend = shared_prefix_attention(prefix_lengths, prefix, count, self.config.sliding_window)
        hidden, _ = self._stack(tokens, positions, attend, remat)
        last = jnp.take_along_axis(hidden, prefix_lengths[:, None, None] - 1, axis=1)
        first = jnp.broadcast_to(last[:, :, None], (n, count, 1, hidden.shape[-1]))
        along = hidden[:, prefix:].reshape(n, count, length, -1)[:, :, :-1]
        return jnp.concatenate([first, along], axis=2)

    def _stack(self, tokens: jax.Array, positions: jax.Array, attend: Attend, remat: str = "none"):
        """Embeds, scans the blocks, norms: hidden states [N, T, D], and what `attend` keeps, stacked over layers."""
        x = constrain(self.embedding[...][tokens], "batch", "sequence", "activation")
        graphdef, stacked = nnx.split(self.blocks)

        def layer(x, weights):
            return nnx.merge(graphdef, weights)(x, positions, attend)

        if REMAT_POLICIES[remat] is not None:
            layer = jax.checkpoint(layer, policy=REMAT_POLICIES[remat], prevent_cse=False)
        x, kept = jax.lax.scan(layer, x, stacked)
        return self.final_norm(x), kept

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
