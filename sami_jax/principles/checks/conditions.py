"""Conditions as they stand in a principle's file, read into a tree that a response can be held against.

A side is a mapping, all of whose entries must hold, or a list of such, all of which must; `any_of` and `not` hold sides of their own.
"""

import dataclasses
import difflib
import json
import math
from collections.abc import Callable, Iterator

from sami_jax.errors import UserError
from sami_jax.principles.checks import patterns, vocabulary
from sami_jax.principles.checks.languages import LANGUAGES, code_of
from sami_jax.principles.checks.reply import Reply, plain

# Of one check: enough for any principle, and little enough that no response takes more than about a second.
MOST_CONDITIONS = 200
MOST_TEXTS = 1_000
MOST_LETTERS = 10_000  # of all texts
MOST_STEPS = 2_000  # of all patterns, see `patterns.size`
DEEPEST = 8  # conditions within conditions
MOST_COUNTED = 1_000_000
BOUNDS = ("at_least", "at_most", "exactly")


@dataclasses.dataclass(frozen=True)
class Condition:
    """One word of a side."""

    word: str
    given: str  # what was given to it, as canonical JSON
    holds: Callable[[Reply], bool] = dataclasses.field(compare=False, repr=False)
    bounds: tuple[float, float] | None = None  # of what is counted, where that alone decides


@dataclasses.dataclass(frozen=True)
class All:
    parts: "tuple[Node, ...]"

    def holds(self, reply: Reply) -> bool:
        return all(part.holds(reply) for part in self.parts)


@dataclasses.dataclass(frozen=True)
class AnyOf:
    parts: "tuple[Node, ...]"

    def holds(self, reply: Reply) -> bool:
        return any(part.holds(reply) for part in self.parts)


@dataclasses.dataclass(frozen=True)
class Not:
    part: "Node"

    def holds(self, reply: Reply) -> bool:
        return not self.part.holds(reply)


Node = Condition | All | AnyOf | Not


def read_side(content, where: str) -> Node:
    """
    Args:
      content: of one side, as YAML or JSON gives it.
      where: begins each message.
    Raises:
      UserError: it is none; names where in it, and what to write.
    """
    return _Reading().side(content, where, 0)


