"""`sami verify`: is everything a run left behind as it was recorded?"""

import dataclasses
from pathlib import Path

from sami_jax.errors import UserError
from sami_jax.ground.digests import file_digest, json_digest
from sami_jax.ground.display import doing
from sami_jax.provenance.audit import read_audit
from sami_jax.provenance.manifest import AUDIT, MANIFEST, check_statement, leaves, read_unchecked


@dataclasses.dataclass(frozen=True)
class Verified:
    """How much was checked."""

    files: int
    events: int
    principles: int
    status: str  # of the run


def verify(workdir: Path) -> Verified:
    """Checks the audit log's chain, the manifest against the log, every recorded file against its digest.

    Raises:
      UserError: names the first thing that differs.
    """
    statement = read_unchecked(workdir)
    events = read_audit(workdir / AUDIT)
    _check_manifest(workdir, statement, events)
    check_statement(workdir, statement)
    files = {subject["name"]: subject["digest"]["sha256"] for subject in statement["subject"]}
    for event in events:
        files |= event.get("files", {})
    with doing(f"hashing {workdir}"):
        for name, digest in files.items():
            _check_file(workdir, name, digest)
    predicate = statement["predicate"]
    return Verified(len(files), len(events), len(predicate["principles"]), predicate["status"])


def _check_manifest(workdir: Path, statement: dict, events: list[dict]) -> None:
    recorded = next((event for event in reversed(events) if event["event"] == "manifest"), None)
    if recorded is None:
        raise UserError(f"{workdir / AUDIT}: no manifest was ever recorded; lines were removed from its end")
    if recorded["digest"] == json_digest(statement):
        return
    present = {path: json_digest(value)[:16] for path, value in leaves(statement)}
    for path in [*recorded["fields"], *present]:
        if present.get(path) != recorded["fields"].get(path):
            what = (
                "is missing"
                if path not in present
                else "was added"
                if path not in recorded["fields"]
                else "was changed"
            )
            raise UserError(
                f"{workdir / MANIFEST}: {path} {what} since line {recorded['number']} of {AUDIT} recorded it"
            )
    raise UserError(f"{workdir / MANIFEST}: differs from what line {recorded['number']} of {AUDIT} recorded")


def _check_file(workdir: Path, name: str, digest: str) -> None:
    file = workdir / name
    if not file.resolve().is_relative_to(workdir.resolve()):
        raise UserError(f"{file}: recorded outside of the run's folder; the manifest is not to be trusted")
    if not file.is_file():
        raise UserError(f"{file}: missing; it was there when the run recorded it")
    if file_digest(file) != digest:
        raise UserError(f"{file}: was changed since the run recorded it")
