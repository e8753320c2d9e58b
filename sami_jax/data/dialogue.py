"""Dialogues as they stand in data sets, up to the last turn of the user: chat messages, or hh-rlhf's text format.

A dialogue becomes one text, the query, as hh-rlhf writes it but without the first "Human: ", which templates have:

    first question / blank line / Assistant: reply / blank line / Human: second question

A system turn's text stands in front, as a paragraph of its own.
"""

import dataclasses
import re
from collections.abc import Sequence

from sami_jax.data.fields import BadRow, list_in

NAMES = {"user": "Human", "assistant": "Assistant"}  # of hh-rlhf, by role
ROLES = ("system", *NAMES)
START = "\n\nHuman:"  # of every text of hh-rlhf
_LISTED = re.compile(r"""\s*\[\s*\{\s*["'](role|content|from|value)["']\s*:""")
_SHARED = {"human": "user", "gpt": "assistant"}  # ShareGPT's names of roles
_TURN = re.compile(r"\n\n(Human|Assistant):")


@dataclasses.dataclass(frozen=True)
class Message:
    """One turn, in the words of chat templates."""

    role: str  # system | user | assistant
    content: str


def of_text(text: str) -> tuple[Message, ...]:
    """The turns of a text in hh-rlhf's format, "\\n\\nHuman: ...\\n\\nAssistant: ...", up to the last of the user.

    Raises:
      BadRow: another format, or a turn without text.
    """
    before, *parts = _TURN.split("\n\n" + text.lstrip())
    if before.strip() or not parts:
        raise BadRow(
            "no dialogue of Human: and Assistant:", f" but {text[:40]!r}; mend the row, or read another column"
        )
    roles = {name: role for role, name in NAMES.items()}
    return asked([Message(roles[name], said.strip()) for name, said in zip(parts[::2], parts[1::2], strict=True)])


def of_messages(messages: Sequence) -> tuple[Message, ...]:
    """The turns of a list of {"role", "content"}, or {"from", "value"} as ShareGPT has them, up to the last of the user.

    Other keys are passed over. A content may be a list of parts, {"type": "text", "text"} each.

    Raises:
      BadRow: a message of another form or role, or a turn without text.
    """
    turns = []
    for place, message in enumerate(messages, start=1):
        if not isinstance(message, dict) or not (
            {"role", "content"} <= message.keys() or {"from", "value"} <= message.keys()
        ):
            raise BadRow("a message without role and content", f", the {place}.: {message!r:.60}; mend the row")
        # A null beside the other form comes of data that were unified.
        role = message.get("role") or message.get("from")
        role = _SHARED.get(role, role) if isinstance(role, str) else role
        if role not in ROLES:
            raise BadRow(f"a message's role is none of {', '.join(ROLES)}", f" but {role!r:.40}; mend the row")
        content = message.get("content")
        turns.append(Message(role, _said(message.get("value") if content is None else content)))
    return asked(turns)


def _said(content) -> str:
    """
    Raises:
      BadRow: a part of it is no text.
    """
    if isinstance(content, list):
        parts = [part.get("text") if isinstance(part, dict) else part for part in content]
        texts = [part for part in parts if isinstance(part, str)]
        if len(texts) < len(parts):
            raise BadRow("a turn of the dialogue holds more than text", "; remove the row")
        content = "".join(texts)
    return content.strip() if isinstance(content, str) else ""


def messages_in(value):
    """The list of messages that a text holds, as tables have them; any other value as it is.

    Raises:
      BadRow: a text that was such a list, and is no longer readable as one.
    """
    if not isinstance(value, str) or not _LISTED.match(value):
        return value
    found = list_in(value)
    if isinstance(found, str):  # pandas writes arrays so, without commas
        raise BadRow("messages as a text that is no JSON", f" but {value:.40}; write the file as JSON Lines or Parquet")
    return found


def asked(turns: Sequence[Message]) -> tuple[Message, ...]:
    """What a model is to reply to: the turns up to the last of the user.

    Raises:
      BadRow: there is none, one of them has no text, or the dialogue does not begin with the user, behind a system turn at most.
    """
    last = max((place for place, turn in enumerate(turns) if turn.role == "user"), default=-1)
    kept = tuple(turns[: last + 1])
    if not kept:
        raise BadRow("a dialogue without a turn of the user", "; remove the row")
    if not all(turn.content for turn in kept):
        raise BadRow("a turn of the dialogue has no text", "; mend or remove the row")
    dialogue = kept[1:] if kept[0].role == "system" else kept
    if dialogue[0].role != "user" or any(turn.role == "system" for turn in dialogue):
        raise BadRow(
            "a dialogue that does not begin with a turn of the user", ", behind a system turn at most; mend the row"
        )
    return kept


def of_row(row: dict) -> tuple[Message, ...]:
    """The "turns" of a row of responses or pairs, which end with the user's; () where it has none.

    Raises:
      BadRow: they are no such dialogue.
    """
    turns = list_in(row.get("turns")) or []
    if not isinstance(turns, list):
        raise BadRow("'turns' must be a list of messages", "; mend the line")
    found = of_messages(turns) if turns else ()
    if len(found) < len(turns):
        raise BadRow("'turns' must end with a turn of the user", "; mend the line")
    return found


def transcript(turns: Sequence[Message]) -> str:
    """The turns of `asked` as one text."""
    system = [turn.content for turn in turns if turn.role == "system"]
    said = "\n\n".join(f"{NAMES[turn.role]}: {turn.content}" for turn in turns if turn.role in NAMES)
    return "\n\n".join([*system, said.removeprefix(f"{NAMES['user']}: ")])
