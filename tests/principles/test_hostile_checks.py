"""Checks that mean harm: patterns that explode, endless files, long responses. Each ends soon, and says in one line what is wrong."""

import time

import pytest

from sami_jax.errors import UserError
from sami_jax.principles.checks import vocabulary
from sami_jax.principles.checks.check import Checks
from sami_jax.principles.checks.reply import LONGEST, Reply
from sami_jax.principles.files import read_principle

# Seconds of the processor: what is quadratic in 50,000 characters takes minutes.
SOON = 5.0
HEAD = "id: a\nprinciple: b\nantithesis: c\ncheck:\n"
RESPONSES = {
    name: (text * LONGEST)[: LONGEST - 1] + "a"
    for name, text in {
        "letters": "a",
        "words": "a ",
        "lines": "a\n",
        "blank lines": "\n \t",
        "full stops": ".",
        "initials": "p.",
        "brackets": "[",
        "emphasis": "*a ",
        "fences": "```\n",
        "other fences": "~~~\n```\n",
        "kanji": "漢",
        "marks": "\u0301",
        "items": "1. a\n",
        "questions": "?",
        "unequal": "!=",
        "quotes": '"「',
        "angles": "<<",
        "objects": '{"a":',
        "lists": "[",
        "surrogates": "\ud800",
        "titles": "# ",
        "underscores": "__",
        "apostrophes": "a'",
        "dotted capitals": "İ",
        "ligatures": "ﷺ",
    }.items()
}


def soon(act):
    begun = time.process_time()
    found = act()
    assert time.process_time() - begun < SOON
    return found


def check_of(side) -> Checks:
    return Checks.parse({"principle": side, "antithesis": "json"}, "a.yaml")


@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|a)*b", "(.*)*x", "(x+x+)+y", "(?:.*a){100}", r"(\w+\s?)*$", r"a?a{600}", "\\C{600}x"])  # fmt: skip
def test_patterns_that_explode_elsewhere_end(pattern):
    check = check_of({"pattern": pattern})
    for name in ("letters", "words", "kanji"):
        soon(lambda name=name: check.follows(RESPONSES[name], True))


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("(a{1000}){1000}", "cannot be used"),
        ("a{1000}" * 3, "steps in all, 2000 at most"),
        ("(?:(?:.?){30}){30}x", "steps in all, 2000 at most"),
        (r"\pL{500}", "cannot be used"),
        ("(" * 900, "cannot be used"),
        ("a" * 1001, "a pattern of 1001 characters; 1000 at most"),
        (r"(a)\1", "back-references are not known"),
        ("[", "cannot be used"),
    ],
)
def test_patterns_that_are_too_much_are_refused(pattern, words):
    with pytest.raises(UserError, match=words):
        soon(lambda: check_of({"pattern": pattern}))


def test_patterns_count_together():
    with pytest.raises(UserError, match="steps in all"):
        check_of([{"pattern": f"a{{900}}{letter}"} for letter in "abc"])


@pytest.mark.parametrize("name", RESPONSES)
def test_every_word_reads_every_response_soon(name):
    def read():
        reply = Reply(RESPONSES[name], RESPONSES[name])
        for measure in (*vocabulary.COUNTS.values(), *vocabulary.SHARES.values()):
            assert measure(reply) >= 0
        for look in (*vocabulary.PLAIN.values(), *vocabulary.LETTER_CASES.values()):
            look(reply)
        for _, look in vocabulary.TEXTS.values():
            look(reply, "a a a b")
        vocabulary.occurrences(reply, "a")
        vocabulary.in_language(reply, "fr")

    soon(read)


def test_a_response_of_a_megabyte_is_refused():
    check = check_of({"pattern": "(a+)+$", "sentences": 1})
    with pytest.raises(UserError, match="a response of 1000000 characters; checks read 50000 at most"):
        soon(lambda: check.follows("a" * 1_000_000, True))


@pytest.mark.parametrize(
    ("side", "words"),
    [
        ([{"words": 1}] * 10_000, "more than 200 conditions; write fewer"),
        ({"any_of": [{"words": 1}] * 10_000}, "more than 200 conditions; write fewer"),
        ({"contains_any": [str(n) for n in range(10_000)]}, "more than 1000 texts"),
        ({"contains_any": ["a" * 5_001, "b" * 5_000]}, "10000 characters of them"),
    ],
)
def test_too_many_conditions_are_refused(side, words):
    with pytest.raises(UserError, match=words):
        soon(lambda: check_of(side))


@pytest.mark.parametrize(
    "wrap", [lambda side: {"not": side}, lambda side: [side], lambda side: {"first_sentence": side}]
)
def test_deep_nesting_is_refused(wrap):
    side = {"words": 1}
    for _ in range(300):
        side = wrap(side)
    with pytest.raises(UserError, match="more than 8 deep; write them flatter"):
        check_of(side)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("  principle: " + "[" * 500 + "\n", "not readable YAML"),
        ("  principle: [" + "json, " * 100_000 + "]\n", "bytes, too much for a principle"),
        ("  principle: &a [*a]\n  antithesis: json\n", "not readable YAML"),
        ("  principle: &a {not: *a}\n  antithesis: json\n", "not readable YAML"),
        (
            "  principle:\n    - &b0 [x, x, x, x, x, x, x, x, x]\n"
            + "".join(f"    - &b{n} [{', '.join([f'*b{n - 1}'] * 9)}]\n" for n in range(1, 9))
            + "  antithesis: json\n",
            "not readable YAML",
        ),
        ('  principle: {contains_any: "\\uD800"}\n  antithesis: json\n', "not readable YAML"),
        (
            "  principle: !!python/object/apply:os.system [id]\n  antithesis: json\n",
            "short|check.principle|not readable",
        ),
        ("  principle: {words: 2026-11-30}\n  antithesis: json\n", "check.principle.words: needs a number"),
        ("  principle: {contains_any: [yes, !!binary aGk=]}\n  antithesis: json\n", "is no text|not readable"),
        ("  principle: {? [a, b] : 1}\n  antithesis: json\n", "unknown word|not readable"),
        (f"  principle: {{words: {'9' * 5000}}}\n  antithesis: json\n", "too large|not readable"),
    ],
)
def test_hostile_files_are_one_line(tmp_path, content, words):
    file = tmp_path / "a.yaml"
    file.write_text(HEAD + content)
    with pytest.raises(UserError, match=words) as told:
        soon(lambda: read_principle(file))
    assert str(told.value).startswith(f"{file}: ") and "\n" not in str(told.value)


def test_bytes_that_are_no_text_are_refused(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_bytes((HEAD + "  principle: {contains_any: ").encode() + b"\xff\xfe}\n  antithesis: json\n")
    with pytest.raises(UserError, match="not readable YAML"):
        read_principle(file)


def test_aliases_are_plain_text(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text(HEAD + "  principle: &p {questions: 1}\n  antithesis: {not: *p}\n")
    check = read_principle(file).check
    assert check is not None and check.sides == {"principle": {"questions": 1}, "antithesis": {"not": {"questions": 1}}}
