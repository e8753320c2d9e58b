"""A check in a principle's file: read with errors that say what to mend, kept by every program that writes the file."""

import dataclasses
from pathlib import Path

import pytest

from sami_jax.errors import UserError
from sami_jax.principles.checks.check import Checks
from sami_jax.principles.differences import differences
from sami_jax.principles.exchange import export_principles, import_principles, merge
from sami_jax.principles.files import add_review, read_principle, read_principles, write_principle
from sami_jax.principles.gate import principle_record
from sami_jax.principles.principle import Principle, Review, content_hash, edited, own_status

SIDES = {"principle": {"sentences": {"at_most": 2}}, "antithesis": [{"sentences": {"at_least": 5}}, "questions"]}
FILE = """\
id: short
principle: Use two sentences.
antithesis: Use five sentences, and ask.
check: # agreed with the team
  principle: {sentences: {at_most: 2}}
  antithesis:
    - sentences: {at_least: 5} # or more
    - questions
"""


def parsed(side, other="json") -> Checks:
    return Checks.parse({"principle": side, "antithesis": other}, "a.yaml")


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "short.yaml").write_text(FILE)
    return tmp_path


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "a.yaml: check: needs the sides principle and antithesis, not None"),
        ([], "check: needs the sides"),
        ({"principle": "json"}, "a.yaml: check: the side antithesis is missing; say how a response shows it"),
        (
            {"principle": "json", "antithesis": "json", "sides": 1},
            "check: unknown side 'sides'; known: principle, antithesis",
        ),
        ({"principle": [], "antithesis": "json"}, r"a.yaml: check.principle: no conditions \(\[\]\)"),
        ({"principle": {}, "antithesis": "json"}, r"check.principle: no conditions \(\{\}\)"),
        ({"principle": 3, "antithesis": "json"}, r"check.principle: no conditions \(3\)"),
    ],
)
def test_a_check_needs_two_sides(content, message):
    with pytest.raises(UserError, match=message):
        Checks.parse(content, "a.yaml")