class _Reading:
    """Reads one side, and counts what it would cost."""

    def __init__(self):
        self.conditions = self.texts = self.letters = self.steps = 0

    def side(self, content, where: str, depth: int) -> Node:
        if depth > DEEPEST:
            raise UserError(f"{where}: conditions within conditions, more than {DEEPEST} deep; write them flatter")
        if isinstance(content, str):
            content = {content: True}
        if not isinstance(content, dict | list) or not content:
            raise UserError(
                f"{where}: no conditions ({content!r:.40}); write some, for example 'sentences: {{at_most: 2}}'"
            )
        if isinstance(content, list):
            # The list's own place is no level: a list of mappings is the usual form.
            parts = [self.side(part, f"{where}[{number}]", depth + 1) for number, part in enumerate(content, start=1)]
        else:
            parts = [self._entry(word, given, where, depth) for word, given in content.items()]
        return parts[0] if len(parts) == 1 else All(tuple(parts))

    def _entry(self, word, given, where: str, depth: int) -> Node:
        self.conditions += 1
        if self.conditions > MOST_CONDITIONS:
            raise UserError(f"{where}: more than {MOST_CONDITIONS} conditions; write fewer")
        if word not in WORDS:
            raise UserError(f"{where}: unknown word {word!r:.40}{nearest(word)}")
        where = f"{where}.{word}"
        if word == "any_of":
            if not isinstance(given, list) or len(given) < 2:
                raise UserError(f"{where}: needs a list of two or more conditions; write '- ' before each")
            sides = [self.side(one, f"{where}[{number}]", depth + 1) for number, one in enumerate(given, start=1)]
            return AnyOf(tuple(sides))
        if word == "not":
            return Not(self.side(given, where, depth + 1))
        if word in ("first_sentence", "last_sentence"):
            return self._sentence(word, given, where, depth)
        return _READERS[word](self, word, given, where)

    def _sentence(self, word: str, given, where: str, depth: int) -> Condition:
        inner, place = self.side(given, where, depth + 1), 0 if word == "first_sentence" else -1

        def holds(reply: Reply) -> bool:
            return bool(reply.sentences) and inner.holds(Reply(reply.sentences[place], reply.prompt))

        return Condition(word, canonical(given), holds)

    def counted(self, word: str, given, where: str) -> Condition:
        measure = vocabulary.COUNTS.get(word) or vocabulary.SHARES[word]
        return _compared(word, given, where, measure, (0, 1) if word in vocabulary.SHARES else (0, math.inf))

    def plain(self, word: str, given, where: str) -> Node:
        if not isinstance(given, bool):
            raise UserError(f"{where}: is {given!r:.40}; write true or false")
        condition = Condition(word, "true", vocabulary.PLAIN[word])
        return condition if given else Not(condition)

    def texts_of(self, given, where: str) -> tuple[str, ...]:
        texts = [given] if isinstance(given, str) else given
        if not isinstance(texts, list) or not texts:
            raise UserError(f"{where}: needs a text or a list of texts, not {given!r:.40}")
        for text in texts:
            if not isinstance(text, str):
                raise UserError(f"{where}: {text!r:.40} is no text; write it in quotation marks")
            if not plain(text):
                raise UserError(f"{where}: a text is empty; write one")
        self.texts += len(texts)
        self.letters += sum(map(len, texts))
        if self.texts > MOST_TEXTS or self.letters > MOST_LETTERS:
            raise UserError(f"{where}: more than {MOST_TEXTS} texts or {MOST_LETTERS} characters of them; write fewer")
        return tuple(texts)

    def texts_compared(self, word: str, given, where: str) -> Condition:
        join, look = vocabulary.TEXTS[word]
        texts = self.texts_of(given, where)
        return Condition(word, canonical(list(texts)), lambda reply: join(look(reply, text) for text in texts))

    def pattern(self, word: str, given, where: str) -> Condition:
        (pattern,) = self._single(given, where)
        try:
            self.steps += patterns.size(pattern)
        except UserError as error:
            raise UserError(f"{where}: {error}") from None
        if self.steps > MOST_STEPS:
            raise UserError(
                f"{where}: patterns of {self.steps} steps in all, {MOST_STEPS} at most; write them shorter, with smaller numbers of repeats"
            )
        return Condition(word, canonical(pattern), lambda reply: vocabulary.matches(reply, pattern))

    def language(self, word: str, given, where: str) -> Condition:
        codes = []
        for language in self.texts_of(given, where):
            if (code := code_of(language)) is None:
                known = ", ".join(LANGUAGES.values())
                raise UserError(f"{where}: unknown language {language!r:.40}; known: {known}, or their codes")
            codes.append(code)
        return Condition(
            word, canonical(sorted(codes)), lambda reply: any(vocabulary.in_language(reply, code) for code in codes)
        )

    def letter_case(self, word: str, given, where: str) -> Condition:
        if not isinstance(given, str) or given not in vocabulary.LETTER_CASES:
            raise UserError(f"{where}: is {given!r:.40}; write {' or '.join(vocabulary.LETTER_CASES)}")
        return Condition(word, canonical(given), vocabulary.LETTER_CASES[given])

    def occurrences(self, word: str, given, where: str) -> Condition:
        of, bounds = self._with_key(given, where, "of")
        texts = self.texts_of(of, f"{where}.of")
        look = vocabulary.occurrences if word == "occurrences" else lambda reply, text: reply.plain.count(plain(text))
        condition = _compared(
            word, bounds, where, lambda reply: sum(look(reply, text) for text in texts), (0, math.inf)
        )
        return dataclasses.replace(condition, given=canonical(given), bounds=None)

    def parts(self, word: str, given, where: str) -> Condition:
        separator, bounds = self._with_key(given, where, "separated_by")
        (separator,) = self._single(separator, f"{where}.separated_by")
        condition = _compared(word, bounds, where, lambda reply: vocabulary.parts(reply, separator), (0, math.inf))
        return dataclasses.replace(condition, given=canonical(given), bounds=None)

    def paragraph_begins(self, word: str, given, where: str) -> Condition:
        if not isinstance(given, dict) or set(given) != {"number", "with"}:
            raise UserError(f"{where}: needs number and with, for example {{number: 2, with: However}}")
        number = given["number"]
        if not isinstance(number, int) or isinstance(number, bool) or number < 1:
            raise UserError(f"{where}.number: is {number!r:.40}; write a whole number from 1")
        texts = self.texts_of(given["with"], f"{where}.with")
        return Condition(
            word, canonical(given), lambda reply: any(vocabulary.paragraph_begins(reply, number, t) for t in texts)
        )

    def _single(self, given, where: str) -> tuple[str, ...]:
        if not isinstance(given, str):
            raise UserError(f"{where}: needs a text in quotation marks, not {given!r:.40}")
        return self.texts_of(given, where)

    @staticmethod
    def _with_key(given, where: str, key: str) -> tuple[object, dict]:
        if not isinstance(given, dict) or key not in given:
            raise UserError(f"{where}: needs {key} and a number, for example {{{key}: '...', at_least: 2}}")
        return given[key], {name: value for name, value in given.items() if name != key}


