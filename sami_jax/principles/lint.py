"""What `sami principles check` finds: mistakes that must be mended, and things a reviewer should look at."""

import dataclasses
import difflib
import itertools
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path

from sami_jax.errors import UserError
from sami_jax.principles.checks.overlap import overlaps
from sami_jax.principles.files import principle_files, read_principle
from sami_jax.principles.principle import Principle, approved_otherwise, current, own_status

# Two principles whose texts agree to this share are probably one. The paper's twenty diverse ones reach 0.68 at most.
NEAR = 0.85


@dataclasses.dataclass(frozen=True)
class Finding:
    where: str  # a file name
    text: str
    error: bool  # else a warning
    note: bool = False  # or less than that: to be known, not mended


def check(folder: Path) -> list[Finding]:
    """Everything wrong or doubtful in a folder, files that cannot be read included.

    Raises:
      UserError: no such folder.
    """
    findings, files = [], {}
    for file in principle_files(folder):
        try:
            files[file.name] = read_principle(file)
        except UserError as error:
            findings.append(Finding(file.name, str(error).removeprefix(f"{file}: "), True))
    for name, principle in files.items():
        findings += check_one(name, principle)
    for (name, one), (twin, other) in itertools.combinations(files.items(), 2):
        if one.name == other.name:
            findings.append(Finding(name, f"{one.name} is in {twin} too; give each its own id or version", True))
    newest = set(current(list(files.values())))
    findings += _near_duplicates({name: p for name, p in files.items() if p in newest})
    return sorted(findings, key=lambda finding: (not finding.error, finding.note, finding.where))


def check_one(name: str, principle: Principle) -> list[Finding]:
    """What is wrong or doubtful in one principle, whatever others say.

    Args:
      name: of its file.
    """
    found = [Finding(name, text, error) for text, error in _own(name, principle)]
    overlapping = overlaps(principle.check) if principle.check else []
    return found + [Finding(name, f"check: {overlap.text}", False, not overlap.both) for overlap in overlapping]


def _own(name: str, principle: Principle) -> Iterator[tuple[str, bool]]:
    for text in text_errors(principle):
        yield text, True
    if Path(name).stem not in (principle.id, principle.name):
        yield f"the file of {principle.name} is not called {principle.id}.yaml; rename it", False
    wordings = [tuple(map(_plain, wording)) for wording in principle.phrasings]
    if len(set(wordings)) < len(wordings):
        yield "two phrasings are the same; remove one", False
    if own_status(principle) != "approved" and approved_otherwise(principle):
        yield f"{principle.name} was edited after its approval; have it approved again", False


def text_errors(principle: Principle) -> list[str]:
    """What makes a text unfit for approval; empty where nothing does."""
    errors = [
        f"the antithesis says what the principle says ({text!r:.60}); write its opposite"
        for text, antithesis in principle.phrasings
        if _plain(text) == _plain(antithesis)
    ]
    texts = [text for wording in principle.phrasings for text in wording]
    if not all(texts):
        errors.append("a text is empty; write it")
    if any(_invisible(character) for text in texts for character in text):
        errors.append("a text holds invisible control characters; type it again")
    return errors


def _invisible(character: str) -> bool:
    joiners = "\u200c\u200d"  # part of words in some scripts, and of emoji
    return unicodedata.category(character) in ("Cc", "Cf") and character not in "\n" + joiners


def _near_duplicates(files: dict[str, Principle]) -> list[Finding]:
    findings = []
    for (name, one), (_, other) in itertools.combinations(files.items(), 2):
        same = max(similarity(a, b) for a, _ in one.phrasings for b, _ in other.phrasings)
        if one.id != other.id and same >= NEAR:
            findings.append(Finding(name, f"{one.id} and {other.id} say nearly the same ({same:.0%}); keep one", False))
    return findings


def similarity(one: str, other: str) -> float:
    """Share of the characters of two texts that agree in order, 0 to 1 (difflib's ratio), letter case aside."""
    return difflib.SequenceMatcher(None, _plain(one), _plain(other), autojunk=False).ratio()


def closest(text: str, principles: Sequence[Principle]) -> tuple[float, str]:
    """The similarity and id of the principle nearest to `text`; (0, "") where there is none."""
    return max(((similarity(text, one), p.id) for p in principles for one, _ in p.phrasings), default=(0.0, ""))


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split()).rstrip(".!。")
