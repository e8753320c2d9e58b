"""One model behind a server: options that it refuses, refusals in its own words, keys that nobody sees."""

import base64
import gzip
import json

import pytest
from support.stand_in_endpoint import answering, said

from sami_jax.errors import TryAgain, UserError
from sami_jax.ground.endpoint import Endpoint, Refused, Unusable
from sami_jax.ground.redaction import redact

KEY = "my-vllm-token-123"


@pytest.fixture(autouse=True)
def fast(monkeypatch):
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.01)


def ask(endpoint: Endpoint, prompt: str = "Which?") -> str:
    return endpoint.complete(prompt, temperature=0.0, max_tokens=400, seed=0)


def refusing(*names: str):
    """A server that refuses options by name, one at a time."""

    def answer(body: dict):
        wrong = next((name for name in names if name in body), None)
        message = f"Unsupported parameter: '{wrong}' is not supported with this model."
        return (400, {"error": {"message": message, "param": wrong}}) if wrong else (200, said("A"))

    return answer


@pytest.mark.parametrize(
    ("refused", "left", "told"),
    [
        (["seed"], ["max_tokens", "temperature"], "asked without seed: the server refused: "),
        (["max_tokens"], ["max_completion_tokens", "seed", "temperature"], "asked with max_completion_tokens in place of max_tokens"),
        (["max_tokens", "temperature", "seed"], ["max_completion_tokens"], "asked without temperature and seed, with max_completion_tokens in place"),
        (["max_tokens", "max_completion_tokens"], ["seed", "temperature"], "asked without max_tokens and max_completion_tokens: "),
    ],
)  # fmt: skip
def test_refused_options_are_left_out_once_and_said_once(capsys, refused, left, told):
    with answering(refusing(*refused)) as server:
        endpoint = Endpoint(server.url, "m")
        assert [ask(endpoint) for _ in range(3)] == ["A"] * 3
    assert len(server.asked) == 3 + len(refused)
    assert all(sorted(body.keys() - {"messages", "model"}) == left for body in server.asked[len(refused) :])
    err = capsys.readouterr().err
    assert told in err.replace("\n", " ") and err.count("the server refused") == 1 and "Unsupported parameter: " in err


def test_an_option_refused_later_is_left_out_too(capsys):
    """Of two servers behind one address, only the second refuses."""
    answers = [(200, said("A")), (422, {"detail": [{"loc": ["body", "seed"], "msg": "extra"}]}), (200, said("B"))]
    with answering(lambda _: answers.pop(0)) as server:
        endpoint = Endpoint(server.url, "m")
        assert (ask(endpoint), ask(endpoint)) == ("A", "B")
    assert "asked without seed" in capsys.readouterr().err and "seed" not in server.asked[-1]


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        ((400, {"error": {"message": "no such thing"}}), Refused, 'refused (status 400): "no such thing"; check the model'),
        ((400, {"error": {"message": "max_tokens is too large: 400. At most 100.", "param": "max_tokens"}}), Refused, "give fewer by --max_tokens"),
        ((400, {"error": {"message": "context length exceeded"}}), Refused, 'too long for the model (status 400): "context length exceeded"'),
        ((400, {"error": {"message": "no", "code": "content_filter"}}), Refused, "withheld by the server's filter (status 400)"),
        ((403, {"error": {"message": "requires moderation; your input was flagged"}}), Refused, "withheld by the server's filter (status 403)"),
        ((403, {"error": {"message": "wrong project"}}), UserError, 'not let in (status 403): "wrong project"; put the key'),
        ((429, {"error": {"message": "You exceeded your quota"}}), TryAgain, 'too many requests (status 429), 5 times: "You exceeded your quota"'),
        ((500, "out of memory"), TryAgain, 'the server failed (status 500), 5 times: "out of memory"'),
        ((200, {"error": {"message": "overloaded"}}), Refused, 'an error in place of a reply: "overloaded"'),
        ((200, "<html><title>Log in</title></html>"), Refused, 'not of the OpenAI protocol (it is no JSON): "Log in"'),
        ((200, said("So", finish="length")), Unusable, "cut off at 400 tokens; give more by --max_tokens"),
        ((200, said(None, refusal="I cannot.")), Unusable, 'the model refused: "I cannot."'),
        ((400, "x" * 1000), Refused, f'"{"x" * 199}\u2026"'),
    ],
)  # fmt: skip
def test_why_there_is_no_reply(answer, kind, words):
    with answering(lambda _: answer) as server, pytest.raises(UserError) as error:
        ask(Endpoint(server.url, "m"))
    assert words in str(error.value) and type(error.value) is kind


