"""What a server's answer says: the reply in it, in the shapes that the OpenAI protocol allows, or why there is none."""

import dataclasses
import json
import re
from typing import Any

CUT_OFF = ("length", "max_tokens", "max_output_tokens", "model_length", "model_context_window_exceeded")
_FILTERED = (
    "content_filter",
    "safety",
    "recitation",
    "prohibited_content",
    "blocklist",
    "sensitive",
    "guardrail_intervened",
)
_BROKEN = (
    "error",
    "abort",
    "aborted",
    "cancelled",
    "insufficient_system_resource",
    "network_error",
    "malformed_function_call",
)
# Keys of a message under which servers put thoughts apart.
_THOUGHTS = ("reasoning_content", "reasoning", "thinking", "reasoning_details")
# Tags that models put around thoughts, in the brackets that they use.
_TAG = r"(?:seed:)?(?:think|thinking|thoughts?|reason|reasoning|scratchpad)"
_OPEN, _CLOSE = (rf"(?:<{end}{_TAG}>|\[{end}{_TAG}\]|\u25c1{end}{_TAG}\u25b7)" for end in ("", "/"))
_THOUGHT = re.compile(f"{_OPEN}(?:(?!{_OPEN}).)*?{_CLOSE}", re.DOTALL | re.IGNORECASE)
_UNCLOSED = re.compile(rf"\s*{_OPEN}", re.IGNORECASE)
# Channels, as of gpt-oss, where a server passes them on as they are.
_FINAL_CHANNEL = re.compile(r"<\|channel\|>\s*final\b[^<]*<\|message\|>(.*)", re.DOTALL)
_CHANNEL = re.compile(r"\s*(?:<\|start\|>assistant)?<\|channel\|>")


class NoReply(Exception):
    """The answer is one of the protocol, without a reply that can be used."""

    def __init__(self, reason: str, words: str = "", text: str = "", cut_off: bool = False):
        """
        Args:
          reason: why, in words of ours; such answers are counted under it.
          words: the server's own.
          text: what came before it was cut off.
        """
        super().__init__(reason)
        self.reason, self.words, self.text, self.cut_off = reason, words, text, cut_off


class NotOfProtocol(Exception):
    """The answer is of another protocol."""


@dataclasses.dataclass(frozen=True)
class _Choice:
    text: str
    refusal: str
    thoughts: bool
    called: bool
    parts: tuple[str, ...]  # types of the parts that were no text
    finish: str


def read_answer(answer: str) -> Any:
    """The JSON of an answer; of one that came in pieces although nobody asked for a stream, the pieces put together.

    Raises:
      NotOfProtocol: it is neither.
    """
    try:
        return json.loads(answer.lstrip("\ufeff"), strict=False)
    except RecursionError:
        raise NotOfProtocol("it is nested too deeply") from None
    except ValueError:
        if not re.match(r"\s*(?:data|event|id|retry)?:", answer):
            raise NotOfProtocol("it is no JSON") from None
    return _assembled(answer)


def read_reply(content: Any) -> str:
    """The text of the first choice. Thoughts that stand apart are none of it.

    Raises:
      NoReply: why there is none.
      NotOfProtocol: no choice with a message or text.
    """
    if not isinstance(content, dict) or "choices" not in content:
        raise NotOfProtocol("it has no choices")
    choices = content["choices"]
    if not isinstance(choices, list) or not choices:
        raise NotOfProtocol("its choices are empty")
    choice = _choice(choices[0])
    if choice.finish in CUT_OFF:
        raise NoReply("cut off", text=choice.text, cut_off=True)
    if choice.finish in _FILTERED:
        raise NoReply("withheld by the server's filter", f"finish_reason {choice.finish}")
    if choice.finish in _BROKEN:
        raise NoReply("broken off by the server", f"finish_reason {choice.finish}")
    if choice.text.strip():
        return choice.text
    if choice.refusal:
        raise NoReply("the model refused", choice.refusal)
    if choice.called:
        raise NoReply("a call of a tool in place of text")
    if choice.thoughts:
        raise NoReply("thoughts without an answer")
    if choice.parts:
        raise NoReply("a reply without text", f"parts of type {', '.join(sorted(set(choice.parts)))}")
    raise NoReply("an empty reply")


