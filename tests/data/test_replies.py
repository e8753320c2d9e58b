"""Replies become the ids that were sampled, as far as these spell the text; else those of the text."""

import dataclasses
import json
from pathlib import Path

import pytest
from support.chat_models import chat_tokenizer
from support.small_model import SMALL

from sami_jax.config import defaults
from sami_jax.data.chat import Chat
from sami_jax.data.fields import BadRow
from sami_jax.data.jsonl import write_jsonl
from sami_jax.data.pairs import encode_pairs, read_pairs
from sami_jax.data.replies import Replies, Reply, sampled_ids, spelt_by
from sami_jax.errors import UserError
from sami_jax.models.pretrained import ModelFolder

TOKENIZER = chat_tokenizer("llama3")
END, TURN, HEADER = (
    TOKENIZER.convert_tokens_to_ids(t) for t in ("<|end_of_text|>", "<|eot_id|>", "<|start_header_id|>")
)
TEXT = "Hello there, my friend. ☕"
USUAL = TOKENIZER.encode(TEXT, add_special_tokens=False)


def by_letters(text: str) -> list[int]:
    """Cut into single bytes, as no tokenizer would; models sample such ids now and then."""
    pieces = TOKENIZER.backend_tokenizer.pre_tokenizer.pre_tokenize_str(text)
    return [TOKENIZER.convert_tokens_to_ids(letter) for piece, _ in pieces for letter in piece]


def replies(scored_end: int | None = TURN, prefix: str = "", chat: bool = True) -> Replies:
    return Replies(TOKENIZER, Chat(TOKENIZER, "here") if chat else None, 320, (END, TURN), scored_end, prefix)


@pytest.mark.parametrize("chat", [True, False])
@pytest.mark.parametrize(
    ("text", "sampled", "expected"),
    [
        (TEXT, [*USUAL, TURN], [*USUAL, TURN]),
        (TEXT, [*by_letters(TEXT), TURN], [*by_letters(TEXT), TURN]),  # not as the tokenizer cuts it
        (TEXT, [*USUAL, END], [*USUAL, END]),  # ended otherwise than the template ends a reply
        (TEXT, [HEADER, *USUAL, HEADER, TURN], [HEADER, *USUAL, HEADER, TURN]),  # a special token, which no text shows
        (TEXT[:-2], [*by_letters(TEXT), END], [*by_letters(TEXT[:-2]), TURN]),  # cut
        (TEXT[:5], [*USUAL, END], [*USUAL[:1], TURN]),
        (TEXT[:3], [*USUAL, END], [*TOKENIZER.encode("Hel", add_special_tokens=False), TURN]),  # cut within a token
        (f"{TEXT}!", [*by_letters(TEXT), TURN], [*TOKENIZER.encode(f"{TEXT}!", add_special_tokens=False), TURN]),  # changed
        (TEXT, [*by_letters("Another text."), TURN], [*USUAL, TURN]),
        (TEXT, [*by_letters(TEXT), 320], [*USUAL, TURN]),  # no token of the model
        (TEXT, [], [*USUAL, TURN]),
    ],
)  # fmt: skip
def test_what_was_sampled_is_what_is_scored(text, sampled, expected, chat):
    assert replies(chat=chat).ids(text, "stop", sampled) == expected
    # An end that was not sampled is scored where the reply ended by itself, as one cut at a stop string did.
    assert replies(chat=chat).ids(text, "length", sampled) in (expected, expected[:-1])
    assert replies(scored_end=None, chat=chat).ids(text, "stop", sampled) == expected[:-1]


def test_an_end_that_was_not_sampled_is_scored_where_the_reply_ended_by_itself():
    ids = by_letters(TEXT)
    assert replies().ids(TEXT, "stop", ids) == [*ids, TURN]
    assert replies().ids(TEXT, "length", ids) == ids


