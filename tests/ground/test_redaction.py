"""Secrets are masked wherever they stand; ordinary text is left alone."""

import base64
import html
import json
import re
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
        ("https://ann:p@ss@host/v1, a@b.org", "https://***@host/v1, a@b.org"),
        ("ssh://git@github.com/a, https://ann@host", "ssh://git@github.com/a, https://ann@host"),
        ("https://0123456789abcdef@host", "https://***@host"),
        (
            "http://host/?sort_key=name&key=a1b2c3d4#access_token=abc",
            "http://host/?sort_key=name&key=***#access_token=***",
        ),
        ("http://host/?X-Amz-Signature=abc&monkey=b", "http://host/?X-Amz-Signature=***&monkey=b"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.dozjgNryP4J3jVmN", "***"),
        ("a -----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY----- b", "a *** b"),
        (
            "sk-learn-contributions, hf_hub_download_all, sk-no-key-required",
            "sk-learn-contributions, hf_hub_download_all, sk-no-key-required",
        ),
        ("sk-..., **bold**, and so on...", "sk-..., **bold**, and so on..."),
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


def twice(secret: str) -> str:
    return json.dumps(json.dumps(secret))


def in_bytes(secret: str) -> str:
    return repr(secret.encode())[1:]


def in_small_hex(secret: str) -> str:
    return re.sub("%..", lambda found: found[0].lower(), quote(secret, safe=""))


def in_ascii(secret: str) -> str:
    return json.dumps(secret, ensure_ascii=False)


def wrapped(secret: str) -> str:
    return secret.replace(" ", "\n    ")


def encoded(secret: str) -> str:
    return base64.b64encode(f"ann:{secret}".encode()).decode()


def encoded_for_addresses(secret: str) -> str:
    return base64.urlsafe_b64encode(f"a:{secret}!".encode()).decode()


SPELLINGS = [
    repr,
    ascii,
    json.dumps,
    in_ascii,
    twice,
    in_bytes,
    quote,
    quote_plus,
    in_small_hex,
    html.escape,
    wrapped,
    encoded,
]


@pytest.mark.parametrize("spell", [*SPELLINGS, encoded_for_addresses, str])
def test_a_key_however_it_is_spelled(monkeypatch, spell):
    secret = "p\u00e4ss 'w\"o/rd&\\x=1"
    monkeypatch.setenv("DB_PASSWORD", secret)
    assert redact(f"<{spell(secret)}>").strip("<>\"'\\") == "***"


@pytest.mark.parametrize(
    "value",
    ["anything", "password", "EMPTY", "not-needed", "sk-no-key-required", "lm-studio", "ChangeMe", "12345678", "xxxxxxxxxxxx", "short", "sunshine", "super-secret", "internationalization", "\u4e01\u5be7\u306b\u8a71\u3057\u3066\u304f\u3060\u3055\u3044", "/usr/bin/env"],
)  # fmt: skip
def test_what_cannot_be_a_secret_is_not_masked(monkeypatch, value):
    for name in ("OPENAI_API_KEY", "DB_PASSWORD", "MAX_TOKENS"):
        monkeypatch.setenv(name, value)
    text = f"Never ask {value}. Do not promise {value}{value}."
    assert redact(text) == text and redacted({value: [value]}) == {value: [value]}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OPENAI_API_KEY", "my-vllm-token-123"),
        ("JUDGE_KEY_2", "sk-1234567"),
        ("API_KEY_PROD", "abcdefghijklmnop"),
        ("PGPASSWORD", "hunter2hunter"),
        ("DB_PASS", "xKjhGfdSaPoIuYtR"),
        ("MYSQL_PWD", "correct-horse-battery-staple"),
        ("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"),
        ("HF_TOKEN", '"hf_Ab1Cd2Ef3"'),
    ],
)
def test_what_may_be_one_is_masked(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    assert redact(f"It is {value.strip(chr(34))}.") == "It is ***."


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "DATABASE_URL"])
def test_the_password_of_an_address_in_the_environment(monkeypatch, name):
    monkeypatch.setenv(name, "http://ann:pr0xy%40pass@host:3128/")
    assert redact("407 for pr0xy%40pass, that is pr0xy@pass") == "407 for ***, that is ***"


def test_a_key_of_many_lines(monkeypatch):
    monkeypatch.setenv("TLS_PRIVATE_KEY", "first0line0of0the0key\nsecond0line0of0the0key\n")
    assert redact("at second0line0of0the0key, and first0line0of0the0key second0line0of0the0key") == "at ***, and ***"


@pytest.mark.parametrize(
    "rest", ["my-vllm-*****", "my-v***-123", "****-123", "my-vllm-tok\u2026", "my-vllm-token", "vllm-token-123"]
)
def test_what_others_left_of_a_key(monkeypatch, rest):
    monkeypatch.setenv("OPENAI_API_KEY", "my-vllm-token-123")
    found = redact(f"Wrong key {rest} was given")
    assert "***" in found and "vllm" not in found and "123" not in found


def test_values_of_environment_variables_named_like_secrets(monkeypatch):
    monkeypatch.setenv("MY_API_KEY", "correct horse battery")
    monkeypatch.setenv("SHORT_TOKEN", "abc")
    monkeypatch.setenv("MY_KEYBOARD", "qwertyuiop")
    content = {"a": ["with correct horse battery in it", 3, None], "b": "abc qwertyuiop"}
    assert redacted(content) == {"a": ["with *** in it", 3, None], "b": "abc qwertyuiop"}
