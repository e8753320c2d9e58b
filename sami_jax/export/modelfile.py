"""An Ollama Modelfile beside a GGUF file: the model's own chat template, in Ollama's language of templates.

Ollama does not run a tokenizer's template (Jinja). Most of them put messages one behind another, each between words of its role: these
words are found by rendering, and what is composed of them is compared with what the template renders. Another template is not told.
"""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

from sami_jax.models.pretrained import ModelFolder

_ROLES = ("system", "user", "assistant")
_MARK = "CONTENT"
# Conversations that are compared. None has white space around a content: some templates take it off, and Ollama's language cannot.
_TRIED = [
    (*begun, *turns)
    for begun in ((), ("system",))
    for turns in (
        ("user",),
        ("user", "assistant"),
        ("user", "assistant", "user"),
        ("user", "assistant", "user", "assistant", "user"),
    )
]
_CONTENTS = ("Hello.", "two  words", "line\n\nline", "日本語")


class _Words(NamedTuple):
    """Around contents."""

    unsaid: str  # at the beginning where there is no system's message
    around: dict[str, tuple[str, str]]  # by role
    asked: str  # behind all, for a reply

    def composed(self, messages: Sequence[dict[str, str]]) -> str:
        said = any(message["role"] == "system" for message in messages)
        texts = (message["content"].join(self.around[message["role"]]) for message in messages)
        return "".join(["" if said else self.unsaid, *texts, self.asked])


def modelfile(model: ModelFolder, name: str) -> str | None:
    """Its content; None where the model has no chat template, or one that Ollama's language cannot tell.

    Args:
      name: of the GGUF file, beside it.
    """
    words = _words(model.tokenizer)
    if words is None:
        return None
    lines = [f"FROM ./{name}", f'TEMPLATE """{_template(words)}"""']
    for end in dict.fromkeys(model.tokenizer.convert_ids_to_tokens(list(model.end_tokens))):
        lines.append(f'PARAMETER stop "{end}"')
    return "\n".join(lines) + "\n"


def _words(tokenizer: Any) -> _Words | None:
    template = getattr(tokenizer, "chat_template", None)
    if not isinstance(template, str) or any(word in template for word in ("strftime_now", "date_string")):
        return None  # another day, another text
    begins = tokenizer.bos_token if tokenizer.encode("") else ""  # who reads the file puts it there too

    def rendered(roles: Sequence[str], contents: Sequence[str], asked: bool = True) -> str:
        messages = [{"role": role, "content": content} for role, content in zip(roles, contents, strict=False)]
        return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=asked).removeprefix(begins)

    def between(roles: Sequence[str], before: str, asked: bool = False) -> tuple[str, ...]:
        """What stands around the last content, behind what is known to come before."""
        return rendered(roles, [_MARK] * len(roles), asked).removeprefix(before).rpartition(_MARK)[::2]

    try:
        system = between(("system", "user"), "")[0].partition(_MARK)
        first, closing = between(("user",), "")
        reply = rendered(("user", "assistant"), [_MARK] * 2, False).removeprefix(f"{first}{_MARK}{closing}")
        around = {"assistant": (reply.partition(_MARK)[0], reply.partition(_MARK)[2])}
        # The user's words are those behind a reply; what the first has before them stands for the system's message.
        again = rendered(("user", "assistant", "user"), [_MARK] * 3, False)
        opening = again.removeprefix(f"{first}{_MARK}{closing}{reply}").partition(_MARK)[0]
        around["user"] = (opening, closing)
        around["system"] = (system[0], system[2].removesuffix(opening))
        asked = rendered(("user",), [_MARK], True).removeprefix(f"{first}{_MARK}{closing}")
        words = _Words(first.removesuffix(opening), around, asked)
        for roles, shift in itertools.product(_TRIED, range(len(_CONTENTS))):
            contents = [_CONTENTS[(place + shift) % len(_CONTENTS)] for place in range(len(roles))]
            messages = [{"role": role, "content": content} for role, content in zip(roles, contents, strict=True)]
            if words.composed(messages) != rendered(roles, contents):
                return None
    except Exception:  # of a template, which may raise anything
        return None
    texts = [words.unsaid, *itertools.chain(*around.values()), words.asked]
    return None if any("{{" in text or "}}" in text or '"' in text for text in texts) else words


def _template(words: _Words) -> str:
    """In Go's text/template, as Ollama fills it: .System is the system's message, .Messages has all."""
    parts = [f"{{{{ if not .System }}}}{words.unsaid}{{{{ end }}}}"] if words.unsaid else []
    body = "".join(
        f'{{{{ {otherwise}if eq .Role "{role}" }}}}{"{{ .Content }}".join(words.around[role])}'
        for otherwise, role in zip(("", "else ", "else "), _ROLES, strict=True)
    )
    return "".join([*parts, "{{ range .Messages }}", body, "{{ end }}{{ end }}", words.asked])
