"""Why a server would not answer: its own words, in whatever shape they come, and what they are about."""

import dataclasses
import html
import json
import re
from collections.abc import Sequence
from typing import Any

LONGEST = 200  # characters of a server's words that are shown
# Of a request that is too long for the model: it concerns this request alone, although some name max_tokens.
_TOO_LONG = re.compile(
    r"context.?(?:length|window|size)|maximum context|max_model_len|prompt is too long|too many (?:input )?tokens"
    r"|input (?:is|was) too long|exceeds? (?:the )?(?:model's |maximum |max )*(?:input|prompt|context|sequence)"
    r"|string_above_max_length|inputs?.{0,20}tokens? \+ .?max_new_tokens",
    re.IGNORECASE,
)
_FILTERED = re.compile(
    r"content.?filter|content.?policy|content management policy|moderat|flagged|responsibleai|data_inspection|"
    r"safety (?:system|filter|setting)|usage polic|inappropriate content|invalid_prompt",
    re.IGNORECASE,
)
# Of a value that the user chose and can choose otherwise, where leaving it out would be another thing than was asked for.
_OUT_OF_RANGE = re.compile(
    r"too (?:large|high|big)|at most|less than|greater than|between|maximum|exceed|must be (?:>|<|=|at|in|an? )",
    re.IGNORECASE,
)
_ABOUT_OPTIONS = re.compile(
    r"(?:unsupported|unrecogni[sz]ed|unknown|unexpected|extra|invalid|not support\w*|not permitted|not allowed|forbidden)"
    r".{0,60}(?:param|argument|option|field|input|propert|key)"
    r"|(?:param|argument|option|field|input|propert|key).{0,60}"
    r"(?:unsupported|unrecogni[sz]ed|unknown|unexpected|not support|not permitted|not allowed|forbidden)",
    re.IGNORECASE | re.DOTALL,
)
# FastAPI's places, where a server has made a text of them: ('body', 'seed'), or body -> seed.
_LOCATED = re.compile(r"['\"]body['\"],\s*['\"](\w+)['\"]|body -> (\w+)")


@dataclasses.dataclass(frozen=True)
class Refusal:
    """What a server said."""

    words: str  # in one line; empty where it said nothing
    about: str  # all of its answer, for looking into
    blamed: tuple[str, ...]  # fields of the request that it names as such

    @property
    def too_long(self) -> bool:
        return bool(_TOO_LONG.search(self.about))

    @property
    def filtered(self) -> bool:
        return bool(_FILTERED.search(self.about))

    def unknown_option(self, sent: dict[str, Any], names: Sequence[str]) -> str | None:
        """The option of the request that the server does not take, if that is what it says.

        Args:
          sent: options of the request by name.
          names: those that may be left out; where the server objects to some without a name, the first of them.
        """
        if self.too_long or "messages" in self.blamed:
            return None
        named = [name for name in names if name in self.blamed]
        named += [name for name in names if re.search(rf"(?<!\w){name}(?!\w)", self.words)]
        for name in named:
            if name in sent and not (sent[name] and _OUT_OF_RANGE.search(self.words)):
                return name
        if not named and _ABOUT_OPTIONS.search(self.words):
            return next((name for name in names if name in sent), None)
        return None


def read_refusal(answer: str) -> Refusal:
    """Reads OpenAI's {"error": {"message", "param"}}, FastAPI's {"detail": [{"loc", "msg"}]}, other JSON, plain text, and pages."""
    try:
        content = json.loads(answer, strict=False)
    except (ValueError, RecursionError):
        return Refusal(one_line(answer), answer, _located(answer))
    return Refusal(one_line(_message(content)), answer, (*_parameters(content), *_located(answer)))


def error_in(content: Any) -> bool:
    """Whether an answer of status 200 is an error all the same."""
    return (
        isinstance(content, dict)
        and not content.get("choices")
        and (bool(content.get("error")) or content.get("object") == "error" or bool(content.get("detail")))
    )


def one_line(answer: str) -> str:
    """A text in one line without markup; all of it: a secret may lie where it would be cut."""
    if re.search(r"<(?:!doctype|html|head|body|title)\b", answer, re.IGNORECASE):
        answer = re.sub(r"(?is)<(script|style)\b.*?</\1>", " ", answer)
        answer = html.unescape(re.sub(r"<[^<>]*>", " ", answer))
    return " ".join(answer.split())


def _message(content: Any) -> str:
    """The text that is meant for people."""
    if isinstance(content, dict):
        for key in ("error", "message", "detail", "msg", "error_msg", "title", "reason", "errors"):
            if content.get(key):
                told = _message(content[key])
                where = content.get("loc")
                return f"{'.'.join(map(str, where))}: {told}" if isinstance(where, list | tuple) else told
        return json.dumps(content, ensure_ascii=False) if content else ""
    if isinstance(content, list):
        return "; ".join(filter(None, map(_message, content)))
    return "" if content is None else str(content)


def _parameters(content: Any) -> list[str]:
    """What keys like "param" and the ends of "loc" name, at any depth."""
    if isinstance(content, list):
        return [name for part in content for name in _parameters(part)]
    if not isinstance(content, dict):
        return []
    named = [content[key] for key in ("param", "parameter", "field") if isinstance(content.get(key), str)]
    if isinstance(content.get("loc"), list) and content["loc"]:
        named.append(str(content["loc"][-1]))
    return named + [name for part in content.values() for name in _parameters(part)]


def _located(text: str) -> tuple[str, ...]:
    """The ends of "loc" in errors that were written as text."""
    return tuple(first or second for first, second in _LOCATED.findall(text))
