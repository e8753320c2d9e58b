"""run.json: a statement in the shape of in-toto's (Statement v1, in-toto attestation framework). Its subjects are the exported
files with their digests; its predicate tells what they were made from: config, principles, data, base model, code, machine.

Each time it is written, audit.jsonl records the digest of every field, so that a later change can be named.
"""

import dataclasses
import hashlib
import importlib.metadata
import json
import platform
import secrets
from collections.abc import Iterator
from pathlib import Path

from sami_jax.data.chat import DATE
from sami_jax.data.jsonl import write_json
from sami_jax.data.shape import misfit, read_shaped
from sami_jax.errors import UserError
from sami_jax.ground import hosts
from sami_jax.ground.digests import file_digests, files_below, json_digest, shared_digests
from sami_jax.ground.display import doing
from sami_jax.ground.redaction import redact, redacted
from sami_jax.ground.version import PACKAGE, VERSION
from sami_jax.provenance.audit import AuditLog

MANIFEST, AUDIT = "run.json", "audit.jsonl"
STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "urn:sami_jax:run:v1"
PACKAGES = (
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "transformers",
    "tokenizers",
    "numpy",
    "grain",
    "google-re2",
    "sentencex",
    "py3langid",
)
SHOWN = 4  # differences said in one line
ROUNDS = 100_000  # of the digest that stands for a masked value: a password in it is not found out by trying words
# Config fields that name places. The content there is compared instead, so that a run may be moved with its data.
PLACES = ("model.path", "principles.path", "data.queries", "data.eval_queries")
# Config fields that say who is told of a run, not what it is.
FOLLOWERS = ("track.to", "track.project", "track.name")
# Config fields that are younger than some runs, which go on as if they had been made with these values.
YOUNGER = {
    "config.prompt.date": DATE,
    "config.prompt.bare": "",
    "config.sampling.contrast": 0.0,
    "config.filter.keep_unfinished": True,
    "config.objective.name": "sami",
    "config.objective.beta": 1.0,
    "config.objective.over_base": False,
    "config.objective.squared": False,
    "config.objective.margin": 0.0,
    "config.objective.sft_weight": 0.0,
    "config.objective.bare": False,
    "config.lora.base": "",
    "config.optim.decay_updates": 0,
}

# What readers rely on in a statement.
CONTENT = {
    "_type": str,
    "predicateType": str,
    "subject": [{"name": str, "digest": {"sha256": str}}],
    "predicate": {
        "config": {"constitutions": {"count": int}, "objective": {"normalize": str}, "evaluation": {"judge": str}},
        "seed": int,
        "principles": [
            {
                "id": str,
                "version": int,
                "hash": str,
                "role": str,
                "status": str,
                "approved_by?": [str],
                "phrasings": [(str, str)],
                "check?": str,
            }
        ],
        "review": {"unapproved": [str]},
        "masked?": {"salt": str, "digests": {str: str}},
        "inputs": {str: {"path": str, "sha256": str}},
        "evaluation_plan?": {"sha256": str},
        "base_model": {"path": str, "files": {str: str}},
        "code": {"version": str, "sha256": str},
        "versions": {str: str},
        "devices": {"kind": str, "count": int},
        "status": str,
    },
}


class RunRecord:
    """The manifest and the audit log of the run in a folder."""

    def __init__(self, workdir: Path, predicate: dict, devices: dict, force: bool = False):
        """Opens the books of a new run, or of one that is continued.

        Args:
          predicate: what the run is made from, see `preparation.provenance`.
          devices: what it runs on.
          force: go on although the folder holds a run that was made otherwise: what differs is recorded in both books.
        Raises:
          UserError: the folder holds another run, or its books were changed; names what differs.
        """
        self._workdir = workdir
        file = workdir / MANIFEST
        made_from = json.loads(json.dumps(predicate))
        statement = read_statement(workdir) if hosts.once(file.exists) else {"subject": [], "predicate": None}
        self._subjects, found = statement["subject"], statement["predicate"]
        differing = list(_differences(found, made_from)) if found else []
        wanted = _masked(made_from)
        if differing and not force:
            more = f"; and {len(differing) - SHOWN} more" if len(differing) > SHOWN else ""
            raise UserError(
                f"{file}: this folder holds a run made otherwise ({'; '.join(differing[:SHOWN])}{more}); use another --workdir, what it "
                "was begun with, or --force_resume, which is recorded"
            )
        self.audit = AuditLog(workdir / AUDIT)
        self.audit.add("continued" if found else "begun", devices=devices, versions=_versions())
        self._predicate = found or {**wanted, "code": _code(), "versions": _versions(), "devices": devices}
        if differing:
            self.audit.add("resumed by force", differences=differing)
            forced = [*found.get("forced", []), *differing]
            self._predicate = {**found, "masked": None, **wanted, "forced": forced}
            if self._predicate["masked"] is None:
                del self._predicate["masked"]
        recorded = self.audit.last("manifest")
        if differing or recorded is None or recorded["digest"] != json_digest(statement):
            self._write()

    @property
    def config(self) -> dict:
        """The run's config as it is recorded: what was secret when it was begun stays masked, also where nobody knows it any more."""
        return self._predicate["config"]

    def stage(self, event: str, iteration: int, outputs: list[Path], **facts) -> bool:
        """Records once that a stage of an iteration is done, with the digests of what it left; whether that is news."""
        if self.audit.last(event, iteration=iteration):
            return False
        with doing(f"hashing what was {event}"):
            there = hosts.once(lambda: [str(file) for file in outputs if file.exists()])
            files = shared_digests(map(Path, there), self._workdir)
        self.audit.add(event, iteration=iteration, **facts, files=files)
        return True

    def publish(self, model: Path) -> None:
        """Makes the files of a model folder subjects of the manifest, once: what was published is not measured again."""
        published = {subject["name"] for subject in self._subjects}

        def unpublished() -> list[str]:
            return [
                str(file)
                for file in files_below([model])
                if file.relative_to(self._workdir).as_posix() not in published
            ]

        if new := hosts.once(unpublished):
            with doing(f"hashing {model}"):
                found = shared_digests(map(Path, new), self._workdir)
            self._subjects += [{"name": name, "digest": {"sha256": digest}} for name, digest in found.items()]
            self._write()

    def finish(self, status: str) -> None:
        """Notes how the run ended: complete, or stopped by canaries."""
        if self._predicate["status"] != status:
            self._predicate["status"] = status
            self._write()

    def _write(self) -> None:
        statement = {
            "_type": STATEMENT,
            "subject": self._subjects,
            "predicateType": PREDICATE,
            "predicate": self._predicate,
        }
        fields = {path: json_digest(value)[:16] for path, value in leaves(statement)}
        # The log first: where a crash comes between, the manifest is written again when the run goes on.
        self.audit.add("manifest", digest=json_digest(statement), fields=fields)
        write_json(self._workdir / MANIFEST, statement)


