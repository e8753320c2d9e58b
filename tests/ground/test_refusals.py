"""What servers say when they refuse: their words, and the option that these are about. Each shape is one that servers have sent."""

import json

import pytest

from sami_jax.ground.endpoint import OPTIONAL
from sami_jax.ground.refusals import error_in, read_refusal

SENT = {"temperature": 0.0, "max_tokens": 400, "seed": 0}
FORBIDDEN = (
    "[{'type': 'extra_forbidden', 'loc': ('body', 'seed'), 'msg': 'Extra inputs are not permitted', 'input': 0}]"
)
CONTEXT = "This model's maximum context length is 2048 tokens. However, you requested 2400 tokens (2000 in the messages, 400 in the completion)."


@pytest.mark.parametrize(
    ("answer", "words", "option"),
    [
        ({"error": {"message": "Unsupported parameter: it is not supported.", "param": "max_tokens"}}, "Unsupported parameter: it is not supported.", "max_tokens"),
        ({"error": {"message": "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.", "param": None}}, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.", "max_tokens"),
        ({"error": {"message": "'temperature' does not support 0.0 with this model. Only the default (1) value is supported.", "param": "temperature"}}, "'temperature' does not support 0.0 with this model. Only the default (1) value is supported.", "temperature"),
        ({"error": "unknown field \"seed\""}, 'unknown field "seed"', "seed"),
        ({"detail": [{"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "Extra inputs are not permitted"}]}, "body.seed: Extra inputs are not permitted", "seed"),
        ({"object": "error", "message": FORBIDDEN, "param": None, "code": 400}, FORBIDDEN, "seed"),
        ({"object": "error", "message": {"detail": [{"loc": ["body", "seed"], "msg": "no"}]}}, "body.seed: no", "seed"),
        ({"title": "Unprocessable Entity", "detail": "body -> temperature\n  Extra inputs are not permitted"}, "body -> temperature Extra inputs are not permitted", "temperature"),
        ({"message": "litellm.UnsupportedParamsError: m does not support parameters: ['seed']"}, "litellm.UnsupportedParamsError: m does not support parameters: ['seed']", "seed"),
        ({"error": "Input validation error: `temperature` must be strictly positive"}, "Input validation error: `temperature` must be strictly positive", "temperature"),
        ({"errors": ["Extra inputs are not permitted"]}, "Extra inputs are not permitted", "seed"),
        ("Unrecognized request argument supplied", "Unrecognized request argument supplied", "seed"),
        ("<html><head><title>400</title></head><body>Bad &amp; wrong</body></html>", "400 Bad & wrong", None),
        ("", "", None),
        ({}, "", None),
        ({"error": {"message": "no"}}, "no", None),
        ({"error": {"message": CONTEXT, "param": "messages", "code": "context_length_exceeded"}}, CONTEXT, None),
        ({"object": "error", "message": "'max_tokens' is too large: 400. " + CONTEXT, "param": "max_tokens"}, "'max_tokens' is too large: 400. " + CONTEXT, None),
        ({"error": {"message": "max_tokens is too large: 400. This model supports at most 100 tokens.", "param": "max_tokens"}}, "max_tokens is too large: 400. This model supports at most 100 tokens.", None),
        ({"detail": [{"loc": ["body", "messages", 0, "content"], "msg": "no", "input": "What seed and temperature?"}]}, "body.messages.0.content: no", None),
    ],
)  # fmt: skip
def test_words_and_the_option_they_are_about(answer, words, option):
    refusal = read_refusal(answer if isinstance(answer, str) else json.dumps(answer))
    assert refusal.words == words
    assert refusal.unknown_option(SENT, OPTIONAL) == option


def test_what_is_not_sent_is_not_left_out():
    refusal = read_refusal(json.dumps({"error": {"message": "unknown parameter", "param": "seed"}}))
    assert refusal.unknown_option({"max_tokens": 400}, OPTIONAL) is None


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        ({"error": {"message": "overloaded"}}, True),
        ({"object": "error", "message": "overloaded"}, True),
        ({"detail": "Not Found"}, True),
        ({"choices": [{"message": {"content": "A"}}], "error": None}, False),
        ({"choices": []}, False),
        ([], False),
    ],
)
def test_an_error_with_status_200(content, wrong):
    assert error_in(content) is wrong