def _compared(word: str, given, where: str, measure: vocabulary.Measure, span: tuple[float, float]) -> Condition:
    """A condition on a number: `{at_least: n, at_most: n}`, `{exactly: n}`, `n`; true is at least one, false none."""
    if isinstance(given, bool):
        given = {"at_least": 1} if given else {"exactly": 0}
    elif isinstance(given, int | float):
        given = {"exactly": given}
    if not isinstance(given, dict) or not given:
        raise UserError(f"{where}: needs a number ({given!r:.40} is given), for example {{at_least: 1}}")
    for name, value in given.items():
        if name not in BOUNDS:
            raise UserError(f"{where}: unknown word {name!r:.40}; known: {', '.join(BOUNDS)}")
        whole = span[1] == 1 or isinstance(value, int)
        kind = "a number from 0 to 1" if span[1] == 1 else f"a whole number from 0 to {MOST_COUNTED}"
        if isinstance(value, bool) or not isinstance(value, int | float) or not whole:
            raise UserError(f"{where}.{name}: is {value!r:.40}; write {kind}")
        if not span[0] <= value <= min(span[1], MOST_COUNTED):
            raise UserError(
                f"{where}.{name}: is {'out of range' if value != value else 'too small' if value < span[0] else 'too large'}; write {kind}"
            )
    if "exactly" in given and len(given) > 1:
        raise UserError(f"{where}: exactly stands alone; leave out the others")
    low, high = (given.get("exactly", given.get(name, end)) for name, end in zip(BOUNDS[:2], span, strict=True))
    if low > high:
        raise UserError(f"{where}: at_least {low} is more than at_most {high}; no response can be so")
    return Condition(word, canonical(given), lambda reply: low <= measure(reply) <= high, (low, high))


_READERS: dict[str, Callable[[_Reading, str, object, str], Node]] = {
    **dict.fromkeys((*vocabulary.COUNTS, *vocabulary.SHARES), _Reading.counted),
    **dict.fromkeys(vocabulary.PLAIN, _Reading.plain),
    **dict.fromkeys(vocabulary.TEXTS, _Reading.texts_compared),
    "pattern": _Reading.pattern,
    "language": _Reading.language,
    "letter_case": _Reading.letter_case,
    "occurrences": _Reading.occurrences,
    "letters": _Reading.occurrences,
    "parts": _Reading.parts,
    "paragraph_begins": _Reading.paragraph_begins,
}
WORDS = (*_READERS, "first_sentence", "last_sentence", "any_of", "not")


def nearest(word) -> str:
    close = difflib.get_close_matches(str(word).replace(" ", "_").replace("-", "_").lower(), WORDS, 1, 0.5)
    return f"; did you mean {close[0]}?" if close else f"; known: {', '.join(WORDS)}"


def canonical(content) -> str:
    return json.dumps(content, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def leaves(node: Node) -> Iterator[Condition]:
    """The conditions of a side, wherever they stand in it."""
    if isinstance(node, Condition):
        yield node
    else:
        for part in (node.part,) if isinstance(node, Not) else node.parts:
            yield from leaves(part)
