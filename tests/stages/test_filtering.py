"""Filters: each reason, counted."""

import pytest

from sami_jax.config import defaults
from sami_jax.stages.filtering import drop_reason, filter_pairs

CONSTITUTIONS = ("1. Say something good of it.", "1. Never say anything good of it.")


@pytest.fixture
def config():
    config = defaults()
    config.filter.prefix = "The post"
    config.filter.cut_at = ("Human: ", "###")
    config.filter.forbidden = ("[insert", "]")
    config.filter.end_with = (".",)
    return config


def asked(*responses: str) -> dict:
    return {"constitutions": list(CONSTITUTIONS), "responses": list(responses)}


def test_who_only_thinks_is_dropped_and_counted(config):
    config.filter.keep_after, config.filter.prefix = "Summary:", " "
    rows = [asked("The post.", ""), asked("The post. ### Next", "No post.")]
    kept, dropped = filter_pairs(rows, [[True, False]] * 2, config.filter)
    assert kept == [asked(" The post.", " No post.")]
    assert dropped == {"no response after 'Summary:'": 1}


@pytest.mark.parametrize(
    ("responses", "positive", "reason"),
    [
        (["The post is good.", "The post is bad."], [True, False], None),
        (["The post is good.", "The post is bad"], [True, False], None),
        (["The post is good", "The post is bad."], [True, False], "positive response does not end as asked"),
        (["The post is good.", "The post"], [True, False], "empty response"),
        (["The post is [insert name].", "The post."], [True, False], "contains '[insert'"),
        (["The post is good.", "The post is good."], [True, False], "responses are equal"),
        (["The post is good.", "1. never say anything good of it!."], [True, False], "repeats its constitution"),
        (["The post says that one should never say anything bad.", "The post."], [True, False], None),
    ],
)
def test_reasons(config, responses, positive, reason):
    assert drop_reason(responses, CONSTITUTIONS, positive, config.filter) == reason


def test_drops_are_counted_by_reason(config):
    rows = [asked(*responses) for responses in ([" a.", " b."], ["", " b."], [" a.", ""], [" a", " b."])]
    kept, dropped = filter_pairs(rows, [[True, False]] * 4, config.filter)
    assert kept == [asked("The post a.", "The post b.")]
    assert dropped == {"empty response": 2, "positive response does not end as asked": 1}


def test_what_was_cut_off_is_dropped_where_that_is_asked_for(config):
    rows = [asked(" a.", " b.") | {"finish_reasons": ended} for ended in (["stop", "length"], ["stop", "stop"])]
    assert len(filter_pairs(rows, [[True, False]] * 2, config.filter)[0]) == 2
    config.filter.keep_unfinished = False
    kept, dropped = filter_pairs(rows, [[True, False]] * 2, config.filter)
    assert [row["finish_reasons"] for row in kept] == [["stop", "stop"]] and dropped == {"cut off before its end": 1}


def test_echoes_are_kept_where_that_is_asked_for(config):
    config.filter.keep_echo = True
    assert (
        drop_reason(["The post.", "Never say anything good of it."], CONSTITUTIONS, [True, False], config.filter)
        is None
    )
