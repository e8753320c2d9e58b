"""Analytic FLOPs and bytes of an update and of sampling: what the mathematics asks for, whoever computes it."""

import math
from typing import NamedTuple

import jax

from sami_jax.data.packing import Sizes
from sami_jax.models import attention
from sami_jax.models.config import ModelConfig
from sami_jax.models.decoder import abstract_params

LARGE_SCORES = 0.1  # of a device's memory: from then on, what attention holds is worth a line

# Checkpoints: what a run is taken to have. Assumed, and the same everywhere, so that a run may go on with other devices.
SMALL_STATE = 2**30  # bytes that are saved in a moment, anywhere
DISK = 0.5e9  # bytes/s, written and read back
COMPUTING = 1e15  # FLOP/s of all devices together
SAVING = 0.05  # share of the updates' time


class Weights(NamedTuple):
    """Numbers of weights."""

    total: int
    blocks: int  # of all layers, that multiply a token: of a mixture's experts those that are chosen
    unembedding: int


class Texts(NamedTuple):
    """Sizes in tokens, as many a query."""

    prefix: int  # P, of a prompt
    response: int  # L
    count: int  # C, constitutions a query


def count_weights(config: ModelConfig) -> Weights:
    params = abstract_params(config)
    chosen = 0
    for path, leaf in jax.tree_util.tree_leaves_with_path(params["blocks"]):
        name, size = path[-1].key, math.prod(leaf.shape)
        if name in ("gates", "ups", "downs"):
            chosen += size * config.experts_per_token // config.n_experts
        elif name not in ("scale", "bias"):
            chosen += size
    total = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
    return Weights(total, chosen, config.d_model * config.vocab_size)


def update_flops(
    config: ModelConfig, texts: Texts, queries: int, base_responses: int = 0, recomputed: bool = False
) -> float:
    """Forward and backward, three times the forward's, of prefixes that are shared and responses that are scored.

    Args:
      base_responses: of each row, that the base reads too: C, 1, or 0 where it reads no row.
      recomputed: count also the forward that the backward pass does again under remat "full".
    """
    rows = queries * texts.count
    base = _forward_flops(config, texts, rows, base_responses) if base_responses else 0
    return _forward_flops(config, texts, rows, texts.count) * (4 if recomputed else 3) + base


def _forward_flops(config: ModelConfig, texts: Texts, rows: int, count: int) -> float:
    """Of rows of one prompt and `count` responses, each of which sees the prompt and itself."""
    weights, responses = count_weights(config), count * texts.response
    matmuls = 2 * rows * (weights.blocks * (texts.prefix + responses) + weights.unembedding * responses)
    pairs = texts.prefix * (texts.prefix + 1) / 2
    pairs += count * (texts.response * texts.prefix + texts.response * (texts.response + 1) / 2)
    return matmuls + rows * pairs * _attention(config)


def updates_between_checkpoints(update: float, state: int, updates: int) -> int:
    """How often a stage of so many updates saves its state: at most a twentieth of their time goes into it, but once in its midst
    and once at its end it does, so that canaries find something that they can fall back to.

    Args:
      update: FLOPs of one.
      state: bytes.
    """
    if state <= SMALL_STATE:
        return 1
    seldom = math.ceil(state / DISK / (SAVING * update / COMPUTING))
    return min(seldom, -(-updates // 2))


def prefill_flops(config: ModelConfig, tokens: int) -> float:
    """Of one prompt; only keys and values are wanted of it."""
    return 2 * count_weights(config).blocks * tokens + _attention(config) * tokens * (tokens + 1) / 2


def decode_flops(config: ModelConfig, rows: int, context: float) -> float:
    """Of one step: one more token in each row, with `context` tokens before it."""
    weights = count_weights(config)
    return rows * (2 * (weights.blocks + weights.unembedding) + _attention(config) * context)


def gathered_bytes(config: ModelConfig, itemsize: int, shards: int, tensor: int) -> float:
    """What each device is sent at every token that is decoded, where weights are split and gathered where they are used.

    Args:
      itemsize: bytes of a weight.
      shards, tensor: devices over which weights are split for gathering, and for good.
    """
    weights = count_weights(config)
    return (
        itemsize
        * (weights.total - (0 if config.tie_embeddings else weights.unembedding))
        / tensor
        * (shards - 1)
        / shards
    )


def cache_bytes(config: ModelConfig, positions: int) -> int:
    """Keys and values of one row in bfloat16."""
    kept = sum(min(positions, window or positions) for window in config.windows)
    return 2 * 2 * config.n_kv_heads * config.head_dim * kept


def score_bytes(config: ModelConfig, texts: Texts, rows: float, tensor: int) -> float:
    """Attention's scores in a microbatch, bytes on each device: what XLA's attention holds of a layer, and kernels do not.

    Args:
      rows: of the microbatch that a device computes together.
      tensor: devices that heads are split over.
    """
    responses = texts.count * texts.response
    sizes = Sizes(texts.prefix, texts.response, responses)
    of_row = attention.score_bytes(config.n_heads, texts.prefix + responses, sizes)
    return rows * of_row / tensor if config.attention == "xla" else 0.0


def fsdp_bytes(config: ModelConfig, devices: int) -> float:
    """The least that each device sends in a microbatch where all split the weights: all weights gathered twice, their gradients
    scattered once, in bfloat16."""
    return 3 * 2 * count_weights(config).total * (devices - 1) / devices


def _attention(config: ModelConfig) -> int:
    """FLOPs for a query and a key, in all layers."""
    return 4 * config.n_heads * config.head_dim * config.n_layers
