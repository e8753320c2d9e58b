"""The gate between people and training: which principles a run may use, and what people did with the drafts."""

import dataclasses
import hashlib
import math
from collections.abc import Sequence
from pathlib import Path

from sami_jax.errors import UserError
from sami_jax.principles.principle import Principle, approvers, content_hash, current, own_status


@dataclasses.dataclass(frozen=True)
class Admission:
    """The principles a run uses, and how they came to be allowed."""

    principles: tuple[Principle, ...]  # one version of each id
    unapproved: tuple[Principle, ...]  # those among them that a review was due for and that are not approved
    fraction: float  # share of the principles that people had to approve
    rates: dict[str, float]  # shares of the folder's principles, see `review_rates`

    def record(self) -> dict:
        """What manifests and audit logs keep."""
        return {
            "principles": [principle_record(principle) for principle in self.principles],
            "review": {
                "fraction": self.fraction,
                "unapproved": [principle.name for principle in self.unapproved],
                **self.rates,
            },
        }


def admit(folder: Path, principles: Sequence[Principle], fraction: float, allow_unapproved: bool) -> Admission:
    """Chooses the version of each principle that a run uses, and refuses what people have not approved.

    Args:
      principles: all versions in `folder`.
      fraction: share of the principles, drawn by a hash of their ids, that people must have approved. A rejected
        principle is never allowed by lot.
      allow_unapproved: let everything pass, and keep its names.
    Raises:
      UserError: names each principle that is not approved, and how to approve it.
    """
    used = current(principles)
    drawn = sorted(used, key=lambda p: hashlib.sha256(p.id.encode()).hexdigest())[: math.ceil(fraction * len(used))]
    unapproved = tuple(p for p in used if own_status(p) == "rejected" or (p in drawn and own_status(p) != "approved"))
    if unapproved and not allow_unapproved:
        named = ", ".join(f"{p.name} ({own_status(p)})" for p in unapproved)
        raise UserError(
            f"{folder}: not approved: {named}; read and decide with `sami principles review --folder {folder}`, or approve with "
            f"`sami principles approve {' '.join(p.id for p in unapproved)} --folder {folder}`, or run with --allow_unapproved"
        )
    return Admission(used, unapproved, fraction, review_rates(principles))


def review_rates(principles: Sequence[Principle]) -> dict[str, float]:
    """How people received the principles: shares of all versions that are approved as they were drafted ("accepted"),
    approved after an edit ("edited"), "rejected", and not decided ("open"). What people wrote themselves and approved counts as accepted."""
    counts = dict.fromkeys(("accepted", "edited", "rejected", "open"), 0)
    for principle in principles:
        decided = own_status(principle)
        if decided == "approved":
            edited = principle.source.draft not in ("", content_hash(principle))
            counts["edited" if edited else "accepted"] += 1
        else:
            counts["rejected" if decided == "rejected" else "open"] += 1
    return {name: count / len(principles) for name, count in counts.items()}


def principle_record(principle: Principle) -> dict:
    """A principle as manifests, checkpoints and exported models keep it: enough to check its hash again.

    Its check has a digest of its own: another check is another measurement of the same principle.
    """
    record = {
        "id": principle.id,
        "version": principle.version,
        "hash": content_hash(principle),
        "status": own_status(principle),
        "approved_by": approvers(principle),
        "phrasings": [list(wording) for wording in principle.phrasings],
    }
    return record | ({"check": principle.check.digest} if principle.check else {})
