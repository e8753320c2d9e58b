"""The SAMI objective, its family and the mutual-information estimators: pure functions of S (arXiv 2404.14313, section 3).

S [..., C, C] holds S[i, j] = log p(y_j | c_i, x): rows are constitutions, columns are responses, and y_j was sampled
under c_j, so the diagonal pairs belong together. Leading axes are queries; every function maps over them. Losses take any critic X
[..., C, C] in its place: SAMI's is S itself.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

Matrices = Float[jax.Array | np.ndarray, "*batch C C"]
PerQuery = Float[jax.Array, "*batch"]


def critic(s: Matrices, base: Matrices | None = None, beta: float = 1.0) -> Matrices:
    """X = beta (S - R), [..., C, C]: R is S under the base, which has no gradient; None takes nothing off."""
    return beta * (s if base is None else s - jax.lax.stop_gradient(base))


def contrast_over_responses(x: Matrices, margin: float = 0.0) -> PerQuery:
    """Row term, [...]: cross-entropy of finding response i among all responses under constitution i, mean over i, nats.

    Args:
      margin: by which the own response must lead before it counts as level (SimPO's gamma).
    """
    return -jnp.mean(_diagonal(jax.nn.log_softmax(_handicapped(x, margin), axis=-1)), axis=-1)


def contrast_over_constitutions(x: Matrices, margin: float = 0.0) -> PerQuery:
    """Column term, [...]: cross-entropy of finding constitution j among all constitutions of response j, mean over j, nats."""
    return -jnp.mean(_diagonal(jax.nn.log_softmax(_handicapped(x, margin), axis=-2)), axis=-1)


def contrastive_loss(x: Matrices, row_weight: float = 0.5, column_weight: float = 0.5, margin: float = 0.0) -> PerQuery:
    """The two-sided contrastive loss per query, [...], nats. With the default weights it is log C minus the paper's O."""
    rows, columns = contrast_over_responses(x, margin), contrast_over_constitutions(x, margin)
    return row_weight * rows + column_weight * columns


def squared_loss(x: Matrices, row_weight: float, column_weight: float, beta: float) -> PerQuery:
    """IPO's in place of the cross-entropies (arXiv 2310.12036, equation 17), [...], nats squared: each lead over another response in
    the row, or constitution in the column, is to be one half in X, that is 1 / (2 beta) in S - R; mean over the others."""
    return row_weight * _from_half(x, beta) + column_weight * _from_half(jnp.swapaxes(x, -1, -2), beta)


def critic_loss(s: Matrices, base: Matrices | None, wanted: Any) -> PerQuery:
    """The contrast, [...], that the fields of `wanted` ask for: a `family.Member`, or `config.objective`.

    Args:
      s, base: S and R, as `wanted.normalize` has them; R None where `wanted.over_base` is False.
    """
    x = critic(s, base, wanted.beta)
    if wanted.squared:
        return squared_loss(x, wanted.row_weight, wanted.column_weight, wanted.beta)
    return contrastive_loss(x, wanted.row_weight, wanted.column_weight, wanted.margin)


def own(s: Matrices) -> PerQuery:
    """Mean of the pairs that belong together, [...]: of log-probs a token, less the loss of supervised finetuning."""
    return jnp.mean(_diagonal(s), axis=-1)


def mi_lower_bound(s: Matrices) -> PerQuery:
    """InfoNCE lower bound on I(Y; C | X) in nats, [...]: log C minus the two-sided loss, hence at most log C."""
    return jnp.log(float(s.shape[-1])) - contrastive_loss(s)


def mi_posterior_bound(s_sum: Matrices) -> PerQuery:
    """Lower bound on I(Y; C | X) in nats, [...], from summed log-probs: log C minus the contrast over constitutions.

    The softmax of summed log-probs over constitutions is the model's own posterior p(c | x, y), so for responses that
    the model sampled itself this is the tightest such bound (Barber and Agakov 2003). The contrast over responses compares texts of
    different lengths, which makes `mi_lower_bound` loose on summed log-probs.
    """
    return jnp.log(float(s_sum.shape[-1])) - contrast_over_constitutions(s_sum)


def mi_paper(s_sum: Matrices) -> PerQuery:
    """What the paper plots as "MI", [...]: mean_j (S[j, j] - mean_k S[j, k]) on summed log-probs; nats, unbounded."""
    return jnp.mean(_diagonal(s_sum) - jnp.mean(s_sum, axis=-1), axis=-1)


def row_accuracy(s: Matrices) -> PerQuery:
    """Share of constitutions, [...], whose own response is strictly the likeliest under them."""
    return jnp.mean(_beats_rest(s), axis=-1)


def column_accuracy(s: Matrices) -> PerQuery:
    """Share of responses, [...], whose own constitution is strictly the one that makes them likeliest."""
    return row_accuracy(jnp.swapaxes(s, -1, -2))


def estimates(s: Matrices, s_sum: Matrices) -> dict[str, PerQuery]:
    """What is reported of S, as it is trained on and summed over tokens, each [..., C, C]: by name, a value [...] a query."""
    return {
        "mi_lower_bound": mi_lower_bound(s),
        "mi_posterior_bound": mi_posterior_bound(s_sum),
        "mi_paper": mi_paper(s_sum),
        "row_accuracy": row_accuracy(s),
        "column_accuracy": column_accuracy(s),
    }


def _diagonal(s: Matrices) -> jax.Array:
    return jnp.diagonal(s, axis1=-2, axis2=-1)


def _handicapped(x: Matrices, margin: float) -> jax.Array:
    return jnp.where(jnp.eye(x.shape[-1], dtype=bool), x - margin, x)


def _from_half(x: Matrices, beta: float) -> jax.Array:
    count = x.shape[-1]
    misses = ((_diagonal(x)[..., None] - x - 0.5) / beta) ** 2
    others = jnp.where(jnp.eye(count, dtype=bool), 0.0, misses)
    return jnp.sum(others, axis=(-2, -1)) / max(count * (count - 1), 1)


def _beats_rest(s: Matrices) -> jax.Array:
    rest = jnp.where(jnp.eye(s.shape[-1], dtype=bool), -jnp.inf, s)
    return (_diagonal(s) > jnp.max(rest, axis=-1)).astype(jnp.float32)
