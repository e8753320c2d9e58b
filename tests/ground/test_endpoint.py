"""What a server's message says, in the shapes that the protocol allows."""

import pytest

from sami_jax.ground.endpoint import Endpoint, _text

THOUGHT = {"type": "thinking", "thinking": [{"type": "text", "text": "Hm. Final Response: B"}]}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("A", "A"),
        (None, ""),
        ([], ""),
        ([{"type": "text", "text": "A"}], "A"),
        ([THOUGHT, {"type": "text", "text": "So: "}, {"type": "text", "text": "A"}], "So: A"),
        ([{"type": "output_text", "text": "A"}, {"type": "refusal", "refusal": "no"}], "A"),
        ([THOUGHT], ""),
    ],
)
def test_text_is_what_counts(content, said):
    assert _text(content) == said


@pytest.mark.parametrize("content", [3, {"text": "A"}, ["A"], [{"type": "text"}], [{"type": "text", "text": 3}]])
def test_what_is_no_text_is_not_of_the_protocol(content):
    with pytest.raises((TypeError, AttributeError, LookupError)):
        _text(content)


def test_white_space_around_a_key_is_dropped(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", " my-vllm-token-123\n")
    assert Endpoint("http://localhost:1/v1", "m")._client.api_key == "my-vllm-token-123"
