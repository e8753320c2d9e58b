"""The model card of a folder that was made from a GGUF file."""

import collections
from pathlib import Path
from typing import Any

from sami_jax.ground.redaction import redact
from sami_jax.ground.terminal import visible
from sami_jax.ground.version import VERSION
from sami_jax.imports.header import Header
from sami_jax.models.config import ModelConfig

_CARD = """\
---
{metadata}
---

# {title}

Read by sami_jax {version} from one GGUF file, without training: the weights are the file's, made float where they were quantized.

| | |
|---|---|
| file | `{file}` |
| SHA-256 | `{digest}` |
| architecture | {architecture} |
| tensors | {tensors} |
| tokenizer | {tokenizer} |

What quantizing took away does not come back: this is the quantized model, not the one that it was made from.
"""


def card(file: Path, header: Header, config: ModelConfig, digest: str) -> str:
    """
    Args:
      digest: SHA-256 of the file.
    """
    metadata = header.metadata
    kinds = collections.Counter(tensor.kind.name for tensor in header.tensors.values())
    pre = metadata.text("tokenizer.ggml.pre", None)
    return redact(
        _CARD.format(
            metadata=_front_matter(header),
            title=_plain(metadata.text("general.name", None) or file.stem),
            version=VERSION,
            file=_plain(file.name),
            digest=digest,
            architecture=f"{config.family}, {config.n_layers} layers of width {config.d_model}",
            tensors=", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items())),
            tokenizer=_plain(metadata.text("tokenizer.ggml.model") + (f", {pre}" if pre else "")),
        )
    )


def _front_matter(header: Header) -> str:
    from huggingface_hub import ModelCardData  # a second

    known: dict[str, Any] = {}
    if license := header.metadata.text("general.license", None):
        known["license"] = license
    return ModelCardData(library_name="transformers", pipeline_tag="text-generation", tags=["gguf"], **known).to_yaml()


def _plain(text: str) -> str:
    """In one line, without what would come to life in a table."""
    return visible(" ".join(text.split())).translate({ord(mark): " " for mark in "`|<>[]*\\"})[:200]
