"""Principles as files: YAML, one principle each, in a folder that a team keeps in version control.

    id: greeting
    version: 1
    principle: Greet the person before you answer.
    antithesis: Answer without a greeting.
    phrasings:                      # optional: other wordings of the same two
      - principle: Say hello first.
        antithesis: Never say hello.
    check:                          # optional: how a response shows that it follows, see principles/checks
      principle: {begins_with: [hello, hi, good morning]}
      antithesis: {not: {begins_with: [hello, hi, good morning]}}
    source: {kind: hand-written}    # or imported, or writer with the model's name and hashes
    tags: [tone]
    notes: Asked for by the support team.
    reviews:                        # written by `sami principles review`, `approve` and `reject`
      - reviewer: Aiko Tanaka
        date: "2026-11-24T10:00:00Z"
        decision: approved
        content: sha256:...         # of the text that was read
        comment: Clear.

Only id, principle and antithesis must be there. A folder may hold several versions of a principle.
"""

import dataclasses
import functools
import io
import re
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.scalarstring import DoubleQuotedScalarString, LiteralScalarString

from sami_jax.data.jsonl import write_text
from sami_jax.errors import TryAgain, UserError
from sami_jax.ground.disk import disk_fault, hidden
from sami_jax.principles.checks.check import Checks
from sami_jax.principles.principle import DECISIONS, Principle, Review, Source

KEYS = ("id", "version", "principle", "antithesis", "phrasings", "check", "source", "tags", "notes", "reviews")
ID = re.compile(r"[^\W_][\w.-]*")  # letters of any script; no "@", no "/", nothing that hides a file

MOST_NODES = 10_000  # of a file
MOST_BYTES = 500_000  # likewise: what reads YAML takes seconds for more


def read_principles(folder: Path) -> tuple[Principle, ...]:
    """Reads every principle of a folder, all versions, in the order of ids and versions.

    Raises:
      UserError: no such folder, nothing in it, or a file that is not a principle; names the file.
    """
    return tuple(sorted(read_files(folder).values(), key=lambda p: (p.id, p.version)))


def read_files(folder: Path) -> dict[Path, Principle]:
    """Like `read_principles`, by file."""
    files = principle_files(folder)
    if not files:
        raise UserError(
            f"{folder}: no principle files (*.yaml); write one, `sami principles import` some, or set config.principles.path"
        )
    principles: dict[Path, Principle] = {}
    for file in files:
        principle = read_principle(file)
        if twin := next((f for f, p in principles.items() if p.name == principle.name), None):
            raise UserError(
                f"{file}: {principle.name} is in {twin.name} too; give each its own id, or another version number"
            )
        principles[file] = principle
    return principles


def principle_files(folder: Path) -> list[Path]:
    """The folder's YAML files, but for hidden ones, as an editor's copies are.

    Raises:
      UserError: no such folder.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder of principles; give a folder of YAML files, one principle each")
    found = (file for file in folder.iterdir() if file.suffix.lower() in (".yaml", ".yml"))
    return sorted(file for file in found if not hidden(file.relative_to(folder)))


def read_principle(file: Path) -> Principle:
    """Reads one file.

    Raises:
      UserError: not YAML, or not a principle; names the file and what is wrong.
    """
    return _principle(file, _text(file))


@functools.lru_cache(maxsize=2000)  # YAML takes milliseconds a file, and a desk reads its folder for every page
def _principle(file: Path, text: str) -> Principle:
    content = _load(file, text, YAML(typ="safe", pure=True))
    if not isinstance(content, dict):
        raise UserError(f"{file}: not a principle; it needs id, principle and antithesis")
    if unknown := [key for key in content if key not in KEYS]:
        raise UserError(f"{file}: unknown key {unknown[0]!r}; known: {', '.join(KEYS)}")
    content = {key: value for key, value in content.items() if value is not None}  # null is absent
    id, version = content.get("id"), content.get("version", 1)
    if not isinstance(id, str) or not ID.fullmatch(id):
        raise UserError(f"{file}: id is missing or not a word ({id!r}); write one, for example {file.stem!r}")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise UserError(f"{file}: version is {version!r}; write a whole number from 1")
    return Principle(
        id=id,
        phrasings=tuple(_wording(file, wording) for wording in [content, *_list(file, content, "phrasings")]),
        version=version,
        source=_record(file, "source", Source, content.get("source") or {}),
        tags=tuple(str(tag) for tag in _list(file, content, "tags") if tag is not None),
        notes=str(content.get("notes") or "").strip(),
        reviews=tuple(_review(file, review) for review in _list(file, content, "reviews")),
        check=Checks.parse(content["check"], str(file)) if "check" in content else None,
    )


def write_principle(file: Path, principle: Principle) -> None:
    """Writes a principle whole or not at all. In a file that is there already, comments and layout stay."""
    yaml = YAML()
    yaml.width, yaml.allow_unicode = 110, True
    yaml.indent(mapping=2, sequence=4, offset=2)
    text = _text(file) if file.exists() else ""
    content = _load(file, text, yaml) if text else {}
    known = _principle(file, text) if text else None
    for key, value in _content(principle).items():
        if known is None or value != _content(known).get(key):
            content[key] = _styled(value)
    for key in [key for key in content if key not in _content(principle)]:
        del content[key]
    stream = io.StringIO()
    yaml.dump(content, stream)
    write_text(file, stream.getvalue())


def add_review(folder: Path, principle: Principle, review: Review) -> Principle:
    """Appends a review to the principle's file and returns the principle with it."""
    reviewed = dataclasses.replace(principle, reviews=(*principle.reviews, review))
    write_principle(file_of(folder, principle), reviewed)
    return reviewed