def read_statement(workdir: Path) -> dict:
    """The content of run.json.

    Raises:
      UserError: missing, or no statement of a run.
    """
    statement = read_unchecked(workdir)
    check_statement(workdir, statement)
    return statement


def read_unchecked(workdir: Path) -> dict:
    """Like `read_statement`, of a statement that may lack anything."""
    file = workdir / MANIFEST
    if not file.is_file():
        raise UserError(f"{file}: No such file; give the folder of a run")
    return read_shaped(file, {}, "a damaged manifest: restore it, or use another folder")


def check_statement(workdir: Path, statement: dict) -> None:
    """
    Raises:
      UserError: it is none of a run.
    """
    wrong = misfit(statement, CONTENT)
    if not wrong and (statement["_type"], statement["predicateType"]) != (STATEMENT, PREDICATE):
        wrong = "it is of another type"
    if wrong:
        raise UserError(f"{workdir / MANIFEST}: damaged manifest: {wrong}; restore it, or use another folder")


@dataclasses.dataclass(frozen=True)
class Use:
    """A principle that a model was trained or measured with."""

    principle: str  # id@version
    id: str
    hash: str
    role: str  # trained | held out
    status: str  # when the run began
    model: str  # folder; the run's own where no model is finished


def uses(workdir: Path) -> list[Use]:
    """Every principle of every model that a run exported."""
    statement = read_statement(workdir)
    models = sorted({str(workdir / Path(s["name"]).parent) for s in statement["subject"]}) or [
        f"{workdir} (no model yet)"
    ]
    return [
        Use(f"{p['id']}@{p['version']}", p["id"], p["hash"], p["role"], p["status"], model)
        for p in statement["predicate"]["principles"]
        for model in models
    ]


def leaves(content, path: str = "") -> Iterator[tuple[str, object]]:
    """(path, value) of everything below nested objects; lists of plain values are one leaf."""
    if isinstance(content, dict):
        for key, value in content.items():
            yield from leaves(value, f"{path}.{key}" if path else key)
    elif isinstance(content, list) and any(isinstance(value, dict) for value in content):
        for place, value in enumerate(content):
            yield from leaves(value, f"{path}[{place}]")
    else:
        yield path, content


def _identity(predicate: dict) -> dict[str, object]:
    """What must be the same when a run is continued, by path."""
    config = YOUNGER | dict(leaves(predicate["config"], "config"))
    return {
        **{path: value for path, value in config.items() if path.removeprefix("config.") not in (*PLACES, *FOLLOWERS)},
        **{f"principles: {p['id']}@{p['version']}": p["hash"] for p in predicate["principles"]},
        **{f"inputs.{name}": data["sha256"] for name, data in predicate["inputs"].items()},
        **{f"base_model: {name}": digest for name, digest in predicate["base_model"]["files"].items()},
    }


def _masked(predicate: dict) -> dict:
    """The predicate without the secrets in it. What a masked value was can be compared all the same: by its digest, in "masked"."""
    shown = redacted(predicate)
    values, masked = dict(leaves(predicate)), dict(leaves(shown))
    if hidden := [path for path in values if values[path] != masked.get(path)]:
        salt = hosts.once(lambda: secrets.token_hex(16))
        shown["masked"] = {"salt": salt, "digests": {redact(path): _digest(values[path], salt) for path in hidden}}
    return shown


def _digest(value, salt: str) -> str:
    return hashlib.pbkdf2_hmac("sha256", json.dumps(value).encode(), bytes.fromhex(salt), ROUNDS).hex()


def masked_fields(predicate: dict) -> list[str]:
    """Paths of the values that the predicate does not show as they were."""
    return list(predicate.get("masked", {"digests": {}})["digests"])


def _differences(found: dict, wanted: dict) -> Iterator[str]:
    """What is not as it was, a line each: of two predicates, the first as it was written, the second before it is masked."""
    masked = found.get("masked", {"salt": "", "digests": {}})
    before, now = _identity(found), _identity(wanted)
    for path in sorted(before.keys() | now.keys()):
        if (digest := masked["digests"].get(path)) and path in now:
            same = digest == _digest(now[path], masked["salt"])
        else:
            same = before.get(path) == now.get(path)
        if not same:
            yield redact(f"{path} was {before.get(path)!r}, now {now.get(path)!r}")


def _code() -> dict[str, str]:
    """The package's version, and one digest over its source files."""
    return {"version": VERSION, "sha256": json_digest(file_digests(PACKAGE.rglob("*.py"), PACKAGE))}


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version(), "sami_jax": VERSION}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions
