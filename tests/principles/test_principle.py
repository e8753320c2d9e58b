"""Status follows from reviews and from nothing else; the hash follows from the normative text and from nothing else."""

import dataclasses
import unicodedata

import pytest

from sami_jax.errors import UserError
from sami_jax.principles.principle import (
    Principle,
    Review,
    Source,
    approvers,
    content_hash,
    current,
    edited,
    find,
    own_status,
    status,
)

KIND = Principle("kind", (("Be kind.", "Be cruel."),))


def reviewed(principle: Principle, *decisions: str) -> Principle:
    """With reviews "REVIEWER decision" of the present text."""
    reviews = [
        Review(*d.split(" ", 1)[:1], "2026-01-01", d.split(" ", 1)[1], content_hash(principle)) for d in decisions
    ]
    return dataclasses.replace(principle, reviews=(*principle.reviews, *reviews))


@pytest.mark.parametrize(
    ("decisions", "expected"),
    [
        ([], "draft"),
        (["ann comment"], "in review"),
        (["ann approved"], "approved"),
        (["ann rejected"], "rejected"),
        (["ann approved", "bob rejected"], "rejected"),
        (["ann rejected", "ann approved"], "approved"),
        (["ann approved", "ann comment"], "approved"),
        (["ann approved", "ann rejected", "bob approved"], "rejected"),
    ],
)
def test_status_of_decisions(decisions, expected):
    assert own_status(reviewed(KIND, *decisions)) == expected


@pytest.mark.parametrize(
    "change",
    [
        {"phrasings": (("Be kind!", "Be cruel."),)},
        {"phrasings": (("Be kind.", "Be cruel!"),)},
        {"phrasings": (("Be kind.", "Be cruel."), ("Stay kind.", "Stay cruel."))},
        {"id": "kinder"},
        {"version": 2},
    ],
)
def test_a_changed_text_is_a_draft_again(change):
    changed = dataclasses.replace(reviewed(KIND, "ann approved"), **change)
    assert content_hash(changed) != content_hash(KIND)
    assert own_status(changed) == "draft" and approvers(changed) == []


def test_what_is_not_normative_does_not_matter():
    changed = dataclasses.replace(
        reviewed(KIND, "ann approved"), tags=("tone",), notes="n", source=Source("writer", "m")
    )
    assert content_hash(changed) == content_hash(KIND) and own_status(changed) == "approved"


def test_hash_is_of_nfc_and_stays_for_ever():
    composed = Principle("café", (("Sei höflich.", "Sei grob."),))
    decomposed = dataclasses.replace(
        composed,
        id=unicodedata.normalize("NFD", "café"),
        phrasings=((unicodedata.normalize("NFD", "Sei höflich."), "Sei grob."),),
    )
    assert content_hash(composed) == content_hash(decomposed)
    # Approvals in the world hang on this value.
    assert content_hash(KIND) == "sha256:011a5f28a24e237d121537111585f85c643003a3aab53d9d3be2e53989e4d3f7"


def test_a_later_approval_supersedes():
    first = reviewed(KIND, "ann approved")
    second = dataclasses.replace(KIND, version=2, phrasings=(("Be very kind.", "Be cruel."),))
    assert status(first, [first, second]) == "approved"
    assert current([first, second]) == (first,)  # the approved one is used until the next is approved
    approved = reviewed(second, "bob approved")
    assert status(first, [first, approved]) == "superseded"
    assert current([first, approved]) == (approved,)
    assert current([KIND, second]) == (second,)  # none approved: the latest


def test_editing_an_approved_text_makes_the_next_version():
    new = (("Be kinder.", "Be cruel."),)
    assert edited(KIND, new) == dataclasses.replace(KIND, phrasings=new)
    after = edited(reviewed(KIND, "ann approved"), new)
    assert (after.version, after.phrasings, after.reviews) == (2, new, ())


def test_find_by_id_takes_the_latest():
    second = dataclasses.replace(KIND, version=2)
    assert find([KIND, second], "kind", "here") is second and find([KIND, second], "kind@1", "here") is KIND
    with pytest.raises(UserError, match="here: no principle 'kin'; known: kind@1, kind@2"):
        find([KIND, second], "kin", "here")
