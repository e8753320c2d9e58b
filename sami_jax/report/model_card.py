"""The model card written beside every exported model, and the principles bound to it."""

import html
import json
import re
from pathlib import Path
from typing import Any

from sami_jax.data.jsonl import write_json, write_text
from sami_jax.data.shape import misfit
from sami_jax.data.sources import HUB
from sami_jax.ground import hosts
from sami_jax.ground.redaction import redact, redacted
from sami_jax.ground.terminal import visible
from sami_jax.ground.version import VERSION
from sami_jax.report.summary import SET_TITLES, percent

PRINCIPLES = "principles.json"  # in every exported model and beside every checkpoint

_MARKUP = re.compile(r"([\\`*_\[\]|~!])")

_CARD = """\
---
{metadata}
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

## Use

{use}

## Limits

Measured on held-out queries of the training domain alone. The antitheses were trained on as well: a prompt that states an antithesis
will be followed as one that states a principle.
"""
_PLAIN = "transformers, `transformers serve` and vLLM load this folder. Responses were sampled under prompts of this form:\n\n{form}"
_CHAT = "transformers, `transformers serve` and vLLM load this folder. It was asked through its chat template, under this system message:\n\n{form}"

# What a card needs of a run's config.
SETTINGS = {"prompt": {"generation": str, "chat?": bool, "system?": str}, "data": {"queries": str}}
TAGS = ("sami", "sami_jax", "alignment")
# Of a base's own card, what holds for a model made from it too.
_INHERITED = ("license", "license_name", "license_link", "language")
_HUB_ID = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}", re.ASCII)
_HUB_CACHE = re.compile(r"models--([\w.-]+)--([\w.-]+)", re.ASCII)


def write_principles(folder: Path, records: list[dict]) -> None:
    """Binds a model or checkpoint to the principles it was made with.

    Args:
      records: by `preparation.provenance`.
    """
    write_json(folder / PRINCIPLES, redacted(records))


def write_card(
    folder: Path, title: str, provenance: dict, results: dict, stopped: str | None, merged: str | None = None
) -> None:
    """Writes README.md into a model folder that has none.

    Args:
      provenance: by `preparation.provenance`.
      results: evaluation.json's content.
      stopped: why its training was stopped early, where it was.
      merged: what merging its adapters changed, where it had some.
    """
    if hosts.once((folder / "README.md").exists):
        return
    warnings = []
    if unapproved := provenance["review"]["unapproved"]:
        warnings.append(f"**Used without approval** (`--allow_unapproved`): {', '.join(unapproved)}.")
    if stopped:
        warnings.append(f"**Stopped early by canaries:** {_cell(stopped)}.")
    if merged:
        warnings.append(
            f"**Results are of the adapters beside the base**, and these weights hold both: {_cell(merged)}."
        )
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
        metadata=_metadata(provenance),
        title=_cell(title),
        version=VERSION,
        base=visible(provenance["base_model"]["path"]).replace("`", "'"),
        warnings="".join(f"\n{line}\n" for line in warnings),
        principles="\n".join(principles),
        results="\n".join(map(_result, results.items())),
        use=_use(provenance["config"]["prompt"]),
    )
    write_text(folder / "README.md", redact(card))


def _metadata(provenance: dict) -> str:
    """The card's front matter, as hubs read it: what is known, and nothing that is not."""
    from huggingface_hub import ModelCardData  # a second; most verbs write no card

    base = Path(provenance["base_model"]["path"])
    hub_id, queries = _hub_id(base), provenance["config"]["data"]["queries"]
    relation: dict[str, Any] = {"base_model_relation": "finetune"} if hub_id else {}
    data = ModelCardData(
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=list(TAGS),
        base_model=hub_id,
        datasets=[queries.removeprefix(HUB)] if queries.startswith(HUB) else None,
        **_inherited(base),
        **relation,
    )
    return data.to_yaml()


def _hub_id(base: Path) -> str | None:
    """owner/name of a base model from a hub, by its folder in the hub's cache or by its config.json."""
    if found := _HUB_CACHE.search(str(base)):
        return f"{found[1]}/{found[2]}"
    try:
        named = json.loads((base / "config.json").read_text(encoding="utf-8"))["_name_or_path"]
    except (OSError, ValueError, KeyError, TypeError):  # the base is not here any more, or does not say
        return None
    return named if isinstance(named, str) and _HUB_ID.fullmatch(named) else None


def _inherited(base: Path) -> dict[str, Any]:
    """What the base's own card says of license and language, where it has a card that can be read."""
    from huggingface_hub import ModelCard

    try:
        said = ModelCard((base / "README.md").read_text(encoding="utf-8"), ignore_metadata_errors=True).data.to_dict()
    except Exception:  # there is none, or it is no card: anybody may have written it
        return {}
    return {key: said[key] for key in _INHERITED if not misfit(said.get(key), str) or not misfit(said.get(key), [str])}


def _use(prompt: dict) -> str:
    chat = prompt.get("chat", False)
    form = prompt["system"] or "(none)" if chat else prompt["generation"]
    lines = "\n".join(f"    {line}" for line in visible(form).split("\n"))
    return (_CHAT if chat else _PLAIN).format(form=lines)


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
