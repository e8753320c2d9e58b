"""Summaries: mixtral-8x7b on Reddit posts (TL;DR) with the principles concise and comprehensive (paper, section 4.2).

As tldr_mistral7b in all that is not said here. `:smoke` runs every stage in a few minutes on CPU, on a small random mixture
of experts that reads bytes.

Pod: 16 chips, TPU v5p:2x2x4, on which `sami plan --config=tldr_mixtral8x7b --topology=v5p:2x2x4` says it fits. One expert of a
layer's eight belongs to a chip, and one query of a microbatch. The optimizer is the paper's; AdamW, which keeps twice the state
and fits as well: --config.optim.name=adamw.
"""

from sami_jax.config import derived_from, shrink, wants_smoke
from sami_jax.miniature.untrained import RANDOM_MIXTURE


def get_config(arg=None):
    config = derived_from("tldr_mistral7b")
    config.model.path = "models/mixtral-8x7b-v0.1"  # a local copy of the base model (P)
    config.model.shape = "mixtral-8x7b"
    config.mesh.expert = 8  # one of eight experts a chip; fsdp takes the rest, 2 on 16 chips (ours)
    config.optim.name = "rmsprop"  # (P)
    config.model.attention = "splash"  # TPUs' kernel (ours)
    config.train.microbatches = 8  # of 16 queries, one for each chip (ours: memory)
    if wants_smoke(arg):
        shrink(config)
        config.model.path = RANDOM_MIXTURE
    return config
