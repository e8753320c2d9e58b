"""Principles as files: one YAML file each in a folder, or the constitution files of the paper's authors.

A principle file:

    id: greeting
    principle: Greet the person before you answer.
    antithesis: Answer without a greeting.
    phrasings:                      # optional: other wordings of the same two
      - principle: Say hello first.
        antithesis: Never say hello.
"""

import dataclasses
import json
import re
from pathlib import Path

import yaml

from sami_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Principle:
    """A principle and its antithesis, in one or more wordings: `phrasings[k]` is a pair (principle, antithesis)."""

    id: str
    phrasings: tuple[tuple[str, str], ...]


def read_principles(folder: Path) -> tuple[Principle, ...]:
    """Reads every principle of a folder, in the order of their ids.

    Raises:
      UserError: no such folder, nothing in it, or a file that is not a principle; names the file.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder of principles; set config.principles.path")
    if files := sorted(folder.glob("*.yaml")):
        principles = [_read_yaml(file) for file in files]
    elif files := sorted(folder.glob("*.json")):
        principles = _read_authors(files)
    else:
        raise UserError(
            f"{folder}: no principle files (*.yaml) and no constitution files (*.json); set config.principles.path"
        )
    ids = [principle.id for principle in principles]
    if repeated := next((id for id in ids if ids.count(id) > 1), None):
        raise UserError(f"{folder}: two principles have the id {repeated!r}; give each its own")
    return tuple(sorted(principles, key=lambda principle: principle.id))


def _read_yaml(file: Path) -> Principle:
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: not readable YAML ({' '.join(str(error).split())[:160]}); mend the file") from None
    if not isinstance(content, dict):
        raise UserError(f"{file}: not a principle; it needs id, principle and antithesis")
    wordings = [content] + (content.get("phrasings") or [])
    for wording in wordings:
        for key in ("principle", "antithesis"):
            text = wording.get(key) if isinstance(wording, dict) else None
            if not isinstance(text, str) or not text.strip():
                raise UserError(
                    f"{file}: {key} is missing or empty in the principle or one of its phrasings; add its text"
                )
    if not isinstance(content.get("id"), str):
        raise UserError(f"{file}: id is missing; add one, for example {file.stem!r}")
    return Principle(content["id"], tuple((w["principle"].strip(), w["antithesis"].strip()) for w in wordings))


def _read_authors(files: list[Path]) -> list[Principle]:
    """The authors' format: numbered lists "positive" and "negative", with identifiers "pos NAME" / "neg NAME" a line.

    Each file shows some principles on their positive and some on their negative side; a principle is whole once both
    of its sides were seen.
    """
    sides: dict[str, dict[str, str]] = {}
    for file in files:
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            for column in ("positive", "negative"):
                lines = re.findall(r"^\d+\. (.*)$", content[column], flags=re.MULTILINE)
                for identifier, text in zip(content["identifiers"][column], lines, strict=True):
                    side, _, name = identifier.partition(" ")
                    known = sides.setdefault(name, {}).setdefault(side, text.strip())
                    if known != text.strip():
                        raise UserError(
                            f"{file}: {identifier!r} is worded differently in an earlier file; keep one wording"
                        )
        except (ValueError, KeyError, TypeError, AttributeError):
            raise UserError(
                f"{file}: not a constitution file (positive, negative, identifiers); see docs of the format"
            ) from None
    for name, texts in sides.items():
        if set(texts) != {"pos", "neg"}:
            raise UserError(f"{files[0].parent}: principle {name!r} is never shown on both sides; add its antithesis")
    return [Principle(name, ((texts["pos"], texts["neg"]),)) for name, texts in sides.items()]
