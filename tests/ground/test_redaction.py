"""Secrets are masked wherever they stand; ordinary text is left alone."""

import json
from urllib.parse import quote, quote_plus

import pytest

from sami_jax.ground.redaction import redact, redacted


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("key sk-proj-abcdefghijklmnop.", "key ***."),
        ("hf_abcdefghijklmnopqrst", "***"),
        ("https://ann:pass@host/v1", "https://***@host/v1"),
        ("http://host/v1?api_key=abc&n=1", "http://host/v1?api_key=***&n=1"),
        ("risk-averse, task-specific; hf_hub; a@b.org", "risk-averse, task-specific; hf_hub; a@b.org"),
    ],
)
def test_what_looks_like_a_secret(text, masked):
    assert redact(text) == masked


@pytest.mark.parametrize(
    "spelled",
    [
        "Illegal header value b'Bearer my-vllm-token-123\\n'",
        "my-vllm-token-123\n",
        '{"key": "my-vllm-token-123"}',
    ],
)
def test_a_key_that_ends_in_a_newline(monkeypatch, spelled):
    """As a mounted secret does."""
    monkeypatch.setenv("OPENAI_API_KEY", "my-vllm-token-123\n")
    assert "my-vllm" not in redact(spelled) and "***" in redact(spelled)


@pytest.mark.parametrize("spell", [repr, json.dumps, quote, quote_plus, str])
def test_a_key_however_it_is_spelled(monkeypatch, spell):
    secret = "p\u00e4ss 'w\"o/rd&\\x=1"
    monkeypatch.setenv("DB_PASSWORD", secret)
    assert redact(f"<{spell(secret)}>").strip("<>\"'") == "***"


def test_values_of_environment_variables_named_like_secrets(monkeypatch):
    monkeypatch.setenv("MY_API_KEY", "correct horse battery")
    monkeypatch.setenv("SHORT_TOKEN", "abc")
    monkeypatch.setenv("MY_KEYBOARD", "qwertyuiop")
    content = {"a": ["with correct horse battery in it", 3, None], "b": "abc qwertyuiop"}
    assert redacted(content) == {"a": ["with *** in it", 3, None], "b": "abc qwertyuiop"}
