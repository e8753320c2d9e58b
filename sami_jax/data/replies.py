"""The ids of replies: those that were sampled, wherever they are known and spell the text; else those of the text itself.

A text can be cut into tokens in several ways, and models do not always sample the one that the tokenizer would choose. Some tokens,
special ones, are not seen in the text at all. So what is trained on and scored are the ids, id by id.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from sami_jax.data.chat import Chat
from sami_jax.data.fields import BadRow, absent, list_in


class Reply(str):
    """A reply's text that knows how it was sampled. Whatever is made of it, if only one letter less, is a plain text."""

    token_ids: tuple[int, ...]  # as sampled, the token that ended it among them
    finish_reason: str  # stop | length

    def __new__(cls, text: str, token_ids: Sequence[int], finish_reason: str):
        reply = super().__new__(cls, text)
        reply.token_ids, reply.finish_reason = tuple(token_ids), finish_reason
        return reply


@dataclasses.dataclass(frozen=True)
class Replies:
    """How replies to a model's prompts become ids."""

    tokenizer: Any  # transformers' PreTrainedTokenizerBase
    chat: Chat | None  # None where prompts are plain texts
    vocab_size: int  # of the model
    ends: tuple[int, ...]  # ids that end a text
    scored_end: int | None  # scored after a reply that ended by itself, if not by one of `ends`; None scores no end
    prefix: str = ""  # the primed words that texts begin with, and which were not sampled

    def ids(self, text: str, finish_reason: str = "stop", sampled: Sequence[int] = ()) -> list[int]:
        """What is scored.

        Args:
          sampled: ids as sampled, with the token that ended them if one did; none where they are not known. They count as far as they
            spell the text: where it was cut or changed, or they are another tokenizer's, the text is encoded.
        """
        spelt = self.spelling(text, sampled)
        ids = self._encoded(text) if spelt is None else spelt
        end = ids[-1:] if spelt and ids[-1] in self.ends else []
        ids = ids[: len(ids) - len(end)]
        if self.scored_end is None:
            return ids
        return ids + (end or [self.scored_end] * (finish_reason == "stop"))

    def spelling(self, text: str, sampled: Sequence[int]) -> list[int] | None:
        """The primed words' ids and those sampled that spell the text, with what of them shows no letters at the end of a whole text;
        None where none spell it."""
        if not sampled or not all(0 <= id < self.vocab_size for id in sampled):
            return None
        primed = self.tokenizer.encode(self.prefix, add_special_tokens=False) if self.prefix else []
        ids = [*primed, *sampled]
        if self._decoded(ids) == text:
            return ids
        count = spelt_by(self._decoded, ids, text)
        return ids[:count] if count else None

    def _decoded(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(list(ids), skip_special_tokens=True)

    def _encoded(self, text: str) -> list[int]:
        return self.chat.reply(text) if self.chat else self.tokenizer.encode(text, add_special_tokens=False)


def spelt_by(decode: Callable[[Sequence[int]], str], ids: Sequence[int], text: str) -> int | None:
    """How many of the first ids, at least, spell the text; None where no number of them does."""
    low, high = 0, len(ids)
    while low < high:  # the first place at which as many letters are there, if not yet whole ones
        middle = (low + high) // 2
        low, high = (low, middle) if len(decode(ids[:middle])) >= len(text) else (middle + 1, high)
    for count in range(low, len(ids) + 1):
        spelt = decode(ids[:count])
        if spelt == text:
            return count
        if len(spelt) > len(text):
            return None
    return None


def sampled_ids(value) -> list[int]:
    """A row's "token_ids" of one response; [] where there are none.

    Raises:
      BadRow: they are no ids.
    """
    ids = list_in(value)
    if absent(ids):
        return []
    if not isinstance(ids, list) or not all(type(id) is int and 0 <= id < 2**31 for id in ids):
        raise BadRow("'token_ids' must be whole numbers, a list for each response", "; mend the line, or take them out")
    return ids


def sampled_lists(value, count: int) -> list[list[int]]:
    """A row's "token_ids" of `count` responses; [] for each of which there are none.

    Raises:
      BadRow: they are no ids, or not of so many responses.
    """
    lists = list_in(value)
    if absent(lists) or lists == []:
        return [[]] * count
    if not isinstance(lists, list) or len(lists) != count:
        raise BadRow(
            "'token_ids' must list those of each response", f", {count} lists; mend the line, or take them out"
        )
    return list(map(sampled_ids, lists))
