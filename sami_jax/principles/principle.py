"""What a principle is: its text, where it came from, what people decided about it, and the status that follows."""

import dataclasses
import hashlib
import json
import unicodedata
from collections.abc import Iterable, Sequence

from sami_jax.errors import UserError
from sami_jax.principles.checks.check import Checks

HAND_WRITTEN = "hand-written"
DECISIONS = ("approved", "rejected", "comment")
STATUSES = ("draft", "in review", "approved", "rejected", "superseded")


@dataclasses.dataclass(frozen=True)
class Source:
    """Where a principle's text came from."""

    kind: str = HAND_WRITTEN  # hand-written | imported | writer
    name: str = ""  # the file it was imported from, or the writer model
    prompt: str = ""  # hash of the prompt the writer answered
    draft: str = ""  # content hash of the text as the writer wrote it


@dataclasses.dataclass(frozen=True)
class Review:
    """What one person said about one text."""

    reviewer: str
    date: str  # ISO 8601, UTC
    decision: str  # one of DECISIONS; a comment decides nothing
    content: str  # content hash of the text that was read
    comment: str = ""


@dataclasses.dataclass(frozen=True)
class Principle:
    """A principle and its antithesis, in one or more wordings: `phrasings[k]` is a pair (principle, antithesis)."""

    id: str
    phrasings: tuple[tuple[str, str], ...]
    version: int = 1
    source: Source = Source()
    tags: tuple[str, ...] = ()
    notes: str = ""
    reviews: tuple[Review, ...] = ()
    check: Checks | None = None  # how responses show it; no part of the text that is approved

    @property
    def name(self) -> str:
        """id@version, as reports and manifests call it."""
        return f"{self.id}@{self.version}"


def content_hash(principle: Principle) -> str:
    """What an approval is bound to: SHA-256 over canonical JSON of id, version and every wording, in Unicode NFC."""
    normative = {
        "id": principle.id,
        "version": principle.version,
        "phrasings": [{"principle": one, "antithesis": other} for one, other in principle.phrasings],
    }
    canonical = json.dumps(normative, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return "sha256:" + hashlib.sha256(unicodedata.normalize("NFC", canonical).encode()).hexdigest()


def own_status(principle: Principle) -> str:
    """The status that the principle's reviews give its present text, other versions aside.

    Each reviewer's latest decision on exactly this text counts. One rejection rejects; without one, one approval
    approves. Reviews of another text count for nothing: an edited principle is a draft again.
    """
    present = content_hash(principle)
    reviews = [review for review in principle.reviews if review.content == present]
    latest = {review.reviewer: review.decision for review in reviews if review.decision != "comment"}
    if "rejected" in latest.values():
        return "rejected"
    if "approved" in latest.values():
        return "approved"
    return "in review" if reviews else "draft"


def status(principle: Principle, all_versions: Iterable[Principle]) -> str:
    """One of STATUSES. Superseded: approved, with a later version approved too."""
    own = own_status(principle)
    later = (p for p in all_versions if p.id == principle.id and p.version > principle.version)
    return "superseded" if own == "approved" and any(own_status(p) == "approved" for p in later) else own


def approvers(principle: Principle) -> list[str]:
    """Who approved the present text and has not rejected it since."""
    present = content_hash(principle)
    latest = {r.reviewer: r.decision for r in principle.reviews if r.content == present and r.decision != "comment"}
    return [reviewer for reviewer, decision in latest.items() if decision == "approved"]


def approved_otherwise(principle: Principle) -> bool:
    """Whether another text than the present one was approved under this version number."""
    present = content_hash(principle)
    return any(review.decision == "approved" and review.content != present for review in principle.reviews)


def current(principles: Sequence[Principle]) -> tuple[Principle, ...]:
    """One version of each id, in the order of ids: the latest that is approved, or the latest where none is."""
    chosen: dict[str, Principle] = {}
    for principle in sorted(principles, key=lambda p: (p.id, own_status(p) == "approved", p.version)):
        chosen[principle.id] = principle
    return tuple(chosen.values())


def edited(principle: Principle, phrasings: tuple[tuple[str, str], ...]) -> Principle:
    """The principle with other words: its next version where the present text was approved, else the same version."""
    if own_status(principle) == "approved":
        return dataclasses.replace(principle, phrasings=phrasings, version=principle.version + 1, reviews=())
    return dataclasses.replace(principle, phrasings=phrasings)


def find(principles: Sequence[Principle], name: str, where: object) -> Principle:
    """The principle called `name`: an id (its latest version) or id@version.

    Raises:
      UserError: there is none; names the known ones.
    """
    found = [p for p in principles if name in (p.id, p.name)]
    if not found:
        known = ", ".join(p.name for p in principles)
        raise UserError(f"{where}: no principle {name!r}; known: {known}")
    return max(found, key=lambda p: p.version)
