"""Dialogues up to the last turn of the user, in chat messages and in hh-rlhf's text, come to the same query."""

import pytest

from sami_jax.data.dialogue import Message, of_messages, of_text, transcript
from sami_jax.data.fields import BadRow


def chat(*turns: str) -> list[dict]:
    """Messages of "role: content" strings."""
    return [dict(zip(("role", "content"), turn.split(": ", 1), strict=True)) for turn in turns]


DIALOGUES = [
    ("\n\nHuman: Hi?\n\nAssistant: Yes.", chat("user: Hi?", "assistant: Yes."), "Hi?"),
    (
        "\n\nHuman: 質問🙂\n\nwith\n\na paragraph\n\nAssistant: A.\n\nHuman: Why: so?\n\nAssistant: B.\n\nAssistant: C.",
        chat(
            "user: 質問🙂\n\nwith\n\na paragraph", "assistant: A.", "user: Why: so?", "assistant: B.", "assistant: C."
        ),
        "質問🙂\n\nwith\n\na paragraph\n\nAssistant: A.\n\nHuman: Why: so?",
    ),
    ("Human: no blank lines before\n\nAssistant:", chat("user: no blank lines before"), "no blank lines before"),
    ("\n\nHuman: a\n\nHuman: b", chat("user: a", "user: b"), "a\n\nHuman: b"),
]


@pytest.mark.parametrize(("text", "messages", "query"), DIALOGUES)
def test_both_forms_are_the_same_query(text, messages, query):
    turns = of_text(text)
    assert turns == of_messages(messages) and turns[-1].role == "user"
    assert transcript(turns) == query
    # What was taken reads as the beginning of what is there.
    assert text.lstrip().startswith(f"Human: {query}")


def test_a_system_turn_stands_in_front():
    turns = of_messages(
        [{"role": "system", "content": "Be brief.", "name": None}, *chat("user: Hi?", "assistant: Yes.")]
    )
    assert turns == (Message("system", "Be brief."), Message("user", "Hi?"))
    assert transcript(turns) == "Be brief.\n\nHi?"


@pytest.mark.parametrize(
    ("read", "value", "words"),
    [
        (of_text, "What?", "no dialogue of Human: and Assistant: but 'What"),
        (of_text, "Well.\n\nHuman: a", "no dialogue of Human: and Assistant:"),
        (of_text, "\n\nAssistant: a", "a dialogue without a turn of the user"),
        (of_text, "\n\nAssistant: a\n\nHuman: b", "does not begin with a turn of the user"),
        (of_text, "\n\nHuman: \n\nAssistant: a", "a turn of the dialogue has no text"),
        (of_messages, [], "a dialogue without a turn of the user"),
        (of_messages, chat("assistant: a"), "a dialogue without a turn of the user"),
        (of_messages, chat("user: a", "system: b", "user: c"), "does not begin with a turn of the user"),
        (of_messages, chat("user: a", "tool: b"), "role is none of system, user, assistant but 'tool'"),
        (of_messages, [{"role": "user", "content": None}], "a turn of the dialogue has no text"),
        (
            of_messages,
            [{"role": "user", "content": [{"type": "image"}]}],
            "a turn of the dialogue holds more than text",
        ),
        (of_messages, [{"from": "human", "text": "a"}], "a message without role and content, the 1."),
        (of_messages, [{"from": "tool", "value": "a"}], "role is none of system, user, assistant but 'tool'"),
        (of_messages, ["Hi"], "a message without role and content, the 1."),
    ],
)
def test_what_is_no_dialogue_is_told(read, value, words):
    with pytest.raises(BadRow, match=words):
        read(value)
