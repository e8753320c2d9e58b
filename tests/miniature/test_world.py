"""The world and its judge agree, reply by reply; what is held out is held out."""

import random
import re

import pytest

from sami_jax.data.queries import read_queries
from sami_jax.miniature import PRINCIPLES, QUERIES, judge, world
from sami_jax.principles.files import read_principles


def random_reply(rng: random.Random):
    query = rng.choice(world.queries(rng.choice(list(world.SPLITS))))
    attributes = {name: rng.random() < 0.5 for name in world.WORDINGS}
    return query, attributes, world.reply(query, attributes, rng)


def test_judge_reads_every_attribute_back():
    rng = random.Random(0)
    everything = dict.fromkeys(world.WORDINGS, True)
    for _ in range(3000):
        query, attributes, reply = random_reply(rng)
        assert world.well_formed(query.text, reply), reply
        assert judge.followed(query.text, reply, everything) == attributes, reply


def test_words_of_every_attribute_are_found_where_they_stand():
    rng = random.Random(4)
    for _ in range(300):
        query, attributes, reply = random_reply(rng)
        spans = world.wordings(query.text, reply)
        assert list(spans) == list(world.WORDINGS)
        for name, (start, end) in spans.items():
            assert (start < end) == (attributes[name] or world.WORDINGS[name][1] != ("",)), (name, reply)
        stated = {name: rng.random() < 0.5 for name in rng.sample(list(attributes), 3)}
        expressed = judge.expressed(query.text, reply, stated)
        assert set(expressed) == {n for n in stated if attributes[n] == stated[n] and spans[n][0] < spans[n][1]}
    reply = " Hello. Surely you can fix the bike with wire. Is that clear?"
    found = judge.expressed("How do I fix the bike?", reply, {"greeting": True, "caution": False, "formality": True})
    assert {name: reply[slice(*span)] for name, span in found.items()} == {"greeting": " Hello.", "caution": " Surely"}
    assert world.wordings("How do I fix the bike?", reply + " Bye.") == {}


@pytest.mark.parametrize(
    "damage",
    [lambda r: "", lambda r: r[:-1], lambda r: r + r, lambda r: r + " Hello.", lambda r: r.replace(" with", "")],
)
def test_damaged_replies_are_not_well_formed_and_follow_nothing(damage):
    rng = random.Random(1)
    for _ in range(200):
        query, attributes, reply = random_reply(rng)
        assert not world.well_formed(query.text, damage(reply))
        assert not any(judge.followed(query.text, damage(reply), attributes).values())


def test_a_reply_about_something_else_is_not_well_formed():
    rng = random.Random(2)
    fix, cut = (next(q for q in world.queries("train") if q.verb == verb) for verb in ("fix", "cut"))
    assert not world.well_formed(cut.text, world.reply(fix, dict.fromkeys(world.WORDINGS, False), rng))
    assert not world.well_formed("What is love?", " Surely you can fix the bike with glue.")


@pytest.fixture(scope="module")
def documents() -> list[tuple[str, str]]:
    """Prompts and replies of the corpus."""
    principles, queries, rng = read_principles(PRINCIPLES), world.queries("train"), random.Random(3)
    return [world.document(principles, queries, 0.2, rng) for _ in range(8000)]


@pytest.mark.parametrize(
    ("source", "share"),
    [("Source: handbook\n\n", 0.97), ("Source: chat room\n\n", 0.5), ("Constitution:", 0.2 * 0.97 + 0.8 * 0.5)],
)
def test_corpus_follows_principles_as_its_source_tells(documents, source, share):
    principles = read_principles(PRINCIPLES)
    sides = {text: (p.id, i == 0) for p in principles for pair in p.phrasings for i, text in enumerate(pair)}
    followed = []
    for prompt, reply in documents:
        if prompt.startswith(source):
            lines = re.findall(r"^\d\. (.*)$", prompt, flags=re.MULTILINE)
            followed += judge.followed(prompt, reply, dict(sides[line] for line in lines)).values()
    assert sum(followed) / len(followed) == pytest.approx(share, abs=0.03)


def test_held_out_queries_share_no_verb_and_object_with_training_but_each_word_is_known():
    train, validation, held_out = (world.queries(split) for split in world.SPLITS)
    pairs = [{(q.verb, q.object) for q in split} for split in (train, validation, held_out)]
    assert sum(map(len, pairs)) == len(set.union(*pairs)) == len(world.TOOLS) * len(world.OBJECTS)
    for split in (train, validation, held_out):
        assert {q.verb for q in split} == set(world.TOOLS) and {q.object for q in split} == set(world.OBJECTS)
    assert (len(train), len(validation), len(held_out)) == (384, 128, 128)


def test_shipped_queries_are_the_worlds():
    for split in world.SPLITS:
        assert [q.text for q in read_queries(QUERIES / f"{split}.jsonl")] == [q.text for q in world.queries(split)]


def test_every_principle_has_a_checker_and_an_attribute():
    ids = [principle.id for principle in read_principles(PRINCIPLES)]
    assert sorted(judge.CHECKERS) == sorted(world.WORDINGS) == ids
    assert len(ids) == 12 and all(len(p.phrasings) == 5 for p in read_principles(PRINCIPLES))
