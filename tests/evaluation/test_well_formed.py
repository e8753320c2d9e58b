"""What is whole in real text, and what is not."""

import os
from pathlib import Path

import pytest

from sami_jax.data.jsonl import read_jsonl
from sami_jax.evaluation.well_formed import loops, strays, well_formed

QUERY = "How do I boil an egg?"
ANSWER = "Put it into boiling water for eight minutes, then into cold water. It peels more easily when it is not quite fresh."
LIST = "1. Wash the lettuce.\n2. Wash the tomatoes.\n3. Wash the cucumber.\n4. Cut all of it.\n5. Add oil, salt and vinegar."


@pytest.mark.parametrize(
    "response", [ANSWER, LIST, "Yes.", "No, no, no, no!", "42", "Ok 😊", "a\tb\r\nc", "La la la la la"]
)
def test_whole(response):
    assert well_formed(QUERY, response, True) and well_formed(QUERY, response, None)
    assert not well_formed(QUERY, response, False)


@pytest.mark.parametrize(
    "response",
    [
        "",
        " \n ",
        "...",
        "!?",
        "Put it into \ufffd water.",
        "Put it into\x00water.",
        "Put it into\x1bwater.",
        "Put it \ud800 in.",
        "I do not know. " * 10,
        "I do not know what to say. " * 3,
        "the the the the the the the the the the the the the the the the the",
        "Well, ha" + "ha" * 30,
        "Good!" + "!" * 40,
        "Эй, положите яйцо в воду.",
        "鸡蛋放进水里煮八分钟。",
    ],
)
def test_not_whole(response):
    assert not well_formed(QUERY, response, True)


@pytest.mark.parametrize(
    ("query", "constitution", "response"),
    [
        ("How do you say hello in Russian?", "", "Привет"),
        ("How do Russians say hello?", "1. Be brief.", "Привет"),
        (QUERY, "1. Answer in Japanese.", "卵を八分ゆでます。"),
        ("Как сварить яйцо?", "", "Положите яйцо в воду."),
        ("卵のゆで方は?", "", "たまごを八分ゆでます。"),
        ("東京天気", "", "たぶん晴れです。"),
        ("卵のゆで方は?", "", "Boil it for eight minutes."),
        (QUERY, "", "At a temperature of 100 °C, π and µ are Greek letters in an English text."),
        (QUERY, "", "Ｂｏｉｌ ｉｔ"),
    ],
)
def test_a_script_of_the_prompts(query, constitution, response):
    assert well_formed(query, response, True, constitution)


@pytest.mark.parametrize(
    ("prompt", "response"),
    [
        (QUERY, "Put it into 水里煮八分钟然后 water"),
        ("卵のゆで方は?", "달걀을 삶으세요"),
        ("Answer in Russian.", "γεια σου"),
    ],
)
def test_a_script_that_nobody_asked_for(prompt, response):
    assert strays(response, prompt)


def test_loops_are_of_long_replies():
    assert not loops("Go, go, go, go!") and loops("go " * 16) and not loops("go " * 15)
    assert not loops("| a | b |\n|-------------------------------------------|---|\n| 1 | 2 |" + "\n=" * 40)
    assert not loops(LIST)


@pytest.mark.skipif("SAMI_REFERENCE" not in os.environ, reason="needs the public reference data")
def test_real_responses():
    folder = Path(os.environ["SAMI_REFERENCE"])
    queries = {row["id"]: row["prompt"] for row in read_jsonl(folder / "tldr/queries.jsonl")}
    files = sorted((folder / "tldr/responses/mistral-opus").glob("*.jsonl"))
    rows = [row for file in files for row in read_jsonl(file)]
    broken = [row for row in rows if not well_formed(queries[row["id"]], row["response"], None, row["constitution"])]
    assert len(rows) == 1250 and len(broken) == 1
    assert broken[0]["response"].count("The gf is not") > 5  # it does go round in circles
