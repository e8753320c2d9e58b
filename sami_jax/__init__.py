"""sami_jax: teach a pretrained language model to follow written principles, without preference labels (arXiv 2404.14313).

From Python, docs/api.md; from a terminal, `sami --help`.
"""

from typing import TYPE_CHECKING

from sami_jax.errors import NotFinite, StoppedByCanary, UserError
from sami_jax.ground.version import VERSION

if TYPE_CHECKING:
    from sami_jax.api import *

__all__ = [
    "Model",
    "NotFinite",
    "Principle",
    "StoppedByCanary",
    "Training",
    "UserError",
    "begin",
    "compose",
    "contrastive_loss",
    "explain",
    "load",
    "load_config",
    "mi_lower_bound",
    "mi_posterior_bound",
    "read_principles",
    "read_queries",
    "run",
    "sample",
    "save",
    "score",
    "update",
]

__version__ = VERSION


def __getattr__(name: str):
    """What takes JAX waits until it is asked for: `import sami_jax` and `sami --help` stay instant (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module 'sami_jax' has no attribute {name!r}")
    from sami_jax import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
