"""A model folder to the Hugging Face hub, as the run that made it left it."""

import dataclasses
import os
import re
from collections.abc import Sequence
from pathlib import Path

from sami_jax.errors import UserError
from sami_jax.ground.digests import file_digest
from sami_jax.ground.disk import hidden
from sami_jax.ground.progress import track
from sami_jax.ground.redaction import redact
from sami_jax.models.huggingface import check_weights, read_config
from sami_jax.provenance.manifest import MANIFEST, read_statement

CARD = "README.md"
TOKEN = "HF_TOKEN"  # the variable's name  # nosec B105
ENDPOINT = "HF_ENDPOINT"
REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
RECORDED, EDITED, ADDED, UNKNOWN = "as the run left it", "edited since", "added since", "of no run here"
SHOWN_TO_ALL = (CARD, "principles.json")  # texts that are looked through for secrets


@dataclasses.dataclass(frozen=True)
class ModelFile:
    name: str  # path in the folder
    bytes: int
    sha256: str
    state: str  # one of the four above


def model_files(folder: Path) -> list[ModelFile]:
    """What there is to push, all but hidden files, checked against the run that made it where its folder is around it.

    Raises:
      UserError: no whole model; a file that is not as the run recorded it, but for the card, which people may edit; a card that
        holds a secret.
    """
    check_weights(folder, read_config(folder))
    found = sorted(file for file in folder.rglob("*") if file.is_file() and not _left_out(file.relative_to(folder)))
    recorded = _recorded(folder)
    files = []
    for file in track(found, "checking", len(found)):
        name = file.relative_to(folder).as_posix()
        if not file.resolve().is_relative_to(folder.resolve()):
            raise UserError(f"{file}: leads out of the folder; put the file itself there")
        digest = file_digest(file)
        files.append(ModelFile(name, file.stat().st_size, digest, _state(file, name, digest, recorded)))
        if name in SHOWN_TO_ALL and redact(text := file.read_text(encoding="utf-8", errors="replace")) != text:
            raise UserError(f"{file}: holds what looks like a secret; take it out")
    if missing := sorted((recorded or {}).keys() - {file.name for file in files}):
        raise UserError(f"{folder / missing[0]}: missing; it was there when the run recorded it")
    return files


def push(folder: Path, files: Sequence[ModelFile], repository: str, private: bool) -> str:
    """Uploads the files in one commit, to a repository that is made where there is none. Returns the commit's URL.

    Raises:
      UserError: no token, or the hub refuses it; a public repository where a private one is asked for; no connection.
    """
    if not (token := os.environ.get(TOKEN, "").strip()):
        raise UserError(
            f"{TOKEN} is not set; make a token that may write, at your hub's settings, and set {TOKEN} to it"
        )
    from huggingface_hub import CommitOperationAdd, HfApi, constants
    from huggingface_hub.utils import disable_progress_bars

    disable_progress_bars()  # ours is drawn
    endpoint = (os.environ.get(ENDPOINT) or constants.ENDPOINT).rstrip("/")
    api = HfApi(endpoint=endpoint, token=token)
    try:
        api.create_repo(repository, private=private or None, exist_ok=True)
        if private and not api.model_info(repository).private:
            raise UserError(f"{repository}: is there, and public; make it private on the hub, or leave --private out")
        additions = [CommitOperationAdd(file.name, folder / file.name) for file in files]
        for addition in track(additions, "uploading", len(additions)):
            api.preupload_lfs_files(repository, additions=[addition], free_memory=False)
        return api.create_commit(repository, additions, commit_message=f"{folder.name}, pushed by sami_jax").commit_url
    except UserError:
        raise
    except Exception as error:  # of many types, by the library's version and what it is built on
        raise UserError(_told(error, endpoint, repository)) from None


def _left_out(path: Path) -> bool:
    return hidden(path) or path.suffix == ".partial"


def _recorded(folder: Path) -> dict[str, str] | None:
    """Digests by name that a run's manifest has of this folder; None where it is of no run, or of one without it."""
    folder = folder.resolve()
    run = next((parent for parent in folder.parents if (parent / MANIFEST).is_file()), None)
    if run is None:
        return None
    prefix = folder.relative_to(run).as_posix() + "/"
    subjects = {one["name"]: one["digest"]["sha256"] for one in read_statement(run)["subject"]}
    return {name.removeprefix(prefix): sha for name, sha in subjects.items() if name.startswith(prefix)} or None


def _state(file: Path, name: str, digest: str, recorded: dict[str, str] | None) -> str:
    if recorded is None:
        return UNKNOWN
    if name not in recorded:
        return ADDED
    if recorded[name] == digest:
        return RECORDED
    if name == CARD:
        return EDITED
    raise UserError(f"{file}: was changed since the run recorded it; export the model again")


def _told(error: Exception, endpoint: str, repository: str) -> str:
    """An error of the hub's client as a user can act on it."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status == 401:
        return f"{endpoint}: does not know this {TOKEN}; make a new token at your hub's settings"
    if status == 403:
        return (
            f"{repository}: this {TOKEN} may not write there; use a token with write access, or your own name in --to"
        )
    if status is not None:
        said = getattr(error, "server_message", None) or str(error)
        return f"{endpoint}: refused with status {status} ({' '.join(said.split())[:160]}); see the hub's status page, then try again"
    if "offline" in type(error).__name__.lower():
        return "HF_HUB_OFFLINE is set; unset it to push"
    return f"{endpoint}: cannot be reached ({' '.join(str(error).split())[:160]}); check the network, or {ENDPOINT}"
