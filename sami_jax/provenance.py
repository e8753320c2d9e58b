"""The run manifest: what was run, with what."""

import importlib.metadata
import json
import platform
from pathlib import Path

import jax
from ml_collections import ConfigDict

from sami_jax.data.jsonl import write_json
from sami_jax.errors import UserError

PACKAGES = (
    "sami_jax",
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "transformers",
    "tokenizers",
    "numpy",
    "grain",
)


def open_manifest(workdir: Path, config: ConfigDict) -> None:
    """Writes run.json for a new run; for one that is continued, checks that it is the same run.

    Raises:
      UserError: the folder holds a run with another config; names the fields.
    """
    file = workdir / "run.json"
    wanted = json.loads(config.to_json())
    if not file.exists():
        write_json(file, {"config": wanted, "versions": _versions(), "devices": _devices()})
        return
    try:
        found = json.loads(file.read_text(encoding="utf-8"))["config"]
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{file}: damaged manifest; use another --workdir, or remove this one") from None
    if differences := list(_differences(found, wanted, "config")):
        raise UserError(
            f"{file}: this folder holds a run with other settings ({'; '.join(differences[:4])}); use another --workdir, or the same settings"
        )


def _differences(found, wanted, where: str):
    if isinstance(found, dict) and isinstance(wanted, dict):
        for key in sorted(found.keys() | wanted.keys()):
            yield from _differences(found.get(key), wanted.get(key), f"{where}.{key}")
    elif found != wanted:
        yield f"{where} was {found!r}, now {wanted!r}"


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def _devices() -> dict[str, str | int]:
    return {"kind": jax.devices()[0].device_kind, "count": jax.device_count(), "processes": jax.process_count()}
