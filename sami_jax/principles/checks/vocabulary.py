"""The words of checks: what each takes, and what it looks at in a response.

Where IFEval (arXiv 2311.07911) has an instruction that a program verifies, the word is its own; docs/principles.md lists all.
"""

import functools
import json
import re
from collections.abc import Callable

from sami_jax.principles.checks import languages, patterns
from sami_jax.principles.checks.reply import HEADING, WORD, Reply, plain
from sami_jax.principles.checks.scripts import UNSPACED, script_of

Measure = Callable[[Reply], float]

# Around a text's first and last words: marks of emphasis, quotations, brackets and headings.
AROUND = " \t\r\n*_#>~`\"'«»“”„「」『』()[]"
CLOSING = AROUND + ".!?…。！？"
FIRST_PERSON = "i me my mine myself we us our ours ourselves i'm i've i'll i'd we're we've we'll we'd let's"
SECOND_PERSON = "you your yours yourself yourselves you're you've you'll you'd"
HIGHLIGHTED = re.compile(r"\*\*[^\s*][^\n*]*\*\*|(?<!\*)\*[^\s*](?:[^\n*]*[^\s*])?\*(?!\*)")
PLACEHOLDER = re.compile(r"\[[^\[\]\n]+\](?!\()")
LINK = re.compile(r"https?://\S|\bwww\.\S")
EMOJI = re.compile("[\U0001f000-\U0001faff\u2600-\u27bf]")
SECTION = re.compile(r"^\s*\**section\s+(?:\d|[ivx]+\b)", re.IGNORECASE)
POSTSCRIPT = re.compile(r"^[^\w\n]*(?:p\.\s?p\.\s?s|p\.\s?s|pps|ps)(?:\.|:|\b)(?=\W)", re.IGNORECASE | re.MULTILINE)
TITLE = re.compile(r"\s*(?:#{1,6}[ \t]+\S|\*\*[^\n*]+\*\*[ \t]*(?:\n|\Z))")
FENCED = re.compile(r"```(?:json)?[ \t]*\n(.*)\n[ \t]*```", re.DOTALL | re.IGNORECASE)
DIGRAPHS = "ǅǈǋǲ"  # of a capital and a small letter in one
QUOTED = {'"': '"', "“": "”", "”": "”", "„": "“”", "«": "»", "»": "«", "「": "」", "『": "』"}


def phrase(text: str) -> str:
    """A regular expression for `text` as whole words, of a plain text. In scripts without spaces, and in Korean, whose words have
    endings, it may stand within others."""
    text = plain(text)

    def edge(character: str) -> bool:
        return character.isalnum() and script_of(character) not in UNSPACED | {"HANGUL"}

    return (r"(?<!\w)" if edge(text[0]) else "") + re.escape(text) + (r"(?!\w)" if edge(text[-1]) else "")


@functools.lru_cache(maxsize=2_048)
def _phrase(text: str) -> re.Pattern:
    return re.compile(phrase(text))


def contains(reply: Reply, text: str) -> bool:
    return _phrase(text).search(reply.plain) is not None


def begins_with(reply: Reply, text: str) -> bool:
    return any(_phrase(text).match(begun) for begun in (reply.plain, plain(reply.text.lstrip(AROUND))))


def ends_with(reply: Reply, text: str) -> bool:
    ended = (reply.plain, plain(reply.text.rstrip(AROUND)), plain(reply.text.rstrip(CLOSING)))
    found = _phrase(text)
    return any(end.endswith(plain(text)) and found.match(end, len(end) - len(plain(text))) is not None for end in ended)


def equals(reply: Reply, text: str) -> bool:
    return plain(reply.text.strip(CLOSING)) == plain(text.strip(CLOSING)) or reply.plain == plain(text)


def occurrences(reply: Reply, text: str) -> int:
    return sum(1 for _ in _phrase(text).finditer(reply.plain))


def paragraph_begins(reply: Reply, number: int, text: str) -> bool:
    there = reply.paragraphs[number - 1 : number]
    return bool(there) and begins_with(Reply(there[0]), text)


def parts(reply: Reply, separator: str) -> int:
    return sum(bool(part.strip()) for part in reply.text.split(separator))


def repeats_prompt(reply: Reply) -> bool:
    asked = plain(reply.prompt)
    return bool(asked) and plain(reply.text.lstrip(AROUND)).startswith(asked.lstrip(AROUND))


def in_language(reply: Reply, code: str) -> bool:
    return languages.language_of(reply.text) == code


def matches(reply: Reply, pattern: str) -> bool:
    return patterns.find(pattern, reply.text)