def answer_after_thoughts(text: str) -> str:
    """What a text says after the thoughts that are written into it; empty where they never end."""
    if final := _FINAL_CHANNEL.search(text):
        return re.split(r"<\|(?:end|return|call)\|>", final[1])[0]
    if _CHANNEL.match(text):
        return ""
    while (shorter := _THOUGHT.sub("", text)) != text:  # from the inside, where they are nested
        text = shorter
    *_, text = re.split(_CLOSE, text, flags=re.IGNORECASE)  # of a chat template that begins the thought itself
    return "" if _UNCLOSED.match(text) else text


def _choice(found: Any) -> _Choice:
    if not isinstance(found, dict):
        raise NotOfProtocol("a choice is no object")
    if isinstance(found.get("error"), dict):  # of routers: the model behind them failed
        raise NoReply("broken off by the server", str(found["error"].get("message", "")))
    message = found.get("message")
    if message is None and "text" in found:
        message = {"content": found["text"]}
    if not isinstance(message, dict):
        raise NotOfProtocol("a choice has neither message nor text")
    texts, refusals, others = _texts(message.get("content"))
    refused = message.get("refusal")
    return _Choice(
        text=_unicode("".join(texts)),
        refusal="".join(refusals) or (refused if isinstance(refused, str) else ""),
        thoughts=any(message.get(key) for key in _THOUGHTS) or bool({"thinking", "reasoning"} & set(others)),
        called=bool(message.get("tool_calls") or message.get("function_call")),
        parts=tuple(others),
        finish=str(found.get("finish_reason") or "").lower(),
    )


def _unicode(text: str) -> str:
    """The text without halves of characters, which JSON can spell and no file can hold."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _texts(content: Any) -> tuple[list[str], list[str], list[str]]:
    """Of a message's content, or of its parts: texts, refusals, and the types of everything else; thoughts are no text.

    Raises:
      NotOfProtocol: it is neither a text, nor nothing, nor a list of parts.
    """
    if content is None:
        return [], [], []
    if isinstance(content, str):
        return [content], [], []
    if not isinstance(content, list):
        raise NotOfProtocol("its content is no text")
    texts, refusals, others = [], [], []
    for part in content:
        if not isinstance(part, dict):
            raise NotOfProtocol("a part of its content is no object")
        kind = part.get("type")
        if kind in ("text", "output_text"):
            if "text" not in part:
                raise NotOfProtocol("a part of its content has no text")
            texts += _texts(part["text"])[0]
        elif kind == "refusal" and isinstance(part.get("refusal"), str):
            refusals.append(part["refusal"])
        else:
            others.append(str(kind))
    return texts, refusals, others


def _assembled(answer: str) -> dict:
    """One choice from the pieces of a stream.

    Raises:
      NotOfProtocol: a piece is none.
      NoReply: it ended early.
    """
    message: dict[str, Any] = {"content": ""}
    finish, ended, seen = None, False, False
    for line in answer.splitlines():
        field, _, data = line.partition(":")
        if field.strip() != "data":
            continue
        if data.strip() == "[DONE]":
            ended = True
            continue
        try:
            piece = json.loads(data, strict=False)
        except (ValueError, RecursionError):
            raise NotOfProtocol("a piece of a stream is no JSON") from None
        if isinstance(piece, dict) and piece.get("error"):
            return piece
        choices = piece.get("choices") if isinstance(piece, dict) else None
        for choice in choices[:1] if isinstance(choices, list) else ():
            if not isinstance(choice, dict):
                raise NotOfProtocol("a choice is no object")
            seen, finish = True, choice.get("finish_reason") or finish
            _add(message, choice.get("delta") or choice.get("message") or {"content": choice.get("text")})
    if not seen:
        raise NotOfProtocol("a stream without choices")
    if not (ended or finish):
        raise NoReply("broken off by the server", "the stream has no end")
    return {"choices": [{"message": message, "finish_reason": finish}]}


def _add(message: dict[str, Any], piece: Any) -> None:
    if not isinstance(piece, dict):
        raise NotOfProtocol("a piece of a stream is no object")
    texts, refusals, others = _texts(piece.get("content"))
    message["content"] += "".join(texts)
    if refusals or isinstance(piece.get("refusal"), str):
        message["refusal"] = message.get("refusal", "") + ("".join(refusals) or piece["refusal"])
    for key in (*_THOUGHTS, "tool_calls"):
        if piece.get(key):
            message[key] = True
    if "thinking" in others:
        message["thinking"] = True
