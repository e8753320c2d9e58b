"""The update: S, the contrastive loss, exact accumulation over microbatches, clip, optax.

Two jitted programs over pure pytrees, shardings given at their boundaries: one adds a microbatch's gradient, compiled for
each shape of microbatch, one applies the sum. Weights are kept in `param_dtype` and cast to `compute_dtype` for the forward and
backward pass, to the nearest. So what is computed with, in training and by whoever loads the weights later, follows from them
alone. How much of an update it takes up is measured: `optim.effective_update`.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from sami_jax.contrast import objective
from sami_jax.contrast.likelihood import likelihoods, normalized, plain_likelihoods
from sami_jax.contrast.optim import Moments, apply_updates, effective_update, make_optimizer
from sami_jax.data.batches import ContrastBatch, ContrastExample, pack, shape_for
from sami_jax.data.packing import Sizes
from sami_jax.errors import UserError
from sami_jax.ground import display
from sami_jax.models.adapters import trained
from sami_jax.models.config import ModelConfig
from sami_jax.models.decoder import abstract_params, param_shardings
from sami_jax.models.stack import joined, part
from sami_jax.sharding import batch_shards, named_sharding, put

# Nats a token, by compute dtype: what rounding alone may do to a log-likelihood.
SHARED_PREFIX_TOLERANCE = {"float32": 1e-3, "bfloat16": 0.1}

# What the self-check looks at: constitutions of a query, and tokens, enough to fill several blocks of an attention kernel.
CHECKED = 3
CHECKED_TOKENS = Sizes(prefix=256, response=64, responses=CHECKED * 64)

HOST_MEMORY = "pinned_host"  # jax's name of the host memory that a device copies from and to by itself


class TrainState(NamedTuple):
    params: dict  # master weights
    opt_state: Any
    step: jax.Array  # [] int32, updates made


Metrics = dict[str, jax.Array]


def sami_loss(
    params: dict,
    model_config: ModelConfig,
    batch: ContrastBatch,
    config: ConfigDict,
    reference: dict | None,
    accumulator: dict | None = None,
) -> tuple[jax.Array, Metrics, dict | None]:
    """The loss of one microbatch, mean over its queries, and what to log about it.

    Args:
      params: master weights, frozen ones included.
      batch: B queries.
      config: a run's config, of which `objective` and `train` are read.
      reference: base weights; None where nothing `needs_base`.
      accumulator: for the gradient of the blocks, see `stack.accumulate_layers`; comes back as it is.
    """
    wanted, lengths = config.objective, batch.response_lengths
    found = likelihoods(
        params,
        model_config,
        batch,
        reference=reference,
        over_base=wanted.over_base,
        divergence=wanted.kl_weight > 0,
        compute_dtype=config.train.compute_dtype,
        remat=config.train.remat,
        at_once=config.train.constitutions_at_once,
        accumulator=accumulator,
    )
    s = normalized(found.summed, lengths, wanted.normalize)
    base = None if found.base is None else normalized(found.base, lengths, wanted.normalize)
    loss = jnp.mean(objective.critic_loss(s, base, wanted))
    metrics = {
        "contrastive_loss": loss,
        **jax.tree.map(jnp.mean, objective.estimates(s, found.summed)),
        "own_logprob": jnp.mean(objective.own(s)),
    }
    if base is not None:
        metrics |= {
            "own_over_base": jnp.mean(objective.own(s - base)),
            "row_accuracy_over_base": jnp.mean(objective.row_accuracy(s - base)),
            "column_accuracy_over_base": jnp.mean(objective.column_accuracy(s - base)),
        }
    if wanted.sft_weight:
        metrics["sft_loss"] = -jnp.mean(objective.own(normalized(found.summed, lengths, "mean")))
        loss = loss + wanted.sft_weight * metrics["sft_loss"]
    if found.kl is not None:
        metrics["kl"] = jnp.mean(jnp.sum(found.kl, axis=1) / jnp.maximum(jnp.sum(lengths, axis=1), 1))
        loss = loss + wanted.kl_weight * metrics["kl"]
    if found.router is not None:
        metrics |= {"router_balance": found.router.balance, "router_z": found.router.z}
        loss = loss + wanted.balance_weight * found.router.balance
        loss = loss + wanted.router_z_weight * found.router.z
    return loss, metrics | {"loss": loss}, found.accumulator


def needs_base(config: ConfigDict) -> bool:
    """Whether an update computes with the base's weights too."""
    return config.objective.over_base or config.objective.kl_weight > 0


