"""What a line of a log says: one answer of the served model, as our own form has it or as proxies of the OpenAI protocol log it."""

import dataclasses
import json
import math
from datetime import UTC, datetime

from sami_jax.data.dialogue import of_messages, transcript
from sami_jax.data.fields import BadRow, tags_of
from sami_jax.ground.server_replies import CUT_OFF, NoReply, NotOfProtocol, read_reply

AHEAD = 3600.0  # seconds by which the clock of whoever wrote a log may be ahead of ours
MILLISECONDS = 1e11  # a number of a time from here on counts them
TIMES = ("time", "timestamp", "created_at", "startTime", "created")
REQUESTS, REPLIES = ("request", "request_body", "body"), ("response", "response_body")
MOST_TAGS = 32  # of an answer
LONGEST_TAG = 100  # characters
_MEND = "; mend what writes the log"


@dataclasses.dataclass(slots=True)
class Answer:
    """What the model said once."""

    time: float | None  # seconds since 1970, UTC
    query: str
    response: str
    constitution: str  # or the system's turn; "" where there was none
    slices: tuple[str, ...]  # its tags, and "model=NAME"
    ended: bool | None  # by itself; None: not known
    place: tuple[str, int] = ("", 0)  # file and line


def read_line(line: bytes, now: float) -> Answer:
    """
    Args:
      now: seconds since 1970; what is later by more than AHEAD is no answer yet.
    Raises:
      BadRow: the line tells of no answer.
    """
    row = _row(line)
    if "query" not in row or not isinstance(row.get("response"), str):
        row = _of_proxy(row)
    query, response = row.get("query"), row.get("response")
    if not isinstance(query, str) or not isinstance(response, str):
        raise BadRow("query or response is no text", _MEND)
    constitution, model, finish = row.get("constitution"), row.get("model"), row.get("finish_reason")
    if not isinstance(constitution, str | None) or not isinstance(model, str | None):
        raise BadRow("constitution or model is no text", _MEND)
    slices = _slices(row) if row.get("tags") else ()
    if model:
        slices = (*slices, f"model={model[:LONGEST_TAG]}")
    ended = None if not isinstance(finish, str) else finish.lower() not in CUT_OFF
    time = next((row[key] for key in TIMES if row.get(key) is not None), None)
    return Answer(None if time is None else _seconds(time, now), query, response, constitution or "", slices, ended)


def _row(line: bytes) -> dict:
    try:
        row = json.loads(line)
    except UnicodeDecodeError:
        raise BadRow("not UTF-8", _MEND) from None
    except (ValueError, RecursionError):
        raise BadRow("not JSON", _MEND) from None
    if not isinstance(row, dict):
        raise BadRow("not a JSON object", _MEND)
    return row


def _slices(row: dict) -> tuple[str, ...]:
    tags = row["tags"]
    if isinstance(tags, dict):
        tags = [f"{key}={value}" for key, value in tags.items() if isinstance(value, str | int | float)]
    elif isinstance(tags, str) and not tags.startswith("["):
        tags = [tags]
    found = tags if isinstance(tags, list) and all(isinstance(tag, str) for tag in tags) else tags_of(row)
    return tuple(dict.fromkeys(tag[:LONGEST_TAG] for tag in found[:MOST_TAGS] if tag))


def _seconds(time, now: float) -> float:
    """Of an ISO 8601 text, in UTC where it names no zone, or of seconds or milliseconds since 1970.

    Raises:
      BadRow: it is none, or lies in the future.
    """
    try:
        if isinstance(time, str):
            found = datetime.fromisoformat(time)
            seconds = (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
        else:
            seconds = math.nan if isinstance(time, bool) else float(time)
            seconds = seconds / 1000 if seconds >= MILLISECONDS else seconds
    except (ValueError, TypeError, OverflowError):
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise BadRow("a time that is none", f" but {time!r:.40}{_MEND}")
    if seconds > now + AHEAD:
        raise BadRow("a time in the future", f", {time!r:.40}{_MEND}")
    return seconds


def _of_proxy(row: dict) -> dict:
    """The same in our own form. Of several choices the first counts; a refusal in a field of its own is what the model said.

    Raises:
      BadRow: it is of neither form, or holds no answer.
    """
    request, reply = (
        _inner(next((row[key] for key in keys if row.get(key) is not None), row)) for keys in (REQUESTS, REPLIES)
    )
    if (
        not isinstance(request, dict)
        or not isinstance(reply, dict)
        or not ("messages" in request or "prompt" in request)
    ):
        raise BadRow("neither query and response nor a request and its reply", _MEND)
    ended = None
    try:
        said = read_reply(reply)
    except NotOfProtocol:
        raise BadRow("neither query and response nor a request and its reply", _MEND) from None
    except NoReply as none:
        if not none.cut_off and none.reason != "the model refused":
            raise BadRow(none.reason, "") from None
        said, ended = (none.text, "length") if none.cut_off else (none.words, None)
    query, constitution = request.get("prompt"), None
    if isinstance(request.get("messages"), list):
        turns = of_messages(request["messages"])
        constitution = "\n".join(turn.content for turn in turns if turn.role == "system") or None
        query = transcript([turn for turn in turns if turn.role != "system"])
    choice = reply["choices"][0]
    about = {"query": query, "response": said, "constitution": constitution}
    about["finish_reason"] = ended or choice.get("finish_reason")
    about["model"] = reply.get("model") or request.get("model")
    about["tags"] = row.get("tags") or request.get("tags")
    return about | {key: one[key] for one in (reply, row) for key in TIMES if key in one}


def _inner(value):
    """What a text of JSON holds, as proxies keep bodies; anything else as it is."""
    if isinstance(value, str):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return None
    return value