@pytest.mark.parametrize("shape", ["llama3", "mistral"])
def test_primed_words_stand_before_what_was_sampled(shape):
    """Mistral's tokenizer marks spaces at the beginnings of words, and takes that of a text's first word away again."""
    tokenizer = chat_tokenizer(shape)
    model = ModelFolder(Path("here"), SMALL, tokenizer, (END,))
    primed = dataclasses.replace(replies(None, "You can", chat=False), tokenizer=tokenizer)
    before = tokenizer.encode("You can", add_special_tokens=False)
    sampled = tokenizer.encode(" fix the bike", add_special_tokens=False)
    text = "You can" + model.decode(sampled, behind="You can")
    assert text == "You can fix the bike"
    assert (model.decode(sampled) == " fix the bike") is (shape == "llama3")
    assert primed.ids(text, "stop", sampled) == [*before, *sampled]
    assert primed.ids("You can fix it", "stop", sampled) == tokenizer.encode("You can fix it", add_special_tokens=False)


def test_a_count_of_ids_spells_a_text_of_any_letters():
    text = "naïve ☕ 三つ 👩‍🔬!"
    ids = by_letters(text)
    decode = TOKENIZER.decode
    for end in range(len(text) + 1):
        count = spelt_by(decode, ids, text[:end])
        assert count == len(by_letters(text[:end])) and decode(ids[:count]) == text[:end]
    assert spelt_by(decode, ids, "naïve T") is None and spelt_by(decode, [], "a") is None


def test_a_reply_forgets_its_ids_when_it_is_changed():
    reply = Reply(TEXT, USUAL, "stop")
    assert (reply, reply.token_ids) == (TEXT, tuple(USUAL))
    assert (
        not isinstance(reply[1:], Reply) and not isinstance(reply + "", Reply) and not isinstance(reply.strip(), Reply)
    )
    assert json.dumps([reply]) == json.dumps([TEXT])


@pytest.mark.parametrize("wrong", ["a", 1, [1.0], [True], [-1], [2**31], ["1"], [[1]], "[1.5]"])
def test_ids_that_are_none(wrong, tmp_path):
    with pytest.raises(BadRow, match="'token_ids' must be whole numbers"):
        sampled_ids(wrong)
    row = {"query": "a", "constitutions": ["b", "c"], "responses": ["d", "e"], "token_ids": [[1], wrong]}
    write_jsonl(tmp_path / "pairs.jsonl", [row])
    with pytest.raises(UserError, match=r"pairs.jsonl:1: 'token_ids'"):
        read_pairs(tmp_path / "pairs.jsonl", 2)


def test_pairs_with_ids_and_without(tmp_path):
    texts = {
        "query": "a",
        "constitutions": ["b", "c"],
        "responses": [TEXT, "Hello"],
        "finish_reasons": ["stop", "length"],
    }
    ids = [[*by_letters(TEXT), END], by_letters("Bye")]
    rows = [
        texts,
        {**texts, "token_ids": None},
        {**texts, "token_ids": f"[{ids[0]}, null]"},
        {**texts, "token_ids": ids},
    ]
    write_jsonl(tmp_path / "pairs.jsonl", rows)
    prompt = defaults().prompt
    prompt.training = "{constitution} {query}"
    encoded = encode_pairs(read_pairs(tmp_path / "pairs.jsonl", 2), replies(), prompt.training, prompt.max_tokens)
    plain = ((*USUAL, TURN), tuple(TOKENIZER.encode("Hello", add_special_tokens=False)))
    assert [example.responses for example in encoded.examples] == [
        plain,
        plain,
        (tuple(ids[0]), plain[1]),
        (tuple(ids[0]), plain[1]),
    ]
    assert encoded.anew == 1
    with pytest.raises(UserError, match=r"pairs.jsonl:1: 'token_ids' must list those of each response, 2 lists"):
        write_jsonl(tmp_path / "pairs.jsonl", [{**texts, "token_ids": ids[:1]}])
        read_pairs(tmp_path / "pairs.jsonl", 2)