def accumulate(
    params: dict,
    frozen: dict,
    total: dict | None,
    model_config: ModelConfig,
    batch: ContrastBatch,
    config: ConfigDict,
    reference: dict | None,
) -> tuple[dict, Metrics]:
    """Adds one microbatch's gradient, in float32, to the `total` of those before it (None where it is the first).

    Microbatches hold equally many queries and the loss is their mean, so the mean of the gradients is the gradient of the
    whole batch. (Until 24 May 2024 the authors' code kept the last microbatch's alone.)

    Args:
      params: what is trained.
      frozen: the weights beside it that are not; {} where all are trained.
    Returns:
      the new total, and the microbatch's own metrics.
    """

    # Kept apart until they are added, total and gradient of the blocks would need twice the memory.
    blocks = total["blocks"] if total is not None and config.train.remat == "full" else None
    in_place = blocks is not None
    apart = {name: tree for name, tree in params.items() if not (in_place and name == "blocks")}

    def loss(apart: dict, blocks: dict | None):
        everything = joined(frozen, joined(params, apart))
        loss, metrics, blocks = sami_loss(everything, model_config, batch, config, reference, blocks)
        return (loss, blocks), metrics

    _, pull, metrics = jax.vjp(loss, apart, blocks, has_aux=True)
    gradient, blocks = pull((jnp.float32(1), blocks))
    gradient = jax.tree.map(lambda gradient: gradient.astype(jnp.float32), gradient)
    if total is None:
        return gradient, metrics
    added = jax.tree.map(jnp.add, part(total, gradient), gradient)
    return added | ({"blocks": blocks} if in_place else {}), metrics


def mean_metrics(of_each: Sequence[Metrics]) -> Metrics:
    return jax.tree.map(lambda *values: sum(values) / len(values), *of_each)


def make_update(model_config: ModelConfig, config: ConfigDict, mesh: jax.sharding.Mesh) -> Callable:
    """Returns (state, microbatches, frozen, reference) -> (state, metrics as numbers); the old state's memory is reused.

    Compiles at the first call, and again for each new shape of microbatch. Where the loss or the gradient is no number, the state
    comes back as it was, but for its step.
    """
    start, add, norm, apply = programs(model_config, config, mesh)

    def update(state: TrainState, microbatches: Sequence[ContrastBatch], frozen: dict, reference: dict | None):
        # With several microbatches, the first is added like the others: one program a shape.
        total = start(state.params) if len(microbatches) > 1 else None
        of_each = []
        for batch in microbatches:
            total, metrics = add(state.params, frozen, total, put_batch(batch, mesh), reference)
            of_each.append(metrics)
            # While this one is computed, the one before has come to its end: that is seen without keeping a device waiting.
            jax.block_until_ready(of_each[-2:-1])
            if work := display.current():
                work.tell_within((len(of_each) - 1) / len(microbatches))
        metrics = {name: float(value) for name, value in mean_metrics(jax.device_get(of_each)).items()}
        metrics |= {
            "gradient_norm": float(norm(total)) / len(of_each),
            "update_norm": 0.0,
            "effective_update": math.nan,
        }
        if math.isfinite(metrics["loss"] + metrics["gradient_norm"]):
            state, made, _ = apply(state, total, count=len(of_each))
            return state, metrics | {name: float(value) for name, value in made.items()}
        return state._replace(step=put(np.int32(state.step + 1), mesh)), metrics

    return update


