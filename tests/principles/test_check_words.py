"""Every word of checks, with responses on both sides of its border."""

import re
from pathlib import Path

import pytest

from sami_jax.errors import UserError
from sami_jax.principles.checks.check import Checks
from sami_jax.principles.checks.conditions import WORDS
from sami_jax.principles.checks.languages import LANGUAGES, code_of, language_of
from sami_jax.principles.checks.reply import Reply

LIST = "Buy:\n\n1. eggs\n2) milk\n\n- salt\n* oil\n• rice"
# word -> (what is given to it, responses that show it, responses that do not)
TABLE: dict[str, list[tuple[object, list[str], list[str]]]] = {
    "begins_with": [
        ("hello", ["Hello, Ann.", "  **Hello** there", '"HELLO," she said', "# Hello"], ["Hellosaurs", "Oh hello", "Hell o"]),
        (["sure", "of course"], ["Of  course I can.", "Sure!"], ["Surely.", "Of courses"]),
        ("はい", ["はい、そうです。", "「はい」"], ["いいえ、はい。"]),
        ("- ", ["- one"], ["one"]),
    ],
    "ends_with": [
        ("take care", ["Bye. Take care!", "*Take care.*", "Take care"], ["Take care of it", "I overtake care"]),
        ("?", ["Is it?", 'He asked: "Is it?"', "Is it? "], ["Is it? No."]),
        ("ですか", ["いいですか？"], ["いいですよ"]),
        (["bye", "ciao"], ["Ciao!!!"], ["By"]),
    ],
    "is_one_of": [(["yes", "no"], ["Yes.", "no", "**No!**", '"Yes"'], ["Yes and no", "Yess"])],
    "contains_any": [
        (["thank you", "thanks"], ["Well, thanks!", "THANK\nYOU", "(thanks)"], ["Thanksgiving", "thank me, you"]),
        ("don't", ["I don’t know", "I don't"], ["do not"]),
        ("水", ["お水をください"], ["火"]),
        ("밥", ["밥을 먹어요"], ["물을 마셔요"]),
        ("C++", ["I like C++."], ["I like C."]),
        ("straße", ["Die STRASSE", "die Straße"], ["Strass"]),
        ("café", ["un cafe\u0301 noir"], ["un cafe noir"]),
        ("*", ["a * b"], ["a b"]),
        (["2 eggs"], ["use 2 eggs"], ["use 12 eggs"]),
    ],
    "contains_all": [(["first", "then"], ["First this, then that."], ["First this.", "Then that."])],
    "contains_none": [(["cat", "dog"], ["A catalogue of dogma."], ["A cat.", "My Dog"])],
    "pattern": [
        (r"\bstep \d+", ["See Step 12."], ["See step two."]),
        (r"(?-i:NASA)", ["NASA said"], ["nasa said"]),
        (r"^\p{Han}", ["漢字"], ["kanji 漢字"]),
        (r"(?m)^end$", ["a\nEnd\nb"], ["the end"]),
    ],
    "sentences": [
        (
            2,
            [
                "Yes. No.",
                "Really?! Yes!",
                "水を飲んでください。早く寝てください。",
                "no capitals here. none there",
                "Dr. Smith came at 5 p.m. He left.",
                "One line\nAnother line",
                "1. Eat.\n2. Sleep.",
                "It costs $3.50, e.g. here. Good.",
                "यह अच्छा है। पानी पियो।",
            ],
            ["Yes.", "I ran. You sat. We ate."],
        ),
        ({"at_most": 1}, ["It costs 3.50 dollars.", "`a. b. c.`", "```\na. b. c.\nd.\n```\nDone."], ["One. Two."]),
    ],
    "words": [
        (3, ["one two three", "It's 3.5 litres", "well-known old facts", "水火土", "हिन्दी में लिखो", "a - b / c"], ["one two", "a b c d"]),
    ],
    "paragraphs": [({"at_least": 2}, ["a\n\nb", "a\n \t\nb"], ["a\nb", "a\n\n---", "a"])],
    "lines": [(2, ["a\nb", "a\n\n\nb\n"], ["a", "a\nb\nc"])],
    "characters": [({"at_most": 5}, ["12345", " 12345 ", "あいうえお"], ["123456"])],
    "list_items": [
        (5, [LIST], ["- a\n- b\n- c\n- d", "1. a"]),
        (False, ["It costs 3.5 euros.\n3.5 litres", "-5 degrees\n*bold* text", "**Bold** text\n---\n***", "```\n- a\n```\ncode"], ["- a", "（は）\n・りんご"]),
    ],
    "numbered_items": [
        (2, [LIST, "**1.** eggs\n**2.** milk", "a) one\n(b) two", "1、水\n2、火"], ["1. eggs\n2.5 litres of milk", "2024 was good\n2025 too"]),
    ],
    "bulleted_items": [(3, [LIST, "- a\n  - b\n- c"], ["- a\n- b", "a - b - c"])],
    "questions": [
        ({"at_least": 2}, ["Why? When?", "なぜ？いつですか？", "What?! Why?"], ["Why?? Because.", "see a.com/?q=1 and b.com/?q=2", "Why?"]),
    ],
    "exclamations": [
        (False, ["Good.", "if a != b", "![image](x.png)", "use !important", "```\nx!\n```\nend"], ["Good!", "すごい！", "What?!", "Ha!)"]),
    ],
    "commas": [(0, ["a; b"], ["a, b", "水、火", "a，b", "ا، ب"])],
    "capital_words": [
        ({"at_least": 2}, ["STOP it NOW", "ÜBER-GUT and OK"], ["STOP it now", "I saw A. B.", "Stop It Now"]),
    ],
    "capital_share": [({"at_least": 0.5}, ["STOP it NOW ok", "NO"], ["STOP it now", "no"])],
    "letter_case": [
        ("lower", ["all lower. ok", "été 12"], ["One Capital", "123", "日本語"]),
        ("capital", ["ALL BIG. 12", "ÉTÉ"], ["ALL BIg", "123"]),
    ],
    "first_person": [
        (True, ["I think so.", "in my view", "Let's go", "We’re here", "i agree"], ["You think, i.e. it is so.", "The US did it", "It is III."]),
    ],
    "second_person": [(True, ["Help yourself.", "You're right", "YOUR turn"], ["youth", "I am right"])],
    "language": [
        ("French", ["Bien sûr, je peux vous aider avec cela.", "Bonjour ! Utilisez ce code : ```the list of the words in it```"], ["Of course I can help you.", "12 + 3", "Natürlich helfe ich Ihnen gern."]),
        (["ja", "Spanish"], ["はい、もちろんです。", "Claro que sí, puedo ayudarte."], ["是的,当然可以。", "Of course."]),
    ],
    "json": [
        (True, ['{"a": [1, 2]}', '```json\n{"a": 1}\n```', "[1]", "```\n[1]\n```"], ['{"a": }', "12", '"text"', 'Here: {"a": 1}', "{'a': 1}"]),
        (False, ["12"], ['{"a": 1}']),
    ],
    "quoted": [(True, ['"All of it."', "“Yes.”", "「はい」", "« Oui »", "„Ja“"], ['"Yes," he said', "'Yes'", 'All "of" it', '""'])],
    "title": [
        (True, ["<<A Day>>\nIt rained.", "# A Day\nIt rained.", "**A Day**\nIt rained."], ["A Day\nIt rained.", "**Bold** words begin it.", "#tag is here", "<<>> nothing"]),
    ],
    "postscript": [
        (True, ["Bye.\nP.S. Call me.", "Bye.\n\n*PS: call*", "Bye.\nP. S. call", "Bye.\nP.P.S. and again"], ["P.S. alone", "Bye.\nPS5 is out", "We say P.S. within", "Bye.\npsst"]),
    ],
    "highlighted": [({"at_least": 2}, ["*one* and **two words**", "**a** **b**"], ["*one*", "* item\n* item", "2 * 3 * 4", "**one"])],
    "placeholders": [(2, ["Dear [name], on [date]"], ["[link](x.com) and [name]", "[]  [name]"])],
    "sections": [({"at_least": 2}, ["# A\ntext\n## B\ntext", "SECTION 1\na\nSection II\nb"], ["# A\ntext", "#a\n#b", "Sections are fun\nsections"])],
    "numbers": [(2, ["12 and 3.5", "10:30 or 11"], ["12", "1 2 3", "one two"])],
    "emoji": [(True, ["Nice 😊", "★ ok"], ["Nice :)", "© 2026"])],
    "links": [(False, ["Go to the shop."], ["https://a.org", "see www.a.org"])],
    "code_blocks": [(1, ["```\nx\n```"], ["`x`", "```\nx\n```\n```\ny\n```"])],
    "occurrences": [
        ({"of": "you", "at_least": 2}, ["You and you", "you, you, your"], ["your youth, you"]),
        ({"of": ["cat", "dog"], "exactly": 3}, ["cat dog cat"], ["cat dog"]),
        ({"of": "水", "at_most": 1}, ["水"], ["水水"]),
    ],
    "letters": [({"of": "e", "at_most": 2}, ["Eve ran"], ["eleven"])],
    "parts": [({"separated_by": "******", "exactly": 2}, ["One.\n******\nTwo."], ["One.", "a******b******c", "one ******"])],
    "paragraph_begins": [
        ({"number": 2, "with": "However"}, ["Yes.\n\nHowever, no."], ["However, no.", "Yes.\nHowever, no.", "However\n\nYes"]),
    ],
    "first_sentence": [
        ({"words": {"at_most": 2}}, ["Of course. It is a long story about a fox."], ["It is a long story. Of course."]),
    ],
    "last_sentence": [({"ends_with": "?"}, ["Go home. Will you?"], ["Will you? Go home."])],
    "any_of": [([{"questions": True}, "json"], ["Why?", "[1]"], ["No."])],
    "not": [({"questions": True}, ["No."], ["Why?"]), ([{"questions": True}, {"words": 1}], ["Why not?"], ["Why?"])],
    "repeats_prompt": [],  # below
}  # fmt: skip
CASES = [
    (word, given, text, expected)
    for word, rows in TABLE.items()
    for given, good, bad in rows
    for texts, expected in ((good, True), (bad, False))
    for text in texts
]