@pytest.mark.parametrize("api", ["chat", "completions"])
def test_both_apis_and_bytes_that_are_no_utf8(api):
    answer = {"choices": [{"text": "A", "finish_reason": "stop"}]} if api == "completions" else said("caf\u00e9")
    with answering(lambda _: (200, json.dumps(answer, ensure_ascii=False).encode("latin-1"))) as server:
        assert ask(Endpoint(server.url, "m", api)) == ("A" if api == "completions" else "caf\ufffd")


def test_compressed_answers():
    with answering(
        lambda _: (200, gzip.compress(json.dumps(said("A")).encode()), {"Content-Encoding": "gzip"})
    ) as server:
        assert ask(Endpoint(server.url, "m")) == "A"


def test_white_space_around_a_key_is_dropped(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", f" {KEY}\n")
    with answering(lambda _: (200, said("A"))) as server:
        ask(Endpoint(server.url, "m"))
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize("key", ["my-vllm\ntoken-123", "my-vllm-token-12\u2026", "my-vllm\x7ftoken-123"])
def test_a_key_that_no_header_can_carry(monkeypatch, key):
    monkeypatch.setenv("JUDGE", key)
    with pytest.raises(UserError, match=r"JUDGE: the key's character \d+ of \d+ is one that cannot be sent") as error:
        Endpoint("http://localhost:1/v1", "m", key_variable="JUDGE")
    assert "vllm" not in str(error.value) and "token" not in str(error.value)


@pytest.mark.parametrize(
    "spelled",
    [KEY, "my-vllm-*****-123", "****-123", "my-vllm-t...", "my%2Dvllm%2Dtoken%2D123", "my-vllm-token-1", base64.b64encode(f"user:{KEY}".encode()).decode()],
)  # fmt: skip
def test_the_key_comes_back_in_no_form(monkeypatch, spelled):
    """From a variable of any name, in the server's words."""
    monkeypatch.setenv("JUDGE", KEY)
    with (
        answering(lambda _: (401, {"error": {"message": f"Incorrect API key: {spelled}."}})) as server,
        pytest.raises(UserError) as error,
    ):
        ask(Endpoint(server.url, "m", key_variable="JUDGE"))
    words = str(error.value).partition("(status 401): ")[2]
    assert words.startswith('"Incorrect API key: ***') and "vllm" not in words and "123" not in words


def test_a_word_as_a_key_is_masked_in_the_servers_words_alone(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sunshine")
    with (
        answering(lambda _: (401, {"error": {"message": "sunshine is no key, sunshiny neither"}})) as server,
        pytest.raises(UserError, match=r"\*\*\* is no key, sunshiny neither"),
    ):
        ask(Endpoint(server.url, "m"))
    assert redact("sunshine") == "sunshine"


def test_a_login_in_the_address_is_used_and_not_shown():
    with answering(lambda _: (500, "no")) as server:
        endpoint = Endpoint(server.url.replace("//", "//ann:s3cret-pass@"), "m")
        with pytest.raises(UserError) as error:
            ask(endpoint)
    assert server.headers[0]["authorization"] == "Basic " + base64.b64encode(b"ann:s3cret-pass").decode()
    assert "//***@127.0.0.1" in str(error.value) and "s3cret" not in str(error.value) + endpoint.where


@pytest.mark.parametrize("name", [KEY, "0123456789abcdef", "abcdef0123456789", ""])
def test_a_key_in_place_of_its_variable(name):
    with pytest.raises(UserError, match="give the name of the variable, not the key") as error:
        Endpoint("http://localhost:1/v1", "m", key_variable=name)
    assert not name or name not in str(error.value)


@pytest.mark.parametrize(
    "url",
    ["ann:s3cret-pass@host/v1", "http://ann:s3cret-pass@host:port/v1", "ftp://ann:s3cret-pass@host", "http://[::1/v1"],
)
def test_an_address_that_is_none(url):
    with pytest.raises(UserError) as error:
        Endpoint(url, "m")
    assert "s3cret" not in str(error.value)
