"""Keeps secrets out of everything that is written or shown, and leaves everything else as it is."""

import re
from collections.abc import Sequence
from typing import Any

from sami_jax.ground import credentials

MASK = "***"
# What looks like a key wherever it stands: well-known prefixes, tokens and keys that say what they are, credentials inside a URL.
_PREFIXED = re.compile(r"\b(?:sk-|hf_|gh[pousr]_|github_pat_|glpat-|xox[abprs]-|AKIA|AIza)([\w-]{12,})")
_TOKEN = re.compile(r"\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*")
_PRIVATE = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|$)", re.DOTALL)
_QUERY = re.compile(
    r"(?i)([?&#][\w.-]*?(?:(api_?key|access_token|auth_token|secret|password|passwd|pwd|signature)|key|token|sig|credential)=)"
    r"([^&#\s\"']+)"
)
_ALPHABET = r"[A-Za-z0-9+/_=-]*"  # of Base64
# What others leave of a key that they mask or shorten.
_REMAINS = re.compile(r"(?<![\w.-])([\w.-]*)(?:\*{3,}|\u2022{2,}|\u2026|\.{3})([\w-]*)")
_MARKS = ("***", "\u2022", "\u2026", "...")
_END = 12  # characters of a key that was cut off
_PUBLIC = re.compile(r"sk-(?:proj-|ant-|or-)?|hf_|gh[pousr]_|AKIA|AIza")


def redact(text: str, *own: str) -> str:
    """The text with every secret replaced by ***: those of `credentials.known`, however they are spelled, and what looks like one.

    Args:
      own: masked as words too, though they look like ordinary text: what was sent to the server whose words these are.
    """
    secrets = credentials.known()
    for secret in secrets:
        text = _without(text, secret)
    text = _without_remains(text, [*secrets, *own])
    for word in own:
        text = re.sub(rf"(?<!\w){re.escape(word)}(?!\w)", MASK, text)
    text = _PREFIXED.sub(lambda found: MASK if credentials.ordinary_words(found[1]) is None else found[0], text)
    text = _QUERY.sub(_parameter, _TOKEN.sub(MASK, _PRIVATE.sub(MASK, text)))
    return credentials.LOGIN.sub(_login, text)


def public_address(url: str) -> str:
    """An address without its login and keys, the same whatever else is secret: a server's name in what is kept."""
    return _QUERY.sub(rf"\1{MASK}", credentials.LOGIN.sub(MASK, url))


def _parameter(found: re.Match) -> str:
    """Of an address: ?sort_key=name is no secret, ?api_key=name is."""
    return found[1] + MASK if found[2] or credentials.ordinary_words(found[3]) is None else found[0]


def _login(found: re.Match) -> str:
    """A user alone is no secret, unless it is a token."""
    return MASK if ":" in found[0] or credentials.is_secret(found[0]) else found[0]


def _without(text: str, secret: str) -> str:
    text = text.replace(secret, MASK)
    if any(mark in text for mark in "\\%&") or any(map(str.isspace, secret)):
        text = credentials.spelled(secret).sub(MASK, text)
    for core in credentials.encoded(secret):
        if core in text:
            text = re.sub(f"{_ALPHABET}{re.escape(core)}{_ALPHABET}", MASK, text)
    return text


def _without_remains(text: str, secrets: Sequence[str]) -> str:
    """Without the ends of a key that somebody else masked, or cut off."""
    for secret in secrets:
        if len(secret) >= _END + 4 and not any(map(str.isspace, secret)):
            head, tail = secret[:_END], secret[-_END:]
            if head in text or tail in text:
                text = re.sub(rf"{re.escape(head)}[\w-]*|[\w-]*{re.escape(tail)}", MASK, text)

    def mask(found: re.Match) -> str:
        return MASK if any(_left_of(secret, found[1], found[2]) for secret in secrets) else found[0]

    return _REMAINS.sub(mask, text) if any(mark in text for mark in _MARKS) else text


def _left_of(secret: str, head: str, tail: str) -> bool:
    head = head.rstrip(".")
    begins = len(head) > 1 and secret.startswith(head)
    ends = len(tail) > 1 and secret.endswith(tail)
    own = len(_PUBLIC.sub("", head, count=1))
    telling = own > 7 or (own > 2 and credentials.ordinary_words(head) is None)
    return (begins and ends) or (begins and telling and not tail) or (ends and not head and len(tail) > 3)


def redacted(content) -> Any:
    """The same JSON-like content with `redact` applied to every text in it."""
    if isinstance(content, dict):
        return {redact(key) if isinstance(key, str) else key: redacted(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [redacted(value) for value in content]
    return redact(content) if isinstance(content, str) else content
