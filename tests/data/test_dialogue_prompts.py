"""Queries that are dialogues: turns of a chat, or one text; in both, what is too long loses its oldest turns first."""

import json

import pytest
from support.chat_models import SHAPES, chat_tokenizer

from sami_jax.config import defaults
from sami_jax.data.chat import Chat
from sami_jax.data.dialogue import Message
from sami_jax.data.jsonl import write_jsonl
from sami_jax.data.pairs import encode_pairs, read_pairs
from sami_jax.data.queries import read_queries
from sami_jax.data.replies import Replies
from sami_jax.data.templates import encode_prompt
from sami_jax.errors import UserError
from sami_jax.evaluation.explain import read_answers

SYSTEM = "Your reply follows this constitution:\n{constitution}"
STATED = SYSTEM.replace("{constitution}", "1. Say hello first.")
TEMPLATE = "1:\n{constitution}\n\nHuman: {query}\n\nAssistant:"
TURNS = (
    Message("user", "Can you fix the chair?"),
    Message("assistant", "Perhaps."),
    Message("user", "How do I clean it?"),
    Message("assistant", "With a hammer."),
    Message("user", "Hello? How?"),
)
NEVER = 10_000  # tokens


def rendered(tokenizer, turns, system: str | None) -> list[int]:
    """What transformers makes of the conversation, of a model that has no system's role for Gemma."""
    said = [{"role": turn.role, "content": turn.content} for turn in turns]
    if system and "System role not supported" in tokenizer.chat_template:
        said[0]["content"] = f"{system}\n\n{said[0]['content']}"
    elif system:
        said = [{"role": "system", "content": system}, *said]
    return tokenizer.apply_chat_template(said, add_generation_prompt=True, return_dict=False)


@pytest.mark.parametrize("shape", SHAPES)
def test_in_a_chat_turns_stay_turns(shape):
    tokenizer = chat_tokenizer(shape)
    chat = Chat(tokenizer, shape, SYSTEM)

    def prompt(most: int, turns=TURNS) -> tuple[list[int], int]:
        return encode_prompt(tokenizer, "{query}", "1. Say hello first.", "unused", most, chat, turns)

    whole, _ = prompt(NEVER)
    assert whole == rendered(tokenizer, TURNS, STATED)
    # Of what is too long, the oldest question goes first, with its reply; then the last one's end.
    for oldest in (2, 4):
        left = rendered(tokenizer, TURNS[oldest:], STATED)
        assert prompt(len(left)) == (left, len(whole) - len(left))
    shorter, lost = prompt(len(left) - 2)
    assert len(shorter) <= len(left) - 2 and lost == len(whole) - len(shorter)
    with pytest.raises(UserError, match="template and constitution alone take"):
        prompt(3)
    # What the data's system says stands behind ours, and neighbours of one role are one turn.
    odd = (Message("system", "Be brief."), TURNS[0], *TURNS)
    merged = (Message("user", f"{TURNS[0].content}\n\n{TURNS[0].content}"), *TURNS[1:])
    assert prompt(NEVER, odd)[0] == rendered(tokenizer, merged, f"{STATED}\n\nBe brief.")


def test_without_a_chat_they_are_one_text():
    tokenizer = chat_tokenizer("llama3")

    def prompt(most: int) -> tuple[list[int], int]:
        return encode_prompt(tokenizer, TEMPLATE, "1. Say hello first.", "unused", most, None, TURNS)

    text = (
        "Can you fix the chair?\n\nAssistant: Perhaps.\n\nHuman: How do I clean it?\n\nAssistant: With a hammer.\n\n"
        "Human: Hello? How?"
    )
    whole = tokenizer.encode(TEMPLATE.replace("{constitution}", "1. Say hello first.").replace("{query}", text))
    assert prompt(NEVER) == (whole, 0)
    rest = text.split("Human: ", 1)[1]
    left = tokenizer.encode(TEMPLATE.replace("{constitution}", "1. Say hello first.").replace("{query}", rest))
    assert prompt(len(whole) - 1) == (left, len(whole) - len(left))


def test_turns_go_with_their_query_from_file_to_file(tmp_path):
    """From the data to pairs and responses, and from those to token ids."""
    dialogue = [{"role": turn.role, "content": turn.content} for turn in TURNS]
    write_jsonl(tmp_path / "q.jsonl", [{"messages": dialogue}, {"messages": dialogue[:1]}])
    several, one = read_queries(tmp_path / "q.jsonl")
    assert several.row["turns"] == dialogue and "turns" not in one.row
    texts = {"constitutions": ["1. Say hello first.", "1. Be calm."], "responses": ["Hello!", "You can."]}
    write_jsonl(tmp_path / "p.jsonl", [{"id": query.id, **query.row, **texts} for query in (several, one)])
    rows = read_pairs(tmp_path / "p.jsonl", 2)
    tokenizer = chat_tokenizer("qwen")
    prompt = defaults().prompt
    prompt.training = "{query}"
    replies = Replies(tokenizer, Chat(tokenizer, "qwen", SYSTEM), len(tokenizer), (), None)
    encoded = encode_pairs(rows, replies, prompt.training, prompt.max_tokens)
    examples = encoded.examples
    assert examples[0].prompts[0] == tuple(rendered(tokenizer, TURNS, STATED)) and encoded.cut == 0
    assert examples[1].prompts[0] == tuple(rendered(tokenizer, TURNS[:1], STATED))
    answers = [
        {"id": several.id, **several.row, "constitution": constitution, "response": response}
        for constitution, response in zip(*texts.values(), strict=True)
    ]
    write_jsonl(tmp_path / "a.jsonl", answers)
    assert [answer.turns for answer in read_answers(tmp_path / "a.jsonl", defaults().filter)] == [TURNS, TURNS]


@pytest.mark.parametrize(
    ("turns", "words"),
    [
        ("Hi", "'turns' must be a list of messages"),
        (
            [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
            "'turns' must end with a turn of the user",
        ),
        ([{"role": "user"}], "a message without role and content"),
    ],
)
def test_turns_of_pairs_are_checked(tmp_path, turns, words):
    row = {"query": "a", "constitutions": ["1. A.", "1. B."], "responses": ["x", "y"], "turns": turns}
    (tmp_path / "p.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(UserError, match=rf"p.jsonl:1: {words}"):
        read_pairs(tmp_path / "p.jsonl", 2)