class Programs(NamedTuple):
    """What an update is made of, jitted."""

    start: Callable  # params -> a total of zeros
    add: Callable  # (params, frozen, total, batch, reference) -> (total with the batch's gradient, metrics)
    norm: Callable  # total -> its global norm
    # (state, total, count of microbatches in it) -> (state, metrics of the change, the change, which takes the total's memory)
    apply: Callable


def programs(model_config: ModelConfig, config: ConfigDict, mesh: jax.sharding.Mesh) -> Programs:
    """Not compiled yet."""
    optimizer = make_optimizer(config.optim)
    shardings = state_shardings(model_config, config, mesh)
    everywhere = named_sharding(mesh)

    def start(params):
        return jax.tree.map(lambda weight: jnp.zeros(weight.shape, jnp.float32), params)

    def add(params, frozen, total, batch, reference):
        return accumulate(params, frozen, total, model_config, batch, config, reference)

    def apply(state: TrainState, total, count: int):
        gradients = jax.tree.map(lambda gradient: gradient / count, total)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        key = jax.random.fold_in(jax.random.key(config.seed), state.step)
        params = apply_updates(state.params, updates, config.train.rounding == "stochastic", key)
        made = {
            "update_norm": optax.tree.norm(updates),
            "effective_update": effective_update(state.params, params, updates, config.train.compute_dtype),
        }
        return TrainState(params, opt_state, state.step + 1), made, updates

    return Programs(
        start=jax.jit(start, out_shardings=shardings.params),
        add=jax.jit(add, donate_argnums=2, out_shardings=(shardings.params, everywhere)),
        norm=jax.jit(optax.tree.norm, out_shardings=everywhere),
        apply=jax.jit(
            apply,
            donate_argnums=(0, 1),
            static_argnames="count",
            out_shardings=(shardings, everywhere, shardings.params),
        ),
    )


def init_state(params: dict, model_config: ModelConfig, config: ConfigDict, mesh: jax.sharding.Mesh) -> TrainState:
    """A fresh state around what is trained, which already lies on `mesh`."""
    shardings = state_shardings(model_config, config, mesh)
    opt_state = jax.jit(make_optimizer(config.optim).init, out_shardings=shardings.opt_state)(params)
    return TrainState(params, opt_state, put(jnp.int32(0), mesh))


def abstract_state(model_config: ModelConfig, config: ConfigDict) -> TrainState:
    """The state with shapes and dtypes in place of arrays."""
    dtype = jnp.dtype(config.train.param_dtype)
    params = trained(model_config, abstract_params(model_config))
    params = jax.tree.map(lambda w: jax.ShapeDtypeStruct(w.shape, dtype), params)
    opt_state = jax.eval_shape(make_optimizer(config.optim).init, params)
    return TrainState._make((params, opt_state, jax.ShapeDtypeStruct((), jnp.int32)))


def state_shardings(model_config: ModelConfig, config: ConfigDict, mesh: jax.sharding.Mesh) -> TrainState:
    """The state with shardings in place of arrays: optimizer moments lie as their weights do, scalars everywhere.

    With `optim.offload`, moments rest in host memory.
    """
    params = trained(model_config, param_shardings(model_config, mesh))
    state = abstract_state(model_config, config)
    everywhere = named_sharding(mesh)
    resting = HOST_MEMORY if config.optim.offload else None

    def of_weight(weight, sharding, moments):
        def lies(moment):
            found = _moment_sharding(moment.shape, weight.shape, sharding)
            return found.with_memory_kind(resting) if resting else found

        return jax.tree.map(lambda x: lies(x) if jnp.issubdtype(x.dtype, jnp.floating) else everywhere, moments)

    def of_part(part):
        if not isinstance(part, Moments):
            return everywhere
        return Moments._make((jax.tree.map(of_weight, state.params, params, part.by_weight), everywhere))

    opt_state = jax.tree.map(of_part, state.opt_state, is_leaf=lambda part: isinstance(part, Moments))
    return TrainState._make((params, opt_state, everywhere))


