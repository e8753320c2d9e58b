"""Keeps secrets out of everything that is written or shown."""

import json
import os
import re
from typing import Any
from urllib.parse import quote, quote_plus

MASK = "***"
# Environment variables whose values are secrets, by their names.
_SECRET_NAME = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL)S?$", re.IGNORECASE)
_SHORTEST_SECRET = 8  # characters; a shorter value would mask ordinary words
# What looks like a key wherever it stands: well-known prefixes, and credentials inside a URL.
_KEY = re.compile(r"\b(?:sk-|hf_|gh[pousr]_|github_pat_|xox[abprs]-|AKIA|AIza)[\w-]{12,}")
_URL_LOGIN = re.compile(r"(?<=://)[^/\s@]+(?=@)")
_URL_QUERY = re.compile(r"(?i)([?&](?:[\w-]*(?:key|token|secret|password|signature))=)[^&\s\"']+")


def redact(text: str) -> str:
    """The text with every secret replaced by ***: values of environment variables named like one, and what looks like one."""
    values = (value.strip() for name, value in os.environ.items() if _SECRET_NAME.search(name))
    secrets = {form for value in values if len(value) >= _SHORTEST_SECRET for form in _forms(value)}
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, MASK)
    for pattern, mask in ((_KEY, MASK), (_URL_LOGIN, MASK), (_URL_QUERY, rf"\1{MASK}")):
        text = pattern.sub(mask, text)
    return text


def _forms(secret: str) -> set[str]:
    """The secret as libraries spell it: as it is, in Python's and JSON's texts, in an address."""
    in_addresses = quote(secret), quote(secret, safe=""), quote_plus(secret)
    return {secret, repr(secret)[1:-1], json.dumps(secret)[1:-1], *in_addresses}


def redacted(content) -> Any:
    """The same JSON-like content with `redact` applied to every text in it."""
    if isinstance(content, dict):
        return {key: redacted(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [redacted(value) for value in content]
    return redact(content) if isinstance(content, str) else content
