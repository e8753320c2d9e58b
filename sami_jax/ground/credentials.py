"""Which values are secrets, and how they may be spelled where they turn up."""

import base64
import functools
import html.entities
import os
import re
from collections.abc import Iterator
from urllib.parse import unquote

# Environment variables whose values are secrets, by their names; several keys of one kind are numbered, or named by their use.
_NAME = re.compile(
    r"(?:KEY|TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIAL|_PWD|(?:^|_)PASS)S?(?:_?\d+|_(?:DEV|TEST|STAGING|PROD))?$",
    re.IGNORECASE,
)
LOGIN = re.compile(r"(?<=://)[^/?#\s\"'<>]+(?=@)")  # user:password, in a URL
_SHORTEST = 8  # characters; a shorter value would mask ordinary words
_LONGEST_NUMBER = 11  # digits; MAX_TOKENS and dates are no secrets
_LONGEST_WORD = 20  # letters
# What manuals of local servers give for want of a key, in words.
_PLACEHOLDING = (
    "a an any anything api apikey be change changeme default do dummy empty example fake here ignored insert is key llama lm "
    "local me mock my need needed no none not ollama one password placeholder real replace required secret sk some string "
    "studio test the this to token unused use value vllm with your"
)
_PLACEHOLDERS = frozenset(_PLACEHOLDING.split())

_given: set[str] = set()


def give(secret: str) -> None:
    """Makes a secret known that no variable's name gives away: a key from a variable of any name, the password of an address."""
    _given.add(secret)


def known() -> tuple[str, ...]:
    """The secrets of this process, the longest first: of environment variables named like one, of logins in addresses, and those
    given."""
    return _known(tuple(os.environ.items()), frozenset(_given))


@functools.lru_cache(maxsize=2)
def _known(environment: tuple[tuple[str, str], ...], given: frozenset[str]) -> tuple[str, ...]:
    values = set(given)
    for name, value in environment:
        if _NAME.search(name):
            values.add(value)
        if "://" in value:
            values.update(passwords(value))
    found = {bare for value in values for bare in _bare(value)}
    return tuple(sorted(filter(is_secret, found), key=len, reverse=True))


def passwords(text: str) -> Iterator[str]:
    """The passwords of the addresses in a text, as they stand and unquoted."""
    for login in LOGIN.finditer(text):
        password = login[0].partition(":")[2]
        yield from (password, unquote(password))


def _bare(value: str) -> Iterator[str]:
    """A value without the white space of a mounted file and the quotes of an environment file; each line of a key in several."""
    yield value.strip().strip("\"'")
    yield from (line.strip() for line in value.strip().splitlines() if len(line.strip()) >= 2 * _SHORTEST)


def is_secret(value: str) -> bool:
    """Whether a value can protect anything: no word or two of ordinary text, no number, no path that is there."""
    if len(value) < _SHORTEST or len(set(value)) < 3 or (value.isdigit() and len(value) <= _LONGEST_NUMBER):
        return False
    if value.startswith(("/", "~", "./")) and os.path.exists(os.path.expanduser(value)):
        return False
    words = ordinary_words(value)
    return words is None or (len(words) > 2 and not _PLACEHOLDERS.issuperset(words))


def is_placeholder(value: str) -> bool:
    """Whether a value only stands where a key would."""
    words = ordinary_words(value)
    return words is not None and _PLACEHOLDERS.issuperset(words)


def ordinary_words(value: str) -> list[str] | None:
    """The words that a value is made of, in small letters; None where it is made of anything else."""
    value = value.strip("<>[]{}()\"'")
    if re.search(r"[^\w\s.-]", value):
        return None
    words = [part for piece in re.split(r"[\W_]+", value) if piece for part in _humps(piece)]
    return [word.lower() for word in words] if all(map(_is_word, words)) else None


def _humps(piece: str) -> list[str]:
    """The words of a camelCaseName, where all are long enough to be words."""
    parts = re.split(r"(?<=[a-z])(?=[A-Z])", piece)
    return parts if all(len(part) > 3 or part.lower() in _PLACEHOLDERS for part in parts) else [piece]


def _is_word(piece: str) -> bool:
    """Letters of one case, that can be spoken."""
    if piece.lower() in _PLACEHOLDERS or len(set(piece)) == 1:
        return True
    if not piece.isalpha() or len(piece) > _LONGEST_WORD:
        return False
    if not piece.isascii():
        return True
    cased = re.fullmatch(r"[A-Z]?[a-z]+|[A-Z]+", piece)
    spoken = len(piece) < 5 or (re.search(r"[aeiouy]", piece, re.I) and not re.search(r"[^aeiouy]{5}", piece, re.I))
    return bool(cased and spoken)


@functools.lru_cache(maxsize=256)
def spelled(secret: str) -> re.Pattern:
    """The secret as libraries spell it: as it is, broken over lines, in texts of Python and JSON, also of one in another, in
    addresses, in HTML."""
    return re.compile("".join(map(_spellings, re.split(r"(\s+|.)", secret, flags=re.DOTALL))))


def _spellings(char: str) -> str:
    if not char:
        return ""
    if char.isspace():
        return r"(?:\s|\\+[nrtfv]|\\+x[0-9a-fA-F]{2}|\\+u00[0-9a-fA-F]{2}|\+|%[0-9a-fA-F]{2}|&#\w+;|&nbsp;)+"
    code, bytes_of = ord(char), char.encode("utf-8", "surrogatepass")
    units = char.encode("utf-16-be", "surrogatepass")
    halves = [int.from_bytes(units[i : i + 2]) for i in range(0, len(units), 2)]
    spellings = [
        (r"\\*" if not char.isalnum() else "") + re.escape(char),
        "".join(f"%{byte:02x}" for byte in bytes_of),
        "".join(rf"\\+x{byte:02x}" for byte in bytes_of),
        "".join(rf"\\+u{half:04x}" for half in halves),
        rf"\\+U{code:08x}",
        rf"&#0*{code};",
        rf"&#x0*{code:x};",
    ]
    if 0x7F < code < 0x100:
        spellings.append(rf"\\+x{code:02x}")
    if name := html.entities.codepoint2name.get(code):
        spellings.append(f"&{name};")
    literal, *escaped = spellings
    return f"(?:{literal}|(?i:{'|'.join(escaped)}))"


@functools.lru_cache(maxsize=256)
def encoded(secret: str) -> tuple[str, ...]:
    """What every Base64 text that holds the secret holds of it, wherever in the text it begins."""
    cores, content = set(), secret.encode("utf-8", "surrogatepass")
    for before in range(3):
        text = base64.b64encode(bytes(before) + content).decode()
        whole = text.rstrip("=")[:-1] if (before + len(content)) % 3 else text
        cores.add(whole[(0, 2, 3)[before] :])
    return tuple(cores | {core.translate({43: "-", 47: "_"}) for core in cores})
