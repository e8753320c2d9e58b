"""The small model with a tokenizer of single letters, and answers of servers of completions."""

from pathlib import Path

from sami_jax.models.pretrained import ModelFolder
from support.small_model import SMALL

END = 0


class Letters:
    """A tokenizer that writes each id as one character, but 9 as the two of 3 and 4, which it never encodes."""

    def decode(self, ids, skip_special_tokens):
        return "".join({END: "" if skip_special_tokens else "$", 9: "de"}.get(i, chr(97 + i)) for i in ids)

    def encode(self, text, add_special_tokens=True):
        return [END if letter == "$" else ord(letter) - 97 for letter in text]


MODEL = ModelFolder(Path("none"), SMALL, Letters(), (END,))


def decoded(ids):
    return Letters().decode(ids, True)


def answer(text, finish: str = "stop", tokens: int | None = None, **choice):
    usage = {} if tokens is None else {"usage": {"completion_tokens": tokens}}
    return 200, {"choices": [{"index": 0, "text": text, "finish_reason": finish, **choice}], **usage}