def follows(word: str, given, text: str) -> bool:
    check = Checks.parse({"principle": {word: given}, "antithesis": {"not": {word: given}}}, "file")
    one, other = check.follows(text, True), check.follows(text, False)
    assert not (one and other)
    return one


def test_every_word_is_in_the_table_and_in_the_documentation():
    assert set(TABLE) == set(WORDS)
    section = (Path(__file__).parents[2] / "docs/principles.md").read_text(encoding="utf-8").split("### All words")[1]
    first_cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    assert set(re.findall(r"`(\w+)`", " ".join(first_cells))) == set(WORDS)


@pytest.mark.parametrize(("word", "given", "text", "expected"), CASES)
def test_word(word, given, text, expected):
    assert follows(word, given, text) is expected


@pytest.mark.parametrize(
    ("prompt", "text", "expected"),
    [
        ("What is rain?", "What is rain? Water.", True),
        ("What is rain?", '"what is  RAIN?" Water.', True),
        ("What is rain?", "Rain is water.", False),
        ("", "Water.", False),
    ],
)
def test_a_response_can_repeat_its_prompt(prompt, text, expected):
    check = Checks.parse({"principle": "repeats_prompt", "antithesis": {"repeats_prompt": False}}, "file")
    assert check.follows(text, True, prompt) is expected
    assert check.follows(text, False, prompt) is not expected


