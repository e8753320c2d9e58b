"""The SAMI objective and the mutual-information estimators: pure functions of S (arXiv 2404.14313, section 3).

S [..., C, C] holds S[i, j] = log p(y_j | c_i, x): rows are constitutions, columns are responses, and y_j was sampled
under c_j, so the diagonal pairs belong together. Leading axes are queries; every function maps over them.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

Matrices = Float[jax.Array | np.ndarray, "*batch C C"]
PerQuery = Float[jax.Array, "*batch"]


def contrast_over_responses(s: Matrices) -> PerQuery:
    """Row term, [...]: cross-entropy of finding response i among all responses under constitution i, mean over i, nats."""
    return -jnp.mean(_diagonal(jax.nn.log_softmax(s, axis=-1)), axis=-1)


def contrast_over_constitutions(s: Matrices) -> PerQuery:
    """Column term, [...]: cross-entropy of finding constitution j among all constitutions of response j, mean over j, nats."""
    return -jnp.mean(_diagonal(jax.nn.log_softmax(s, axis=-2)), axis=-1)


def contrastive_loss(s: Matrices, row_weight: float = 0.5, column_weight: float = 0.5) -> PerQuery:
    """The two-sided contrastive loss per query, [...], nats. With the default weights it is log C minus the paper's O."""
    return row_weight * contrast_over_responses(s) + column_weight * contrast_over_constitutions(s)


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


def _beats_rest(s: Matrices) -> jax.Array:
    rest = jnp.where(jnp.eye(s.shape[-1], dtype=bool), -jnp.inf, s)
    return (_diagonal(s) > jnp.max(rest, axis=-1)).astype(jnp.float32)
