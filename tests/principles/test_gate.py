"""The gate: nobody's principle is used unseen, unless that is asked for and written down."""

import dataclasses

import pytest

from sami_jax.errors import UserError
from sami_jax.principles.gate import admit, review_rates
from sami_jax.principles.principle import Principle, Review, Source, content_hash

FOLDER = "principles"


def principle(id: str, decision: str | None = None, **more) -> Principle:
    made = Principle(id, ((f"Be {id}.", f"Never be {id}."),), **more)
    review = Review("ann", "2026-01-01", decision or "", content_hash(made))
    return dataclasses.replace(made, reviews=(review,) if decision else ())


def test_every_unapproved_principle_is_named_with_the_way_out():
    principles = [principle("a", "approved"), principle("b"), principle("c", "rejected"), principle("d", "comment")]
    with pytest.raises(UserError) as error:
        admit(FOLDER, principles, 1.0, False)
    line = str(error.value)
    assert "b@1 (draft), c@1 (rejected), d@1 (in review)" in line and "a@1" not in line
    assert "sami principles approve b c d --folder principles" in line and "--allow_unapproved" in line
    admission = admit(FOLDER, principles, 1.0, True)
    assert [p.id for p in admission.principles] == ["a", "b", "c", "d"]
    assert admission.record()["review"]["unapproved"] == ["b@1", "c@1", "d@1"]


def test_a_share_to_be_reviewed():
    principles = [principle(name) for name in "abcdefghij"]
    refused = {}
    for fraction in (0.0, 0.3, 1.0):
        refused[fraction] = {p.id for p in admit(FOLDER, principles, fraction, True).unapproved}
    assert len(refused[0.0]) == 0 and len(refused[0.3]) == 3 and len(refused[1.0]) == 10
    assert refused[0.3] == {p.id for p in admit(FOLDER, principles[::-1], 0.3, True).unapproved}
    # The lot never lets a rejected principle through.
    with pytest.raises(UserError, match="z@1 \\(rejected\\)"):
        admit(FOLDER, [*principles, principle("z", "rejected")], 0.0, False)


def test_an_approved_version_is_used_until_the_next_is_approved():
    first, second = principle("a", "approved"), principle("a", version=2)
    assert admit(FOLDER, [first, second], 1.0, False).principles == (first,)


def test_rates():
    drafted = principle("a")
    source = Source("writer", "m", "p", content_hash(drafted))
    accepted = principle("a", "approved", source=source)
    edited = principle("b", "approved", source=source)
    rates = review_rates([accepted, edited, principle("c", "rejected"), principle("d")])
    assert rates == {"accepted": 0.25, "edited": 0.25, "rejected": 0.25, "open": 0.25}