def is_json(reply: Reply) -> bool:
    """An object or a list, alone or in one fenced block."""
    fenced = FENCED.fullmatch(reply.text)
    try:
        return isinstance(json.loads(fenced[1] if fenced else reply.text), dict | list)
    except (ValueError, RecursionError):
        return False


def is_quoted(reply: Reply) -> bool:
    text = reply.text
    return len(text) > 2 and text[-1] in QUOTED.get(text[0], "")


def has_title(reply: Reply) -> bool:
    """A title in <<double angular brackets>>, or a first line that is a heading or bold."""
    return bool(re.search(r"<<[^<>\n]+>>", reply.text) or TITLE.match(reply.text))


def has_postscript(reply: Reply) -> bool:
    """A line that begins with P.S., also P.P.S., after other text."""
    found = POSTSCRIPT.search(reply.text)
    return found is not None and bool(WORD.search(reply.text[: found.start()]))


def all_lower(reply: Reply) -> bool:
    return any(c.islower() for c in reply.text) and not any(c.isupper() or c in DIGRAPHS for c in reply.text)


def all_capital(reply: Reply) -> bool:
    return any(c.isupper() for c in reply.text) and not any(c.islower() or c in DIGRAPHS for c in reply.text)


def capital_words(reply: Reply) -> int:
    """Words of two letters or more that are all capital: I and A are so in any text."""
    return sum(word.isupper() and sum(c.isalpha() for c in word) > 1 for word in reply.words)


def _persons(words: str) -> Measure:
    # "US" is a country and "i.e." no person.
    pattern = re.compile(rf"(?<![\w.])(?!US\b)(?i:{'|'.join(words.split())})(?![\w']|\.\w)")
    return lambda reply: sum(1 for _ in pattern.finditer(reply.text.replace("’", "'")))


def _matches(pattern: re.Pattern) -> Measure:
    return lambda reply: sum(1 for _ in pattern.finditer(reply.prose))


# What can be counted: `WORD: {at_least: n, at_most: n}`, `WORD: n`, `WORD: true` (one or more) and `WORD: false` (none).
COUNTS: dict[str, Measure] = {
    "sentences": lambda reply: len(reply.sentences),
    "words": lambda reply: len(reply.words),
    "paragraphs": lambda reply: len(reply.paragraphs),
    "lines": lambda reply: len(reply.lines),
    "characters": lambda reply: len(reply.text),
    "list_items": lambda reply: reply.numbered_items + reply.bulleted_items,
    "numbered_items": lambda reply: reply.numbered_items,
    "bulleted_items": lambda reply: reply.bulleted_items,
    "questions": lambda reply: reply.questions,
    "exclamations": lambda reply: reply.exclamations,
    "commas": lambda reply: sum(reply.text.count(comma) for comma in ",，、،"),
    "capital_words": capital_words,
    "first_person": _persons(FIRST_PERSON),
    "second_person": _persons(SECOND_PERSON),
    "highlighted": _matches(HIGHLIGHTED),
    "placeholders": _matches(PLACEHOLDER),
    "sections": lambda reply: sum(
        bool(HEADING.match(line) or SECTION.match(line)) for line in reply.prose.splitlines()
    ),
    "numbers": lambda reply: len(re.findall(r"\d+(?:[.,:]\d+)*", reply.text)),
    "emoji": lambda reply: len(EMOJI.findall(reply.text)),
    "links": lambda reply: len(LINK.findall(reply.text)),
    "code_blocks": lambda reply: len(re.findall(r"^[ \t]*(?:```|~~~)", reply.text, re.MULTILINE)) / 2,
}
# Shares of the response's words, from 0 to 1.
SHARES: dict[str, Measure] = {
    "capital_share": lambda reply: capital_words(reply) / max(len(reply.words), 1),
}
# `WORD: true` or `WORD: false`, or the word alone.
PLAIN: dict[str, Callable[[Reply], bool]] = {
    "json": is_json,
    "quoted": is_quoted,
    "title": has_title,
    "postscript": has_postscript,
    "repeats_prompt": repeats_prompt,
}
# `WORD: text` or `WORD: [text, ...]`; how texts are joined, and what is looked at for each.
TEXTS: dict[str, tuple[Callable, Callable[[Reply, str], bool]]] = {
    "begins_with": (any, begins_with),
    "ends_with": (any, ends_with),
    "is_one_of": (any, equals),
    "contains_any": (any, contains),
    "contains_all": (all, contains),
    "contains_none": (lambda found: not any(found), contains),
}
LETTER_CASES = {"lower": all_lower, "capital": all_capital}
