"""Secrets are masked wherever they stand; ordinary text is left alone."""

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


def test_values_of_environment_variables_named_like_secrets(monkeypatch):
    monkeypatch.setenv("MY_API_KEY", "correct horse battery")
    monkeypatch.setenv("SHORT_TOKEN", "abc")
    monkeypatch.setenv("MY_KEYBOARD", "qwertyuiop")
    content = {"a": ["with correct horse battery in it", 3, None], "b": "abc qwertyuiop"}
    assert redacted(content) == {"a": ["with *** in it", 3, None], "b": "abc qwertyuiop"}
