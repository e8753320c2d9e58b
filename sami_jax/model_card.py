"""The model card written beside every exported model, and the principles bound to it."""

import html
import re
from pathlib import Path

import sami_jax
from sami_jax import hosts
from sami_jax.data.jsonl import write_json, write_text
from sami_jax.redaction import redact, redacted
from sami_jax.summary import SET_TITLES, percent
from sami_jax.terminal import visible

PRINCIPLES = "principles.json"  # in every exported model and beside every checkpoint

_MARKUP = re.compile(r"([\\`*_\[\]|~!])")

_CARD = """\
---
library_name: transformers
pipeline_tag: text-generation
tags: [sami, alignment, sami_jax]
---

# {title}

Finetuned by sami_jax {version} (SAMI, arXiv 2404.14313) from `{base}` to follow the principles below, without preference
labels or demonstrations. What it was made from is recorded in the run's `run.json` and `audit.jsonl`; `sami verify` checks them.
{warnings}
## Principles

| principle | role | status | text | antithesis | SHA-256 |
|---|---|---|---|---|---|
{principles}

## Results

| held-out queries | responses | following | wins over base (95 %) | well-formed | MI, nats |
|---|---|---|---|---|---|
{results}

## Limits

Measured on held-out queries of the training domain alone. The antitheses were trained on as well: a prompt that states an antithesis
will be followed as one that states a principle.
"""


def write_principles(folder: Path, records: list[dict]) -> None:
    """Binds a model or checkpoint to the principles it was made with.

    Args:
      records: by `preparation.provenance`.
    """
    write_json(folder / PRINCIPLES, redacted(records))


def write_card(folder: Path, title: str, provenance: dict, results: dict, stopped: str | None) -> None:
    """Writes README.md into a model folder that has none.

    Args:
      provenance: by `preparation.provenance`.
      results: evaluation.json's content.
      stopped: why its training was stopped early, where it was.
    """
    if hosts.once((folder / "README.md").exists):
        return
    warnings = []
    if unapproved := provenance["review"]["unapproved"]:
        warnings.append(f"**Used without approval** (`--allow_unapproved`): {', '.join(unapproved)}.")
    if stopped:
        warnings.append(f"**Stopped early by canaries:** {_cell(stopped)}.")
    principles = [
        "| "
        + " | ".join(
            [
                _cell(f"{p['id']}@{p['version']}"),
                p["role"],
                p["status"],
                *map(_cell, p["phrasings"][0]),
                p["hash"][7:19],
            ]
        )
        + " |"
        for p in provenance["principles"]
    ]
    card = _CARD.format(
        title=_cell(title),
        version=sami_jax.__version__,
        base=visible(provenance["base_model"]["path"]).replace("`", "'"),
        warnings="".join(f"\n{line}\n" for line in warnings),
        principles="\n".join(principles),
        results="\n".join(map(_result, results.items())),
    )
    write_text(folder / "README.md", redact(card))


def _result(measured: tuple[str, dict]) -> str:
    name, row = measured
    cells = [SET_TITLES[name], str(row["responses"]), percent(row, "following")]
    cells += [
        percent(row, "win_rate", "win_rate_interval"),
        percent(row, "well_formed"),
        f"{row['mi_posterior_bound']:.3f}",
    ]
    return "| " + " | ".join(cells) + " |"


def _cell(text: str) -> str:
    """A text as it stands, on one line: no mark-up in it, and no HTML, comes to life."""
    return _MARKUP.sub(r"\\\1", html.escape(visible(" ".join(text.split())), quote=False))
