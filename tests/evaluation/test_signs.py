"""The signs of a collapse: each rule fires on its own sign and on nothing else, on what matters and is no chance."""

import json
import math

import numpy as np
import pytest

from sami_jax.config import REFUSALS, defaults
from sami_jax.evaluation.signs import Signs, fired, refuses, repetition

QUERIES = 32


def spread(share, first=0):
    """[Q, 2]: as many ones in both columns, from query `first` on."""
    ones = np.roll(np.arange(QUERIES) < round(share * QUERIES), first).astype(float)
    return np.stack([ones, ones], axis=1)


BASE = {
    "well_formed": 0.97,
    "tokens": 20.0,
    "repetition": 0.02,
    "refusal": 0.0,
    "echo": 0.0,
    "kept_logprob": -1.0,
    "following": 0.6,
}


def look(update, mi_share=0.1, judge=True, **changed):
    shares = ("well_formed", "refusal", "echo", "following")
    replies = {
        name: spread(value) if name in shares and np.isscalar(value) else np.broadcast_to(value, (QUERIES, 2))
        for name, value in (BASE | changed).items()
        if judge or name != "following"
    }
    return Signs(update, mi_share, replies)


ONE_SIDE = np.stack([np.ones(QUERIES), np.zeros(QUERIES)], axis=1)


@pytest.mark.parametrize(
    ("now", "rules"),
    [
        ({}, []),
        ({"well_formed": 0.85}, []),
        ({"well_formed": 0.6}, ["well_formed: 59% of replies are whole, 97% in the base"]),
        ({"tokens": 51.0}, ["length: replies have 51.0 tokens, 20.0 in the base"]),
        ({"tokens": 7.9}, ["length: replies have 7.9 tokens, 20.0 in the base"]),
        ({"tokens": 49.0}, []),
        ({"repetition": 0.3}, ["repetition: 30% of a reply repeats itself, 2% in the base"]),
        ({"refusal": 0.5}, ["refusal: 50% of replies refuse, under principles and antitheses alike, 0% in the base"]),
        ({"refusal": ONE_SIDE}, []),  # as under a principle of harmlessness, and not under its antithesis
        ({"mi_share": 0.99}, []),
        ({"echo": 0.5}, ["echo: 50% of replies repeat their constitution, 0% in the base"]),
        ({"mi_share": 0.99, "echo": 0.5}, ["echo: ", "saturation: the MI bound is at 99% of its cap while replies that repeat their constitution rose from 0% to 50%"]),
        ({"following": 0.3}, []),
        ({"mi_share": 0.99, "following": 0.3}, ["saturation: the MI bound is at 99% of its cap while following fell from 91% to 31%"]),
        ({"mi_share": 0.99, "kept_logprob": -3.0}, []),  # where a judge finds that principles are followed
        ({"mi_share": 0.99, "judge": False}, []),
        ({"mi_share": 0.99, "judge": False, "kept_logprob": -3.0},
         ["saturation: the MI bound is at 99% of its cap while the base's own replies fell from -1.00 to -3.00 nats a token"]),
        ({"well_formed": 0.1, "tokens": 60.0}, ["well_formed: ", "length: "]),
    ],
)  # fmt: skip
def test_rules(now, rules):
    judge = now.get("judge", True)
    good = {"mi_share": 0.8, "following": 0.9}
    alarms = fired(
        defaults(), [look(0, judge=judge), look(1, judge=judge, **good)], look(2, **({**good, "judge": judge} | now))
    )
    assert len(alarms) == len(rules) and all(a.startswith(r) for a, r in zip(alarms, rules, strict=True)), alarms


def test_what_chance_explains_is_no_alarm():
    """Half of the replies are whole in the base: 19 of 32 against 12 of 32 happens."""
    moved = np.random.default_rng(0).permuted(spread(0.35), axis=0)
    assert spread(0.6).mean() - moved.mean() > defaults().canaries.well_formed_drop
    assert fired(defaults(), [look(0, well_formed=spread(0.6))], look(1, well_formed=moved)) == []


