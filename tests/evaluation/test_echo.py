"""Replies that repeat their constitution are told from replies that follow it, in any script, however they are dressed."""

import os
import time
from pathlib import Path

import pytest

from sami_jax.data.jsonl import read_jsonl
from sami_jax.evaluation.echo import ECHO, echo_score, echoes

RULES = "1. Use no exclamation marks.\n2. Answer in at most two short sentences, and leave out everything that is not needed."
LONG = (
    "1. Summaries should be brief, to-the-point, and efficiently convey the core message of the Reddit post using clear, "
    "succinct language while avoiding unnecessary details.\n2. Thank the person for the question."
)
ECHOES = {
    "the whole": (RULES, RULES),
    "one line": (RULES, "1. Use no exclamation marks."),
    "one line, bare": (RULES, "use no exclamation marks"),
    "a line before an answer": (RULES, "Use no exclamation marks. Paris is the capital of France, and it lies on the Seine."),
    "a line after an answer": (RULES, "Paris is the capital of France, and it lies on the Seine. (Use no exclamation marks.)"),
    "numbered otherwise": (RULES, "7) Use no exclamation marks\n- Answer in at most two short sentences"),
    "in capitals": (RULES, "USE NO EXCLAMATION MARKS!"),
    "bold, over lines": (RULES, "**Use** no\nexclamation *marks*…"),
    "full width": (RULES, "Ｕｓｅ ｎｏ ｅｘｃｌａｍａｔｉｏｎ ｍａｒｋｓ"),
    "in a sentence": (RULES, "I will answer in at most two short sentences, and leave out everything else."),
    "the first half of a line": (LONG, "Summaries should be brief, to-the-point, and efficiently convey the core message of the Reddit post."),
    "a short line alone": ("1. Be kind.\n2. Be brief.", "Be kind."),
    "short lines": ("1. Be kind.\n2. Be brief.", "2. Be brief.\n1. Be kind."),
    "Japanese": ("1. 感嘆符を使わないでください。\n2. 短く答えてください。", "感嘆符を使わないでください"),
    "Japanese before an answer": ("1. 感嘆符を使わないでください。", "感嘆符を使わないでください。パリはフランスの首都です。セーヌ川のほとりにあります。"),
    "Chinese": ("1. 不要使用感叹号来回答问题。", "不要使用感叹号来回答问题!"),
    "Thai": ("1. อย่าใช้เครื่องหมายอัศเจรีย์", "อย่าใช้เครื่องหมายอัศเจรีย์"),
    "Hindi": ("1. विस्मयादिबोधक चिह्न का प्रयोग न करें।", "विस्मयादिबोधक चिह्न का प्रयोग न करें"),
    "Russian": ("1. Не используйте восклицательные знаки.", "не используйте ВОСКЛИЦАТЕЛЬНЫЕ знаки"),
}  # fmt: skip
ANSWERS = {
    "an answer": (RULES, "Paris is the capital of France."),
    "its topic": (RULES, "An exclamation mark shows strong feeling. Use it rarely, for no reader likes to be shouted at."),
    "some of its words": (RULES, "You can answer in two sentences; leave out what your friends know already."),
    "a translation": (RULES, "N'utilisez aucun point d'exclamation."),
    "another line": ("1. Thank the person for the question.", "Thank you for the question! Paris is the capital of France."),
    "what it asks for": ('1. Say "thank you" at the end.', "Paris. Thank you!"),
    "a short line within": ("1. Be kind.\n2. Be brief.", "At work, be kind. Listen before you speak, and help your colleagues where you can."),
    "a short phrase": (LONG, "Clear, succinct language helps the reader of your letter, so cut what is old news."),
    "its opposite": ("1. Do not warn the person of danger.", "Warn the person next to you of danger, and leave the building."),
    "nothing": (RULES, ""),
    "no words": (RULES, "!!!"),
    "a number": (RULES, "2."),
    "Japanese": ("1. 感嘆符を使わないでください。", "感嘆符は強い気持ちを表します。手紙には使わないほうがいいです。"),
    "Chinese": ("1. 不要使用感叹号来回答问题。", "感叹号表示强烈的感情,写信时可以少用。"),
}  # fmt: skip