def file_of(folder: Path, principle: Principle) -> Path:
    """Where this version of a principle lies, or belongs if it is new: ID.yaml, or ID@VERSION.yaml where that is taken."""
    files = {read_principle(file).name: file for file in principle_files(folder)}
    if principle.name in files:
        return files[principle.name]
    plain = folder / f"{principle.id}.yaml"
    return folder / f"{principle.name}.yaml" if plain.exists() else plain


def _text(file: Path) -> str:
    try:
        if (size := file.stat().st_size) > MOST_BYTES:
            raise _unreadable(file, ValueError(f"{size} bytes, too much for a principle"))
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise _unreadable(file, error) from None
    except OSError as error:
        if isinstance(fault := disk_fault(error, file), TryAgain):
            raise fault from None
        raise UserError(f"{file}: {error.strerror or error}; give a file that can be read") from None


def _load(file: Path, text: str, yaml: YAML):
    try:
        content = yaml.load(text)
        _check(content)
        return content
    except (YAMLError, ValueError, RecursionError) as error:
        raise _unreadable(file, error) from None


def _unreadable(file: Path, error: Exception) -> UserError:
    return UserError(f"{file}: not readable YAML ({' '.join(str(error).split())[:160]}); mend the file")


def _check(content) -> None:
    """Looks at all of a file's content, by whatever ways it is reached: aliases can make a small file endless.

    Raises:
      ValueError: it is too much, or a text in it holds half a character.
    """
    waiting, seen = [content], 0
    while waiting:
        one = waiting.pop()
        seen += 1
        if seen > MOST_NODES:
            raise ValueError("too much in it for a principle")
        if isinstance(one, dict | list):
            waiting += [*one, *one.values()] if isinstance(one, dict) else one
        elif isinstance(one, str) and any("\ud800" <= character <= "\udfff" for character in one):
            raise ValueError("an escape spells half a character, a lone surrogate")


def _wording(file: Path, wording) -> tuple[str, str]:
    texts = []
    for key in ("principle", "antithesis"):
        text = wording.get(key) if isinstance(wording, dict) else None
        if not isinstance(text, str) or not text.strip():
            raise UserError(f"{file}: {key} is missing or empty in the principle or one of its phrasings; add its text")
        texts.append(text.strip())
    return texts[0], texts[1]


def _list(file: Path, content: dict, key: str) -> list:
    value = content.get(key) or []
    if not isinstance(value, list):
        raise UserError(f"{file}: {key} must be a list, not {value!r:.40}; mend the file")
    return value


def _review(file: Path, content) -> Review:
    review = _record(file, "reviews", Review, content)
    if review.decision not in DECISIONS:
        raise UserError(f"{file}: a review's decision is {review.decision!r}; one of {', '.join(DECISIONS)}")
    return review


def _record(file: Path, key: str, kind: type, content):
    try:
        return kind(**{name: str(value) for name, value in content.items() if value is not None})
    except (TypeError, AttributeError):
        names = ", ".join(field.name for field in dataclasses.fields(kind))
        raise UserError(f"{file}: {key} needs the keys {names}; mend the file") from None


def _content(principle: Principle) -> dict:
    """The file's content, in its order; what is empty is left out."""
    (text, antithesis), *others = principle.phrasings
    content = {
        "id": principle.id,
        "version": principle.version,
        "principle": text,
        "antithesis": antithesis,
        "phrasings": [{"principle": one, "antithesis": other} for one, other in others],
        "check": principle.check.sides if principle.check else None,
        "source": _filled(principle.source),
        "tags": list(principle.tags),
        "notes": principle.notes,
        "reviews": [_filled(review) for review in principle.reviews],
    }
    return {key: value for key, value in content.items() if value}


def _filled(record) -> dict[str, str]:
    return {name: value for name, value in dataclasses.asdict(record).items() if value}


def _styled(value):
    """The same value, with texts of several lines as blocks and dates in quotes."""
    if isinstance(value, dict):
        return {key: DoubleQuotedScalarString(one) if key == "date" else _styled(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_styled(one) for one in value]
    return LiteralScalarString(value) if isinstance(value, str) and "\n" in value else value