def _moment_sharding(shape: tuple[int, ...], weight_shape: tuple[int, ...], sharding: NamedSharding) -> NamedSharding:
    """That of the weight, less the dimension over which Adafactor has taken the mean; what is no such mean lies everywhere."""
    if shape == weight_shape:
        return sharding
    spec = (*sharding.spec, *(None,) * (len(weight_shape) - len(sharding.spec)))
    for axis in range(len(weight_shape)):
        if shape == weight_shape[:axis] + weight_shape[axis + 1 :]:
            return NamedSharding(sharding.mesh, PartitionSpec(*spec[:axis], *spec[axis + 1 :]))
    return NamedSharding(sharding.mesh, PartitionSpec())


def check_microbatches(config: ConfigDict, mesh: jax.sharding.Mesh) -> None:
    """Raises UserError where a microbatch's queries cannot be split over the mesh."""
    queries, shards = config.train.batch_size // config.train.microbatches, batch_shards(mesh)
    if queries % shards:
        raise UserError(
            f"config.train.microbatches={config.train.microbatches}: a microbatch of {queries} queries cannot be split over "
            f"{shards} devices; choose fewer microbatches or a larger batch_size"
        )


def check_shared_prefix(
    params: dict,
    model_config: ModelConfig,
    config: ConfigDict,
    examples: Sequence[ContrastExample],
    mesh: jax.sharding.Mesh,
) -> float:
    """Compares S as training computes it with S from a row for each pair and XLA's attention, on the first examples (their
    first CHECKED constitutions, the texts cut), a row at a time: it has room wherever training has.

    Returns:
      the largest difference, nats a token.
    Raises:
      UserError: it is more than rounding explains.
    """
    batch = put_batch(checked(examples, config, batch_shards(mesh)), mesh)
    difference = float(check_program(model_config, config)(params, batch))
    allowed = SHARED_PREFIX_TOLERANCE[config.train.compute_dtype]
    if not difference <= allowed:
        raise UserError(
            f"self-check: log-likelihoods by shared prefix differ by {difference:.1e} nats a token from those of separate rows "
            f"(allowed: {allowed}); nothing was trained. Is the model's file damaged? Else report this, with the device and versions in run.json"
        )
    return difference


def checked(examples: Sequence[ContrastExample], config: ConfigDict, shards: int) -> ContrastBatch:
    """The batch of a self-check, one query a shard: of prompts the end, of responses the beginning."""
    tokens = CHECKED_TOKENS
    first = [
        ContrastExample(
            tuple(prompt[-tokens.prefix :] for prompt in example.prompts[:CHECKED]),
            tuple(response[: tokens.response] for response in example.responses[:CHECKED]),
        )
        for example in examples[:shards]
    ]
    first += first[-1:] * (shards - len(first))
    return pack(first, shape_for(first, config.train.bucket))


def check_program(model_config: ModelConfig, config: ConfigDict) -> Callable:
    """(params, batch) -> the largest difference of S in nats a token, jitted, not compiled yet."""
    plain_config = dataclasses.replace(model_config, attention="xla")

    def difference(params: dict, batch: ContrastBatch) -> jax.Array:
        dtype = config.train.compute_dtype
        shared = likelihoods(params, model_config, batch, compute_dtype=dtype, at_once=1).summed
        plain = plain_likelihoods(params, plain_config, batch, compute_dtype=dtype, in_turn=True)
        return jnp.max(jnp.abs(normalized(shared - plain, batch.response_lengths, "mean")))

    return jax.jit(difference)


def put_batch(batch: ContrastBatch, mesh: jax.sharding.Mesh) -> ContrastBatch:
    """Lays a host batch out with its queries over the mesh's batch axes."""
    return jax.tree.map(lambda array: put(array, mesh, ("batch",)), batch)
