"""What a server's answer says, in the shapes that the protocol allows, and why it says nothing."""

import json

import pytest
from support.stand_in_endpoint import said

from sami_jax.ground.server_replies import NoReply, NotOfProtocol, answer_after_thoughts, read_answer, read_reply

THOUGHT = {"type": "thinking", "thinking": [{"type": "text", "text": "Hm. Final Response: B"}]}
IMAGE = {"type": "image_url", "image_url": {"url": "x"}}


def pieces(*deltas: dict, end: str = "data: [DONE]\n\n") -> str:
    """A stream, as some gateways send it whether it was asked for or not."""
    lines = [f"data: {json.dumps({'choices': [{'index': 0, **delta}]})}\n\n" for delta in deltas]
    return ": a comment\n\n" + "".join(lines) + end


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (said("A"), "A"),
        (said("A", finish=None), "A"),
        (said([{"type": "text", "text": "A"}]), "A"),
        (said([THOUGHT, {"type": "text", "text": "So: "}, {"type": "text", "text": "A"}]), "So: A"),
        (said([{"type": "output_text", "text": "A"}, {"type": "refusal", "refusal": "no"}]), "A"),
        (said([IMAGE, {"type": "text", "text": "A"}]), "A"),
        (said("A", reasoning_content="B"), "A"),
        (said("A", finish="tool_calls", tool_calls=[{"id": "1"}]), "A"),
        ({"choices": [{"text": "A", "finish_reason": "stop"}]}, "A"),
        ("\ufeff" + json.dumps(said("A")), "A"),
        (json.dumps(said("A\nB")).replace("\\n", "\n"), "A\nB"),
        (json.dumps(said("#")).replace("#", "\\ud83d A"), "\ufffd A"),
        (pieces({"delta": {"role": "assistant"}}, {"delta": {"content": "A"}}, {"delta": {"content": " B"}}), "A B"),
        (pieces({"delta": {"reasoning": "B"}}, {"delta": {"content": "A"}, "finish_reason": "stop"}, end=""), "A"),
        (pieces({"text": "A"}, {"text": " B"}), "A B"),
    ],
)
def test_text_is_what_counts(answer, text):
    assert read_reply(read_answer(answer if isinstance(answer, str) else json.dumps(answer))) == text


@pytest.mark.parametrize(
    ("answer", "reason", "words"),
    [
        (said("So", finish="length"), "cut off", ""),
        (said(None, finish="length", reasoning_content="Let me think."), "cut off", ""),
        (said("So", finish="MAX_TOKENS"), "cut off", ""),
        (said("So", finish="content_filter"), "withheld by the server's filter", "finish_reason content_filter"),
        (said("So", finish="error"), "broken off by the server", "finish_reason error"),
        ({"choices": [{"error": {"message": "No GPU"}}]}, "broken off by the server", "No GPU"),
        (said(None, refusal="I cannot."), "the model refused", "I cannot."),
        (said([{"type": "refusal", "refusal": "No."}]), "the model refused", "No."),
        (said(None, finish="tool_calls", tool_calls=[{"id": "1"}]), "a call of a tool in place of text", ""),
        (said(None, reasoning_content="B"), "thoughts without an answer", ""),
        (said("", reasoning="B"), "thoughts without an answer", ""),
        (said([THOUGHT]), "thoughts without an answer", ""),
        (said([IMAGE]), "a reply without text", "parts of type image_url"),
        (said(None), "an empty reply", ""),
        (said([]), "an empty reply", ""),
        (said(" \n"), "an empty reply", ""),
        (pieces({"delta": {"content": "Final"}}, end=""), "broken off by the server", "the stream has no end"),
        (pieces({"delta": {"content": "So"}, "finish_reason": "length"}), "cut off", ""),
    ],
)
def test_why_there_is_no_reply(answer, reason, words):
    with pytest.raises(NoReply) as none:
        read_reply(read_answer(answer if isinstance(answer, str) else json.dumps(answer)))
    assert (none.value.reason, none.value.words) == (reason, words)


@pytest.mark.parametrize(
    "answer",
    [
        *(
            "",
            "hello",
            "<html></html>",
            '{"choices": [{',
            "[" * 5000,
            "data: {}\n\n",
            "data: hello\n\n",
            "3",
            "[1]",
            "{}",
        ),
        *('{"choices": null}', '{"choices": []}', '{"choices": [3]}', '{"choices": [{"message": null}]}'),
        *(json.dumps(said(content)) for content in (3, {"text": "A"}, ["A"], [{"type": "text"}])),
        json.dumps(said([{"type": "text", "text": 3}])),
    ],
)
def test_what_is_not_of_the_protocol(answer):
    with pytest.raises(NotOfProtocol):
        read_reply(read_answer(answer))


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("A", "A"),
        ("<think>B</think>A", "A"),
        ("<think>\n<think>B</think> C</think>\nA", "\nA"),
        ("B\n</think>\n\nA", "\n\nA"),
        ("<THINKING>B</THINKING>A", "A"),
        ("[THINK]B[/THINK]A", "A"),
        ("\u25c1think\u25b7B\u25c1/think\u25b7A", "A"),
        ("<think>B", ""),
        (" \n<think>B\nA", ""),
        ("<think></think>", ""),
        ("<|channel|>analysis<|message|>B<|end|><|start|>assistant<|channel|>final<|message|>A<|return|>", "A"),
        ("<|channel|>analysis<|message|>B", ""),
        ("A says <think> and never ends it.", "A says <think> and never ends it."),
        ("I think A.", "I think A."),
    ],
)
def test_thoughts_are_no_answer(text, answer):
    assert answer_after_thoughts(text) == answer
