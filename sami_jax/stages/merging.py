"""What merging adapters into the base's weights changes. A run samples and measures base and adapters side by side, as they were
trained; iteration_N/model holds the merge, for others to serve, and rounding may take much of a small change away."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from sami_jax.contrast.likelihood import normalized
from sami_jax.contrast.scoring import score
from sami_jax.data.batches import ContrastExample
from sami_jax.data.jsonl import write_json
from sami_jax.data.shape import NUMBER, read_shaped
from sami_jax.export.merged import stored, unchanged_share
from sami_jax.ground import hosts
from sami_jax.ground.terminal import say
from sami_jax.models.peft import load_adapters
from sami_jax.models.pretrained import ModelFolder

MERGED = "merged.json"  # in an iteration's folder
CONTENT = {
    "export_dtype": str,
    "compute_dtype": str,
    "unchanged_weights": NUMBER,  # share of those that have an adapter
    "difference": NUMBER,  # nats a token
    "effect": NUMBER,  # likewise, of the adapters
}
EXAMPLES = 8  # queries whose S is compared


def tell_merge(
    config: ConfigDict, base: ModelFolder, examples: Sequence[ContrastExample], folder: Path, mesh: jax.sharding.Mesh
) -> None:
    """Measures the merge of an iteration's adapters, as whoever loads it will compute with it, says it, and keeps it in merged.json.

    Args:
      examples: the first EXAMPLES are looked at.
      folder: the iteration's, with adapter/ and model/.
    """
    dtype, examples = config.train.compute_dtype, examples[:EXAMPLES]
    adapted = base.with_adapter(folder / "adapter")
    merged = dataclasses.replace(base, folder=folder / "model", held="")

    def s(model: ModelFolder) -> np.ndarray:
        scored = score(model.load(mesh, dtype), model.config, examples, mesh, config.evaluation.batch_size)
        found = sorted(scored, key=lambda one: one[0])
        lengths = np.array([[len(response) for response in example.responses] for example in examples])
        return np.asarray(normalized(np.stack([summed for _, summed in found]), lengths, "mean"))

    of_base, of_merged, of_adapted = s(base), s(merged), s(adapted)
    weights = load_adapters(folder / "adapter", adapted.config, mesh, dtype)
    both = (stored(one, base.config, mesh, dtype) for one in (base.folder, merged.folder))
    found = {
        "export_dtype": config.model.export_dtype,
        "compute_dtype": dtype,
        "unchanged_weights": unchanged_share(weights, *both),
        "difference": float(np.mean(np.abs(of_merged - of_adapted))),
        "effect": float(np.mean(np.abs(of_adapted - of_base))),
    }
    write_json(folder / MERGED, found)
    say(f"  {told_merge(folder)}")


def told_merge(folder: Path) -> str | None:
    """What an iteration's merged.json holds, in words; None where no adapters were merged."""
    if not hosts.once((folder / MERGED).exists):
        return None
    found = read_shaped(folder / MERGED, CONTENT, "restore it")
    return (
        f"merged into {found['export_dtype']} weights and computed in {found['compute_dtype']}, {found['unchanged_weights']:.0%} of the weights "
        f"that have an adapter are as in the base; log-likelihoods are {found['difference']:.1e} nats a token off those of the adapters "
        f"beside the base, which moved them by {found['effect']:.1e}"
    )