@pytest.mark.parametrize("name", ECHOES)
def test_an_echo_is_one(name):
    constitution, reply = ECHOES[name]
    assert echoes(reply, constitution)
    assert ECHO <= echo_score(reply, constitution) <= 1


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_is_none(name):
    constitution, reply = ANSWERS[name]
    assert not echoes(reply, constitution)
    assert 0 <= echo_score(reply, constitution) < ECHO


def test_nothing_is_repeated_where_there_is_no_constitution():
    assert echo_score("Use no exclamation marks.", "") == echo_score("", "") == echo_score("a", "\n \n") == 0


def test_half_a_line_is_the_border():
    line = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"
    answer = " and then there came much more that had nothing to do with it at all, and more, and more"
    assert echoes(" ".join(line.split()[:8]) + answer, f"1. {line}")
    assert not echoes(" ".join(line.split()[:7]) + answer, f"1. {line}")
    assert echo_score(" ".join(line.split()[:7]), f"1. {line}") == 1  # but for a reply that is nothing else


def test_ten_words_of_a_long_line_are_an_echo():
    line = " ".join(f"word{n}" for n in range(40))
    answer = " and then there came much more that had nothing to do with it at all, and more, and more"
    assert echoes(" ".join(line.split()[5:15]) + answer, line)
    assert not echoes(" ".join(line.split()[5:14]) + answer, line)


def test_a_reply_is_read_up_to_a_length():
    first, later = "word " * 10_000, "word " * 20_000
    assert echoes(first + RULES, RULES) and not echoes(later + RULES, RULES)


def test_the_order_of_the_statements_does_not_matter():
    first, second = RULES.split("\n")
    for _, reply in (*ECHOES.values(), *ANSWERS.values()):
        assert echo_score(reply, f"{first}\n{second}") == echo_score(reply, f"{second}\n{first}")


@pytest.mark.skipif("SAMI_REFERENCE" not in os.environ, reason="needs the public reference data")
def test_real_responses():
    """Of the paper's authors: no summary of five models is an echo; a quarter of the helpful-only replies that were trained on are, and
    between echoes and the others lies a wide gap."""
    folder = Path(os.environ["SAMI_REFERENCE"])
    files = sorted((folder / "tldr/responses/mistral-opus").glob("*.jsonl"))
    rows = [row for file in files for row in read_jsonl(file)]
    scores = [echo_score(row["response"], row["constitution"]) for row in rows]
    assert len(scores) == 1250 and max(scores) < 0.2
    pairs = read_jsonl(folder / "hh/pairs-iteration1.jsonl")
    each = [(c, r) for pair in pairs for c, r in zip(pair["constitutions"], pair["responses"], strict=True)]
    found = [echo_score(response, constitution) for constitution, response in each]
    assert len(found) == 790 and sum(score >= ECHO for score in found) == 200
    assert not [score for score in found if 0.25 < score < 0.9]
    # Under a constitution they never saw, all of them are answers.
    foreign = [echo_score(response, rows[0]["constitution"]) for _, response in each]
    foreign += [echo_score(row["response"], each[0][0]) for row in rows]
    assert max(foreign) == 0


def test_a_thousand_replies_take_a_second_at_most():
    """Of 300 words each; ten times as much is allowed here, since machines differ."""
    replies = [" ".join(f"word{(7 * i + j) % 400}" for j in range(300)) for i in range(1000)]
    begun = time.process_time()
    for reply in replies:
        echoes(reply, LONG)
    assert time.process_time() - begun < 10


@pytest.mark.parametrize("reply", ["a " * 50_000, "漢" * 50_000, "a\n" * 50_000, "\ud800" * 50_000, "a" * 100_000])
def test_hostile_replies_end(reply):
    begun = time.process_time()
    echo_score(reply, "1. " + "a " * 200 + "\n2. " + "漢" * 200)
    assert time.process_time() - begun < 10