@pytest.mark.parametrize("word", ["sentences", "questions", "words"])
def test_a_number_has_two_ends(word):
    text = {"sentences": "I ran. You sat. We ate.", "questions": "A? B? C?", "words": "a b c"}[word]
    found = [
        (follows(word, {"at_least": n}, text), follows(word, {"at_most": n}, text), follows(word, n, text))
        for n in (2, 3, 4)
    ]
    assert found == [(True, False, False), (True, True, True), (False, True, False)]
    assert follows(word, {"at_least": 2, "at_most": 3}, text) and follows(word, True, text)


SHORT = {
    "en": ["Yes, of course.", "Drink more water and sleep early.", "Sure! Here are three ideas for dinner."],
    "fr": ["Oui, bien sûr.", "Buvez plus d'eau et dormez tôt.", "Voici trois idées pour le dîner.", "Bonjour !"],
    "de": ["Ja, natürlich.", "Trinken Sie mehr Wasser.", "Hier sind drei Ideen für das Abendessen."],
    "es": ["Sí, claro.", "Bebe más agua y duerme temprano.", "Aquí tienes tres ideas para la cena."],
    "it": ["Bevi più acqua e dormi presto.", "Ecco tre idee per la cena."],
    "pt": ["Sim, claro.", "Beba mais água e durma cedo.", "Aqui estão três ideias para o jantar."],
    "nl": ["Drink meer water en ga vroeg slapen.", "Hier zijn drie ideeën voor het avondeten."],
    "ja": ["はい、もちろんです。", "水をたくさん飲んで早く寝てください。"],
    "zh": ["当然可以。", "多喝水,早点睡觉。", "你好!"],
    "ru": ["Да, конечно.", "Вот три идеи для ужина."],
    "ko": ["네, 물론입니다."],
    "th": ["ดื่มน้ำมากขึ้นและนอนเร็ว"],
    "ar": ["نعم، بالطبع."],
    "hi": ["अधिक पानी पिएं और जल्दी सोएं।"],
    "": ["", "123 456", "😀", "?!", "https://example.org", "```\ndef f(): pass\n```"],
}


@pytest.mark.parametrize(("code", "text"), [(code, text) for code, texts in SHORT.items() for text in texts])
def test_short_texts_have_their_languages(code, text):
    assert language_of(text) == code


def test_languages_have_names_and_codes():
    assert code_of("FRENCH") == code_of(" fr ") == "fr" and code_of("Klingon") is None
    assert (
        language_of("Dit is 'n lang en moeilike vraag.") in LANGUAGES
    )  # Afrikaans is none of ours: its nearest relative


def test_an_empty_response_follows_neither_side():
    check = Checks.parse({"principle": {"not": {"questions": True}}, "antithesis": {"words": {"at_most": 3}}}, "file")
    for text in ("", " \n", "...", "😀", "\u200b"):
        assert not check.follows(text, True) and not check.follows(text, False)


def test_odd_characters_are_texts_like_others():
    check = Checks.parse({"principle": {"pattern": "a.b", "sentences": 1, "words": 4}, "antithesis": "json"}, "file")
    assert check.follows("a\ud800b x y", True) and check.follows("a\x00b x y\udfff", True)
    assert not check.follows("\ud800" * 10, True)
    assert Reply("e\u0301").plain == "é"


def test_a_response_is_read_up_to_a_length():
    check = Checks.parse({"principle": {"words": {"at_least": 1}}, "antithesis": "json"}, "file")
    assert check.follows("a " * 25_000, True)
    with pytest.raises(UserError, match="a response of 50001 characters; checks read 50000 at most"):
        check.follows("a" * 50_001, True)