def test_more_looks_ask_for_more():
    config = defaults()
    base, now = look(0, well_formed=spread(0.9)), look(1, well_formed=spread(0.6))
    config.train.updates = (1,)
    assert fired(config, [base], now)
    config.train.updates = (1000,)
    assert not fired(config, [base], now)


def test_repetition_by_hand():
    assert repetition([1, 2, 3, 4, 1, 2, 3, 4]) == pytest.approx(1 / 5)  # runs 1234 2341 3412 4123 1234
    assert repetition([1, 2, 3]) == 0.0 and repetition([7] * 8) == pytest.approx(4 / 5)


@pytest.mark.parametrize(
    "text, refusal",
    [
        ("I'm sorry, but I can't do that.", True),
        ("I\u2019m sorry, but that is private.", True),
        ("  I CANNOT help with that", True),
        ("As an AI, I have no opinion.", True),
        ("申し訳ありませんが、その質問にはお答えできません。", True),
        ("そのご要望にはお答えできません。", True),
        ("抱歉\uff0c我不能回答这个问题。", True),
        ("Es tut mir leid, aber das geht nicht.", True),
        ("I cannot recommend this book enough!", False),
        ("この機能は無料版では使用できません。設定を開いてください。", False),
        ("She said: " + "x" * 80 + " I'm sorry, but I can't help.", False),
        ("Sure, here it is.", False),
        ("", False),
    ],
)
def test_refusals(text, refusal):
    assert refuses(text, REFUSALS) is refusal


class Words:
    def encode(self, text, add_special_tokens):
        return text.split()


def test_signs_of_replies_and_back(tmp_path):
    rows = [
        {"response": "I CANNOT do that", "finish_reason": "stop", "tokens": 4},
        {"response": "a b c d a b c d", "finish_reason": "length", "tokens": 8},
        {"response": " ", "finish_reason": "stop", "tokens": 1},
        {"response": "申し訳ございませんが", "finish_reason": "stop", "tokens": 7},
    ]
    for row in rows:
        row["constitution"] = "1. A b c d a b c."
    metrics = {"mi_posterior_bound": 0.34657}
    kept = np.array([[-1.0, -2.0], [-0.5, -0.5]]) - np.float32(1e-7)
    found = Signs.of(3, metrics, rows, kept, None, Words(), defaults().canaries.refusals)
    assert found.means == pytest.approx(
        {"well_formed": 0.5, "mean_tokens": 5.0, "repetition": 0.05, "echo": 0.25, "refusal": 0.5, "kept_logprob": -1.0, "mi_share": 0.5},
        abs=1e-4,
    )  # fmt: skip
    judged = Signs.of(3, metrics, rows, kept, ([0.5, 1, 1, 1], [True] * 4), Words(), ())
    assert judged.means["well_formed"] == 1.0 and judged.means["following"] == pytest.approx(0.875)
    # Without a verdict, a reply counts for nothing.
    judged = Signs.of(3, metrics, rows, kept, ([0.5, 1, math.nan, 0.0], [True] * 4), Words(), ())
    assert judged.means["following"] == pytest.approx(0.5)
    judged.write(tmp_path / "signs.json")
    again = Signs.read(tmp_path / "signs.json")
    assert again.means == judged.means and again.update == 3


def test_a_look_of_an_earlier_version_is_read(tmp_path):
    """It knew nothing of echoes: a run that is continued takes it that there were none."""
    look(0).write(tmp_path / "signs.json")
    content = json.loads((tmp_path / "signs.json").read_text())
    del content["replies"]["echo"]
    (tmp_path / "signs.json").write_text(json.dumps(content))
    assert fired(defaults(), [Signs.read(tmp_path / "signs.json")], look(1)) == []
