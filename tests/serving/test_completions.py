"""Requests by token ids, and what servers make of them."""

from typing import Any

import pytest
from support.letters import END, MODEL, answer, decoded
from support.quick import others_slow
from support.stand_in_endpoint import answering

from sami_jax.errors import UserError
from sami_jax.ground.endpoint import Endpoint, Unusable
from sami_jax.sampling.drawing import SamplingOptions
from sami_jax.serving.completions import Completions

TEN = SamplingOptions(temperature=0.7, top_p=0.8, max_new_tokens=10)


def vllm(ids, **more) -> dict[str, Any]:
    return {"token_ids": ids, "logprobs": {"tokens": [f"token_id:{i}" for i in ids], "token_logprobs": [-1.0] * len(ids)}, **more}  # fmt: skip


def names(ids) -> dict[str, Any]:
    return {"logprobs": vllm(ids)["logprobs"]}


def llama_cpp(ids) -> dict[str, Any]:
    return {"logprobs": {"content": [{"id": i, "token": "x", "logprob": -1.0} for i in ids]}}


def complete(reply, options=TEN, prompt=(5, 6)):
    with answering(lambda _: reply) as server:
        one = Completions(Endpoint(server.url, "m", "completions"), MODEL).complete(prompt, 7, options, decoded)
    return one, server.asked[-1]


# Of each: what the server says; text, ids, finish reason and log-probs as our own sampler would give them.
DIALECTS = {
    "ids": (answer("bc", **vllm([1, 2, END])), ("bc", (1, 2, END), "stop", 3)),
    "ids by name": (answer("bc", **names([1, 2, END])), ("bc", (1, 2, END), "stop", 3)),
    "ids of log-probs, no end": (answer("bc", tokens=3, **llama_cpp([1, 2])), ("bc", (1, 2), "stop", 2)),
    "cut off": (answer("bc", "length", **vllm([1, 2])), ("bc", (1, 2), "length", 2)),
    "ids that their text would not have": (answer("de", "length", 1, **vllm([9])), ("de", (9,), "length", 1)),
    "a token within a character is lost": (answer("bc", "length", 3, **llama_cpp([1, 2])), ("bc", (), "length", None)),
    "all ids of a verbose server": ((200, {**answer("bc", "length", 3, **llama_cpp([1, 2]))[1], "__verbose": {"tokens": [1, END + 9, 2]}}), ("bdec", (1, 9, 2), "length", None)),
    "text": (answer("bc", tokens=3), ("bc", (1, 2), "stop", None)),
    "text, other tokens than were sampled": (answer("de", "length", 1), ("de", (), "length", None)),
    "names that are no ids": (answer("bc", logprobs={"tokens": ["b", "c"], "token_logprobs": [-1.0, -1.0]}), ("bc", (1, 2), "stop", 2)),
    "no log-prob of one": (answer("bc", "length", token_ids=[1, 2], logprobs={"tokens": ["b", "c"], "token_logprobs": [None, -1.0]}), ("bc", (1, 2), "length", None)),
    "nothing": (answer("", **vllm([END])), ("", (END,), "stop", 1)),
}  # fmt: skip


@pytest.mark.parametrize("name", others_slow(DIALECTS, "ids", "ids of log-probs, no end", "a token within a character is lost", "text, other tokens than were sampled"))  # fmt: skip
def test_what_servers_give(name):
    reply, (text, ids, finish, scored) = DIALECTS[name]
    one, _ = complete(reply)
    assert (one.response.text, one.response.token_ids, one.response.finish_reason) == (text, ids, finish)
    assert one.response.tokens == len([i for i in ids if i != END]) or not ids
    assert (one.logprobs and len(one.logprobs)) == scored


STOPPED = {
    "with its ids": (answer("bc", **vllm([1, 2, 3, 4])), "bc", (1, 2)),  # vLLM gives those of the stop text too
    "without": (answer("bc", **llama_cpp([1, 2])), "bc", (1, 2)),
    "within a token": (answer("bcd", **llama_cpp([1, 2])), "bcd", ()),
    "in the text": (answer("bcdeq", "length"), "bc", (1, 2)),
}


@pytest.mark.parametrize("name", others_slow(STOPPED, "with its ids", "within a token"))
def test_stop_texts(name):
    reply, text, ids = STOPPED[name]
    options = SamplingOptions(max_new_tokens=10, stop=("e",) if name == "within a token" else ("de",))
    one, asked = complete(reply, options)
    assert (one.response.text, one.response.token_ids, one.response.finish_reason) == (text, ids, "stop")
    assert asked["stop"] == list(options.stop)


def test_what_is_asked():
    _, asked = complete(answer("b", **vllm([1])))
    assert asked["prompt"] == [5, 6] and asked["seed"] == 7 and asked["max_tokens"] == 10
    assert (asked["temperature"], asked["top_p"], asked["top_k"], asked["min_p"]) == (0.7, 0.8, -1, 0.0)
    assert asked["return_token_ids"] and asked["logprobs"] == 1 and asked["repetition_penalty"] == 1.0
    _, asked = complete(answer("b", **vllm([1])), SamplingOptions(0.0, 0.9, 3, 4))
    assert asked["temperature"] == 0.0 and "top_p" not in asked and asked["top_k"] == 3


def only_texts(body):
    """As `transformers serve`: fields that it does not know are refused one after the other, then a prompt of ids."""
    known = {"model", "prompt", "max_tokens", "temperature", "top_p", "stop", "seed", "logprobs", "generation_config"}
    if unexpected := set(body) - known:
        return 422, {"detail": f"Unexpected fields in the request: {unexpected}"}
    return answer("b", "length") if isinstance(body["prompt"], str) else (400, {"detail": "prompt must be a string."})


def test_a_server_of_texts_is_asked_by_texts():
    with answering(only_texts) as server:
        completions = Completions(Endpoint(server.url, "m", "completions"), MODEL)
        assert not completions.try_out([5, END, 6])
        completions.complete([5, END, 6], 7, TEN, decoded)
        assert server.asked[-1]["prompt"] == "f$g" and '"do_sample": true' in server.asked[-1]["generation_config"]
        with pytest.raises(UserError, match="takes texts alone, and no text has the tokens of a prompt"):
            completions.complete([9], 7, TEN, decoded)


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        ((200, {"choices": []}), "it has no choice with a text"),
        (answer("b", "abort"), "broken off by the server"),
        (answer("b", **vllm([96])), "token ids that the model has not"),
    ],
)
def test_answers_that_are_none(reply, words):
    with pytest.raises(Unusable, match=words):
        complete(reply)


def test_a_server_that_takes_neither_says_why():
    with answering(lambda _: (400, {"error": {"message": "no completions here"}})) as server:
        completions = Completions(Endpoint(server.url, "m", "completions"), MODEL)
        with pytest.raises(UserError, match=r'"no completions here".*; and of a text: .*"no completions here"'):
            completions.try_out([5])
