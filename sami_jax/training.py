"""The update: S, the contrastive loss, exact accumulation over microbatches, clip, optax.

Everything is one jitted program over pure pytrees; the shardings are given at its boundary. Master weights are kept in
`param_dtype` and cast to `compute_dtype` for the forward and backward pass.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from sami_jax import objective
from sami_jax.data.batches import ContrastBatch
from sami_jax.likelihood import conditional_loglikelihoods, kl_divergence, logprobs_at, pair_hidden_states
from sami_jax.models.config import ModelConfig
from sami_jax.models.decoder import abstract_params, bind, param_shardings
from sami_jax.optim import make_optimizer
from sami_jax.sharding import named_sharding


class TrainState(NamedTuple):
    params: dict  # master weights
    opt_state: Any
    step: jax.Array  # [] int32, updates made


Metrics = dict[str, jax.Array]


def sami_loss(
    params: dict, model_config: ModelConfig, batch: ContrastBatch, config: ConfigDict, reference: dict | None
) -> tuple[jax.Array, Metrics]:
    """The loss of one microbatch, mean over its queries, and what to log about it.

    Args:
      params: weights in the compute dtype.
      batch: B queries.
      config: a run's config, of which `objective` and `train.remat` are read.
      reference: base weights for the KL term; None where its weight is 0.
    """
    model = bind(model_config, params)
    hidden = pair_hidden_states(model, batch, config.train.remat)
    logprobs = logprobs_at(model, hidden, batch)
    s = conditional_loglikelihoods(logprobs, batch.response_lengths, config.objective.normalize)
    s_sum = jnp.sum(logprobs, axis=-1)
    loss = jnp.mean(objective.contrastive_loss(s, config.objective.row_weight, config.objective.column_weight))
    metrics = {
        "contrastive_loss": loss,
        "mi_lower_bound": jnp.mean(objective.mi_lower_bound(s)),
        "mi_posterior_bound": jnp.mean(objective.mi_posterior_bound(s_sum)),
        "mi_paper": jnp.mean(objective.mi_paper(s_sum)),
        "row_accuracy": jnp.mean(objective.row_accuracy(s)),
        "column_accuracy": jnp.mean(objective.column_accuracy(s)),
        "own_logprob": jnp.mean(jnp.diagonal(s, axis1=-2, axis2=-1)),
    }
    if reference is not None:
        own = jnp.moveaxis(jnp.diagonal(hidden, axis1=1, axis2=2), -1, 1)
        metrics["kl"] = kl_divergence(model, bind(model_config, reference), batch, own, config.train.remat)
        loss = loss + config.objective.kl_weight * metrics["kl"]
    return loss, metrics | {"loss": loss}


def accumulated_gradients(
    params: dict, model_config: ModelConfig, batch: ContrastBatch, config: ConfigDict, reference: dict | None
) -> tuple[dict, Metrics]:
    """Gradient and metrics of a whole batch [microbatches, B, C, ...], one microbatch at a time.

    Each microbatch holds equally many queries and the loss is their mean, so the mean of the gradients is the gradient
    of the whole batch. (Until 24 May 2024 the authors' code kept the last microbatch's alone.)
    """
    compute_dtype = jnp.dtype(config.train.compute_dtype)
    compute_params = jax.tree.map(lambda w: w.astype(compute_dtype), params)
    reference = None if reference is None else jax.tree.map(lambda w: w.astype(compute_dtype), reference)
    grad = jax.grad(sami_loss, has_aux=True)

    def microbatch(total, part):
        gradients, metrics = grad(compute_params, model_config, part, config, reference)
        return jax.tree.map(lambda t, g: t + g.astype(jnp.float32), total, gradients), metrics

    zeros = jax.tree.map(lambda w: jnp.zeros(w.shape, jnp.float32), params)
    total, metrics = jax.lax.scan(microbatch, zeros, batch)
    count = batch.prefixes.shape[0]
    return jax.tree.map(lambda g: g / count, total), jax.tree.map(jnp.mean, metrics)


def make_update(model_config: ModelConfig, config: ConfigDict, mesh: jax.sharding.Mesh) -> Callable:
    """Compiles, at its first call, (state, batch, reference) -> (state, metrics); the old state's memory is reused."""
    optimizer = make_optimizer(config.optim)
    shardings = state_shardings(model_config, config, mesh)

    def update(state: TrainState, batch: ContrastBatch, reference: dict | None):
        gradients, metrics = accumulated_gradients(state.params, model_config, batch, config, reference)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics = metrics | {"gradient_norm": optax.tree.norm(gradients), "update_norm": optax.tree.norm(updates)}
        return TrainState(params, opt_state, state.step + 1), metrics

    return jax.jit(update, donate_argnums=0, out_shardings=(shardings, named_sharding(mesh)))


def init_state(params: dict, model_config: ModelConfig, config: ConfigDict, mesh: jax.sharding.Mesh) -> TrainState:
    """A fresh state around master weights that already lie on `mesh`."""
    shardings = state_shardings(model_config, config, mesh)
    opt_state = jax.jit(make_optimizer(config.optim).init, out_shardings=shardings.opt_state)(params)
    return TrainState(params, opt_state, jax.device_put(jnp.int32(0), shardings.step))


def abstract_state(model_config: ModelConfig, config: ConfigDict) -> TrainState:
    """The state with shapes and dtypes in place of arrays."""
    dtype = jnp.dtype(config.train.param_dtype)
    params = jax.tree.map(lambda w: jax.ShapeDtypeStruct(w.shape, dtype), abstract_params(model_config))
    opt_state = jax.eval_shape(make_optimizer(config.optim).init, params)
    return TrainState(params, opt_state, jax.ShapeDtypeStruct((), jnp.int32))


def state_shardings(model_config: ModelConfig, config: ConfigDict, mesh: jax.sharding.Mesh) -> TrainState:
    """The state with shardings in place of arrays: optimizer moments lie as their weights do, scalars everywhere."""
    params = param_shardings(model_config, mesh)
    everywhere = named_sharding(mesh)
    opt_state = optax.tree_map_params(
        make_optimizer(config.optim),
        lambda _, sharding: sharding,
        abstract_state(model_config, config).opt_state,
        params,
        transform_non_params=lambda _: everywhere,
    )
    return TrainState(params, opt_state, everywhere)


def put_batch(batch: ContrastBatch, mesh: jax.sharding.Mesh) -> ContrastBatch:
    """Lays a host batch [microbatches, B, C, ...] out with its queries over the mesh's batch axes."""
    axes = (None, "batch")
    return ContrastBatch(*(jax.device_put(array, named_sharding(mesh, axes)) for array in batch))
