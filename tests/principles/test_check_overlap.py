"""Where a check's sides do not exclude each other, or leave a gap, that is said; where they do neither, nothing is."""

import pytest

from sami_jax.principles.checks.check import Checks
from sami_jax.principles.checks.overlap import overlaps
from sami_jax.principles.checks.samples import ORDINARY
from sami_jax.principles.files import write_principle
from sami_jax.principles.lint import check
from sami_jax.principles.principle import Principle


def found(principle, antithesis) -> list[tuple[bool, str]]:
    sides = Checks.parse({"principle": principle, "antithesis": antithesis}, "a.yaml")
    return [(overlap.both, overlap.text) for overlap in overlaps(sides)]


@pytest.mark.parametrize(
    ("principle", "antithesis"),
    [
        ({"sentences": {"at_most": 2}}, {"sentences": {"at_least": 3}}),
        ({"questions": True}, {"questions": False}),
        ({"words": {"at_most": 9}}, {"not": {"words": {"at_most": 9}}}),
        ({"contains_any": ["a b", "c"]}, {"contains_none": ["c", "a b"]}),
        ({"begins_with": "ahoy"}, {"not": {"begins_with": "ahoy"}}),
        ({"language": "French"}, {"language": "English"}),
        ({"ends_with": "?"}, {"ends_with": [".", "!"]}),
    ],
)
def test_sides_that_exclude_each_other_and_leave_little(principle, antithesis):
    assert found(principle, antithesis) == []
    assert found(antithesis, principle) == []


@pytest.mark.parametrize(
    ("principle", "antithesis", "words"),
    [
        ({"sentences": {"at_most": 2}}, {"sentences": {"at_least": 5}}, "with 3 to 4 sentences follow neither side"),
        ({"sentences": {"at_most": 2}}, {"sentences": {"at_least": 4}}, "with 3 sentences follow neither"),
        ({"sentences": 1}, {"sentences": {"at_least": 2, "at_most": 5}}, "with more than 5 sentences follow neither"),
        ({"questions": 1}, {"questions": {"at_least": 2}}, "with fewer than 1 questions follow neither"),
        ({"capital_share": {"at_most": 0.1}}, {"capital_share": {"at_least": 0.5}}, "between 0.1 and 0.5"),
        ({"letter_case": "lower"}, {"letter_case": "capital"}, "ordinary texts follow neither side"),
    ],
)
def test_a_gap_is_a_note(principle, antithesis, words):
    ((both, text),) = found(principle, antithesis)
    assert not both and words in text


@pytest.mark.parametrize(
    ("principle", "antithesis"),
    [
        ("numbered_items", "bulleted_items"),
        ({"contains_any": "zebra"}, {"contains_any": "lion"}),  # in no ordinary text: the check names them
        ({"begins_with": "ahoy"}, {"ends_with": "farewell"}),
        ({"contains_any": "zebra"}, {"sentences": {"at_most": 2}}),
        ({"contains_none": "zebra"}, {"questions": True}),
    ],
)
def test_texts_that_follow_both_are_shown(principle, antithesis):
    both = [text for both, text in found(principle, antithesis) if both]
    assert len(both) == 1 and both[0].startswith("a response can follow both sides, for example ")


@pytest.mark.parametrize(
    ("principle", "antithesis", "span"),
    [
        ({"sentences": {"at_most": 2}}, {"sentences": {"at_least": 2}}, "2"),
        ({"words": {"at_least": 700}}, {"words": {"at_least": 600}}, "700 or more"),
        ({"words": {"at_least": 600}}, {"words": {"at_most": 700}}, "600 to 700"),
    ],
)
def test_numbers_that_follow_both_are_told(principle, antithesis, span):
    word = next(iter(principle))
    both = [text for both, text in found(principle, antithesis) if both]
    assert both == [f"responses with {span} {word} follow both sides; let one of them exclude the other"]


def test_a_condition_that_always_holds_is_named():
    assert found({"words": {"at_least": 0}}, "json")[0] == (
        True,
        'words {"at_least":0} holds for every response; give it a bound',
    )


def test_what_is_found_stands_among_the_findings(tmp_path):
    sides = {"principle": {"sentences": {"at_most": 2}}, "antithesis": {"sentences": {"at_least": 4}}}
    principle = Principle("a", (("Be brief.", "Talk on."),), check=Checks.parse(sides, "a"))
    write_principle(tmp_path / "a.yaml", principle)
    (finding,) = check(tmp_path)
    assert finding.note and not finding.error and finding.text.startswith("check: responses with 3 sentences")


def test_ordinary_texts_differ():
    assert len(set(ORDINARY)) == len(ORDINARY) >= 40
