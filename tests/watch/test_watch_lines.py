"""Lines of logs: our own form, that of proxies, and all that is neither."""

import json

import pytest

from sami_jax.data.fields import BadRow
from sami_jax.watch.lines import read_line

NOW = 1_800_000_000.0


def read(**row):
    return read_line(json.dumps(row).encode(), NOW)


def test_our_own_form():
    found = read(
        time="2026-01-01T00:00:00Z", query="q", response="r", model="m", constitution="1. c", tags=["a", "b", "a"]
    )
    assert (found.time, found.query, found.response, found.constitution) == (1767225600.0, "q", "r", "1. c")
    assert found.slices == ("a", "b", "model=m") and found.ended is None
    assert read(query="q", response="").slices == ()


@pytest.mark.parametrize(
    ("time", "seconds"),
    [
        ("2026-01-01", 1767225600.0),
        ("2026-01-01T09:00:00+09:00", 1767225600.0),
        ("2026-01-01 00:00:00.500", 1767225600.5),
        (1767225600, 1767225600.0),
        (1767225600000, 1767225600.0),
        (None, None),
    ],
)
def test_times(time, seconds):
    assert read(time=time, query="q", response="r").time == seconds


@pytest.mark.parametrize("tags", ["a", ["a"], {"k": "v"}, '["a"]'])
def test_tags_as_tools_write_them(tags):
    assert read(query="q", response="r", tags=tags).slices == (("k=v",) if isinstance(tags, dict) else ("a",))


MESSAGES = [{"role": "system", "content": "1. Be kind."}, {"role": "user", "content": "Hi?"}]


def completion(text, finish="stop", **about):
    return {
        "choices": [{"message": {"content": text}, "finish_reason": finish}],
        "created": 1767225600,
        "model": "m",
        **about,
    }


@pytest.mark.parametrize(
    "row",
    [
        {"request": {"messages": MESSAGES}, "response": completion("Yes.")},
        {"request": json.dumps({"messages": MESSAGES}), "response": json.dumps(completion("Yes."))},
        {"messages": MESSAGES, **completion("Yes.")},
        {"request_body": {"messages": MESSAGES}, "response_body": completion("Yes.")},
    ],
)
def test_requests_and_replies_of_the_protocol(row):
    found = read_line(json.dumps(row).encode(), NOW)
    assert (found.query, found.response, found.constitution) == ("Hi?", "Yes.", "1. Be kind.")
    assert found.time == 1767225600.0 and found.slices == ("model=m",) and found.ended is True


def test_what_the_protocol_says_of_an_end():
    asked = {"messages": MESSAGES}
    cut = read(request=asked, response=completion("Ye", "length"))
    assert (cut.response, cut.ended) == ("Ye", False)
    refused = {"choices": [{"message": {"content": None, "refusal": "I can't help with that."}}]}
    assert read(request=asked, response=refused).response == "I can't help with that."
    prompted = read(request={"prompt": "Once"}, response={"choices": [{"text": " upon", "finish_reason": "stop"}]})
    assert (prompted.query, prompted.response) == ("Once", " upon")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"no json", "not JSON"),
        (b'{"query": "q"', "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"9" * 10_000, "not JSON"),
        (b"[1]", "not a JSON object"),
        ('{"query": "é"}'.encode("latin-1"), "not UTF-8"),
        (b"{}", "neither query and response nor a request and its reply"),
        (b'{"query": 1, "response": "r"}', "query or response is no text"),
        (b'{"query": "q", "response": ["r"]}', "neither query and response nor a request and its reply"),
        (b'{"query": "q", "response": "r", "model": 1}', "constitution or model is no text"),
        (b'{"query": "q", "response": "r", "tags": [1]}', "tags must be a list of texts"),
        (b'{"query": "q", "response": "r", "tags": 5}', "tags must be a list of texts"),
        (b'{"query": "q", "response": "r", "time": "yesterday"}', "a time that is none"),
        (b'{"query": "q", "response": "r", "time": NaN}', "a time that is none"),
        (b'{"query": "q", "response": "r", "time": true}', "a time that is none"),
        (b'{"query": "q", "response": "r", "time": -1}', "a time that is none"),
        (b'{"query": "q", "response": "r", "time": {"a": 1}}', "a time that is none"),
        (b'{"query": "q", "response": "r", "time": 1800007201}', "a time in the future"),
        (b'{"request": {"messages": []}, "response": {"choices": []}}', "neither query and response nor a request and its reply"),
        (b'{"request": {"messages": [{"role": "user", "content": "q"}]}, "response": {"choices": [{"message": {"content": ""}}]}}', "an empty reply"),
        (b'{"request": {"messages": [{"role": "x", "content": "q"}]}, "response": {"choices": [{"message": {"content": "r"}}]}}', "a message's role is none of system, user, assistant"),
        (b'{"request": {"prompt": ["q"]}, "response": {"choices": [{"text": "r"}]}}', "query or response is no text"),
    ],
)  # fmt: skip
def test_what_tells_of_no_answer(line, reason):
    with pytest.raises(BadRow) as told:
        read_line(line, NOW)
    assert told.value.reason == reason
