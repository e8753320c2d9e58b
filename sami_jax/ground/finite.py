"""Weights that are no numbers: found before they are trained on, saved or exported."""

import jax
import jax.numpy as jnp

from sami_jax.errors import NotFinite


@jax.jit
def _finite(arrays):
    return jax.tree.map(lambda x: jnp.all(jnp.isfinite(x)), arrays)


def check_finite(arrays: dict, what: str) -> None:
    """Raises NotFinite, naming the array and `what` it belongs to, where an array holds NaN or infinity."""
    for path, holds in jax.tree_util.tree_leaves_with_path(jax.device_get(_finite(arrays))):
        if not holds:
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            raise NotFinite(f"{what}: {name} holds values that are no numbers (NaN or infinity)")