@pytest.mark.parametrize(
    ("side", "message"),
    [
        ("sentense", "a.yaml: check.principle: unknown word 'sentense'; did you mean sentences?"),
        ({"Begins-With": "a"}, "unknown word 'Begins-With'; did you mean begins_with?"),
        ({7: 1}, "unknown word 7; known: sentences, words"),
        ({None: 1}, "unknown word None"),
        ([{"words": 3}, {"wrods": 3}], r"check.principle\[2\]: unknown word 'wrods'; did you mean words?"),
        ({"words": {"atleast": 3}}, "check.principle.words: unknown word 'atleast'; known: at_least, at_most, exactly"),
        ({"words": {}}, r"check.principle.words: needs a number \(\{\} is given\)"),
        ({"words": "three"}, "check.principle.words: needs a number"),
        ({"words": -1}, "check.principle.words.exactly: is too small; write a whole number from 0 to 1000000"),
        ({"words": {"at_least": 10**400}}, "check.principle.words.at_least: is too large"),
        ({"words": float("nan")}, "check.principle.words.exactly: is nan; write a whole number"),
        ({"words": {"at_least": 2.5}}, "check.principle.words.at_least: is 2.5; write a whole number"),
        ({"words": {"at_least": True}}, "check.principle.words.at_least: is True; write a whole number"),
        ({"words": {"at_least": 3, "at_most": 2}}, "words: at_least 3 is more than at_most 2; no response can be so"),
        ({"words": {"exactly": 3, "at_most": 2}}, "check.principle.words: exactly stands alone"),
        ({"capital_share": 2}, "capital_share.exactly: is too large; write a number from 0 to 1"),
        ({"capital_share": float("nan")}, "capital_share.exactly: is out of range"),
        ({"json": "yes"}, "check.principle.json: is 'yes'; write true or false"),
        ({"contains_any": []}, r"check.principle.contains_any: needs a text or a list of texts, not \[\]"),
        ({"contains_any": [2026]}, "check.principle.contains_any: 2026 is no text; write it in quotation marks"),
        ({"contains_any": ["a", "  "]}, "check.principle.contains_any: a text is empty"),
        ({"pattern": "(?=a)"}, "check.principle.pattern: pattern '.*' cannot be used .*look-around and back-references are not known"),
        ({"pattern": ["a"]}, "check.principle.pattern: needs a text in quotation marks"),
        ({"language": "Klingon"}, "check.principle.language: unknown language 'Klingon'; known: Arabic"),
        ({"letter_case": "upper"}, "check.principle.letter_case: is 'upper'; write lower or capital"),
        ({"letter_case": []}, "check.principle.letter_case: is"),
        ({"any_of": [{"words": 1}]}, "check.principle.any_of: needs a list of two or more conditions"),
        ({"any_of": {"words": 1}}, "check.principle.any_of: needs a list"),
        ({"any_of": ["json", {"wods": 1}]}, r"check.principle.any_of\[2\]: unknown word 'wods'"),
        ({"not": None}, "check.principle.not: no conditions"),
        ({"occurrences": {"at_least": 2}}, "check.principle.occurrences: needs of and a number"),
        ({"occurrences": {"of": "a"}}, "check.principle.occurrences: needs a number"),
        ({"parts": {"separated_by": [], "exactly": 2}}, "check.principle.parts.separated_by: needs a text"),
        ({"paragraph_begins": {"number": 0, "with": "a"}}, "paragraph_begins.number: is 0; write a whole number from 1"),
        ({"paragraph_begins": "a"}, "check.principle.paragraph_begins: needs number and with"),
        ({"first_sentence": {"wrds": 1}}, "check.principle.first_sentence: unknown word 'wrds'; did you mean words?"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_one_line(side, message):
    with pytest.raises(UserError, match=message) as told:
        parsed(side)
    assert "\n" not in str(told.value)


def test_conditions_hold_together_or_one_of_several():
    both = parsed([{"words": 2}, "questions"])
    assert both == parsed([{"words": 2}, "questions"]) and hash(both) == hash(parsed([{"words": 2}, "questions"]))
    together = parsed({"words": 2, "questions": True})
    either = parsed({"any_of": [{"words": 2}, "questions"]})
    found = [
        (both.follows(text, True), together.follows(text, True), either.follows(text, True))
        for text in ("Why so?", "No why", "Why?", "No")
    ]
    assert found == [(True, True, True), (False, False, True), (False, False, True), (False, False, False)]


def test_a_files_check_is_read(folder):
    check = read_principle(folder / "short.yaml").check
    assert check is not None and check.sides == SIDES and list(check.sides) == ["principle", "antithesis"]
    assert check.follows("Yes. No.", True) and not check.follows("Yes. No.", False)
    long = "I ran. You sat. We ate. They left. Did you?"
    assert check.follows(long, False) and not check.follows(long, True)
    (folder / "short.yaml").write_text(FILE.replace("at_most", "at_mots"))
    with pytest.raises(UserError, match=r"short.yaml: check.principle.sentences: unknown word 'at_mots'"):
        read_principle(folder / "short.yaml")
    (folder / "short.yaml").write_text(FILE.split("check:")[0] + "check:\n")
    assert read_principle(folder / "short.yaml").check is None


def test_another_check_is_the_same_principle_measured_otherwise(folder):
    principle = read_principle(folder / "short.yaml")
    approved = add_review(folder, principle, Review("Aiko", "2026-11-30", "approved", content_hash(principle)))
    other = dataclasses.replace(approved, check=parsed({"sentences": 1}))
    bare = dataclasses.replace(approved, check=None)
    assert [own_status(p) for p in (approved, other, bare)] == ["approved"] * 3
    assert content_hash(approved) == content_hash(other) == content_hash(bare)
    records = [principle_record(p) for p in (approved, other, bare)]
    digests = [record.pop("check", None) for record in records]
    assert records[0] == records[1] == records[2]
    assert digests[0].startswith("sha256:") and digests[0] != digests[1] and digests[2] is None
    assert any("sentences" in line for line in differences(approved, other))
    assert not list(differences(approved, approved))


def test_a_digest_is_of_what_is_asked_however_it_is_written():
    one = Checks.parse({"principle": {"words": 1, "json": True}, "antithesis": "quoted"}, "a")
    other = Checks.parse({"antithesis": "quoted", "principle": {"json": True, "words": 1}}, "b")
    assert one.digest == other.digest and one == other


def test_reviews_edits_and_new_versions_keep_it_as_it_was_written(folder):
    file = folder / "short.yaml"
    principle = read_principle(file)
    approved = add_review(folder, principle, Review("Aiko", "2026-11-30", "approved", content_hash(principle)))
    assert FILE in file.read_text()  # comments and layout too
    following = edited(approved, (("Two sentences.", "Five, and a question."),))
    write_principle(folder / "short@2.yaml", following)
    assert read_principle(folder / "short@2.yaml").check == principle.check


def test_csv_keeps_it(folder, tmp_path):
    there = read_principles(folder)
    plain = Principle("plain", (("Be kind.", "Be cruel."),))
    export_principles([*there, plain], tmp_path / "p.csv", "csv")
    back = {p.id: p for p in import_principles(tmp_path / "p.csv")}
    assert back["short"].check == there[0].check and back["plain"].check is None
    (tmp_path / "bad.csv").write_text('id,principle,antithesis,check\na,b,c,"{""principle"": 1"\n')
    with pytest.raises(UserError, match=r"bad.csv: row 2: check is no JSON"):
        import_principles(tmp_path / "bad.csv")
    (tmp_path / "bad.csv").write_text('id,principle,antithesis,check\na,b,c,"{""principle"": ""json""}"\n')
    with pytest.raises(UserError, match=r"bad.csv: row 2: check: the side antithesis is missing"):
        import_principles(tmp_path / "bad.csv")


def test_what_is_imported_keeps_or_replaces_the_check_that_is_there(folder):
    (there,) = read_principles(folder)
    add_review(folder, there, Review("Aiko", "2026-11-30", "approved", content_hash(there)))
    bare = dataclasses.replace(there, check=None)
    assert merge(folder, [bare])["unchanged"] == ["short@1"]
    assert merge(folder, [dataclasses.replace(bare, phrasings=(("Two.", "Five."),))])["next version"] == ["short@2"]
    assert [p.check for p in read_principles(folder)] == [there.check] * 2
    other = parsed({"sentences": 1})
    assert merge(folder, [dataclasses.replace(there, check=other)])["changed"] == ["short@1"]
    first, _ = read_principles(folder)
    assert first.check == other and own_status(first) == "approved"
