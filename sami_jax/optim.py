"""Optimizers, by name, as one optax chain: clip, then the rule, with a warm-up that never wastes an update."""

from collections.abc import Callable

import optax
from ml_collections import ConfigDict

OPTIMIZERS: dict[str, Callable[[ConfigDict, optax.Schedule], optax.GradientTransformation]] = {
    "adamw": lambda c, rate: optax.adamw(rate, b1=c.b1, b2=c.b2, eps=c.epsilon, weight_decay=c.weight_decay),
    # The authors' code: torch.optim.RMSprop with its defaults.
    "rmsprop": lambda c, rate: optax.rmsprop(rate, decay=c.b2, eps=c.epsilon),
}


def learning_rate(config: ConfigDict) -> optax.Schedule:
    """Rises linearly to the full rate at update `warmup_updates`, starting above 0, then stays.

    A schedule that starts at 0 spends one of very few updates on nothing, as an early version of the authors' code did.
    """
    warmup = config.warmup_updates
    if warmup == 0:
        return optax.constant_schedule(config.learning_rate)
    return optax.linear_schedule(config.learning_rate / (warmup + 1), config.learning_rate, warmup)


def make_optimizer(config: ConfigDict) -> optax.GradientTransformation:
    """`config` is the `optim` part of a run's config."""
    rule = OPTIMIZERS[config.name](config, learning_rate(config))
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), rule)
