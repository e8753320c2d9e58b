"""A server as the engine: held against the model, asked in order, told which model to load."""

import json
import shutil
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.complaint import complaint
from support.letters import MODEL, answer, decoded
from support.stand_in_endpoint import answering

from sami_jax import miniature
from sami_jax.cli import main
from sami_jax.config import defaults
from sami_jax.contrast.scoring import score_tokens
from sami_jax.data.batches import ContrastExample
from sami_jax.errors import UserError
from sami_jax.models.pretrained import open_model
from sami_jax.sampling.decoding import generate
from sami_jax.sampling.drawing import SamplingOptions
from sami_jax.sampling.rollout import write_responses
from sami_jax.sampling.samplers import OwnSampler, Prompt
from sami_jax.serving import engine as engines
from sami_jax.serving.agreement import Agreement
from sami_jax.serving.engine import ServerEngine, open_engine

PROMPTS = [Prompt({"id": n}, list(range(1, 4 + n)), seed=n) for n in range(6)]
OPTIONS = SamplingOptions(temperature=0.9, max_new_tokens=5)


def config_of(url: str, **fields):
    config = defaults()
    config.sampling.engine, config.server.address, config.server.concurrency = "server", url, 2
    config.server.update(fields)
    return config


@pytest.fixture(scope="module")
def computing(small_params, mesh):
    """A server that computes the small model as we do, off by so many nats a token."""

    def serving(off: float = 0.0, logprobs: bool = True):
        def reply(body: dict):
            if "prompt" not in body:
                return 200, {}
            options = SamplingOptions(body["temperature"], max_new_tokens=body["max_tokens"])
            how: dict[str, Any] = dict(end_tokens=MODEL.end_tokens, decode=decoded, mesh=mesh, batch_size=1)
            [one] = generate(dict(small_params), MODEL.config, [body["prompt"]], [body["seed"]], options, **how)
            found = None
            if logprobs:
                example = ContrastExample((tuple(body["prompt"]),), (one.token_ids,))
                [(_, scored)] = score_tokens(small_params, MODEL.config, [example], mesh, 1)
                found = {"tokens": [*map(str, one.token_ids)], "token_logprobs": (scored[0] + off).tolist()}
            ids = [*one.token_ids]
            if off and not logprobs:  # a model of its own mind
                ids = [7] * len(ids)
            return answer(one.text, one.finish_reason, len(ids), token_ids=ids, logprobs=found)

        return answering(reply)

    return serving


def sampler(engine, small_params, model=MODEL):
    return engine.sampler(model, small_params)


def test_the_same_model_agrees_and_says_the_same(computing, small_params, mesh, tmp_path, capsys):
    own = OwnSampler(MODEL, small_params, mesh, 4)
    wanted = [*own.responses(PROMPTS, OPTIONS, decoded)]
    with computing() as server, open_engine(config_of(server.url), mesh, tmp_path) as engine:
        served = sampler(engine, small_params)
        rows = write_responses(tmp_path / "r.jsonl", served, PROMPTS, OPTIONS, "sampling")
        assert [row["response"] for row in rows] == [one.text for one in wanted]
        assert [row["token_ids"] for row in rows] == [[*one.token_ids] for one in wanted]
        asked = len(server.asked)
        assert write_responses(tmp_path / "r.jsonl", served, PROMPTS, OPTIONS, "sampling") == rows
        assert len(server.asked) == asked == 1 + len(PROMPTS) + len(PROMPTS)  # the first of all finds out what it takes
    assert "server and trainer differ in none by 0.0000 nats a token in the mean" in capsys.readouterr().err
    [kept] = map(json.loads, (tmp_path / "agreement.jsonl").read_text().splitlines())
    assert kept["mean"] < 1e-4 and kept["by"] == "log-probs" and kept["tokens"] > 20


@pytest.mark.slow
@pytest.mark.parametrize(
    ("off", "logprobs", "words"),
    [
        (0.3, True, "by 0.3000 nats a token in the mean, 0.300 at most, over"),
        (1.0, False, "by likeliest tokens; at most"),
    ],
)
def test_another_model_is_refused(computing, small_params, mesh, tmp_path, off, logprobs, words):
    with computing(off, logprobs) as server, open_engine(config_of(server.url), mesh, tmp_path) as engine:
        served = sampler(engine, small_params)
        with pytest.raises(UserError, match="the server differs from the model") as refused:
            next(served.responses(PROMPTS, OPTIONS, decoded))
    assert words in str(refused.value) and "config.server.disagreement=0.1 is allowed" in str(refused.value)


@pytest.mark.slow
def test_one_without_logprobs_is_held_against_by_its_likeliest_tokens(computing, small_params, mesh, tmp_path, capsys):
    with computing(logprobs=False) as server, open_engine(config_of(server.url), mesh, tmp_path) as engine:
        assert len([*sampler(engine, small_params).responses(PROMPTS[:2], OPTIONS, decoded)]) == 2
    assert "by 0.0000 nats a token in the mean, 0.000 at most" in capsys.readouterr().err


def test_a_server_that_is_there_is_told_to_load(computing, small_params, mesh, tmp_path):
    load = ("/update_weights_from_disk", "model_path")
    with computing() as server, open_engine(config_of(server.url, load=load), mesh, tmp_path) as engine:
        for _ in range(2):
            next(sampler(engine, small_params).responses(PROMPTS[:1], OPTIONS, decoded))
        loads = [body for body in server.asked if "prompt" not in body]
        assert loads == [{"model_path": str(Path("none").absolute())}] == [server.asked[0]]


@pytest.fixture
def agreeing(monkeypatch):
    monkeypatch.setattr(engines, "agreement", lambda *_: Agreement(0.0, 0.0, 1, "log-probs"))


def test_what_came_before_a_failure_is_kept_and_gone_on_from(agreeing, mesh, tmp_path):
    failing = True

    def reply(body: dict):
        if failing and body["prompt"] == PROMPTS[3].ids:
            return 400, {"error": {"message": "out of memory"}}
        return answer("b", "length", 1, token_ids=[len(body["prompt"])])

    with answering(reply) as server, open_engine(config_of(server.url), mesh, tmp_path) as engine:
        served, given = sampler(engine, {}), (PROMPTS, OPTIONS, "sampling")
        with pytest.raises(UserError, match="out of memory"):
            write_responses(tmp_path / "r.jsonl", served, *given)
        assert len((tmp_path / "r.jsonl.partial").read_text().splitlines()) == 3
        failing, before = False, len(server.asked)
        rows = write_responses(tmp_path / "r.jsonl", served, *given)
        assert [row["token_ids"] for row in rows] == [[len(prompt.ids)] for prompt in PROMPTS]
        anew = [body["prompt"] for body in server.asked[before:]]
        assert all((prompt.ids in anew) == (place >= 3) for place, prompt in enumerate(PROMPTS))


def test_no_more_requests_than_allowed_are_under_way(agreeing, mesh, tmp_path):
    now, most, lock = [0], [0], threading.Lock()

    def reply(_):
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.02)
        with lock:
            now[0] -= 1
        return answer("b", "length", token_ids=[1])

    with answering(reply) as server, open_engine(config_of(server.url, concurrency=3), mesh, tmp_path) as engine:
        assert len([*sampler(engine, {}).responses(PROMPTS * 3, OPTIONS, decoded)]) == 18
    assert most == [3]


def test_texts_without_their_tokens_are_counted(agreeing, mesh, tmp_path, capsys):
    with (
        answering(lambda _: answer("bc", "length", 9)) as server,
        open_engine(config_of(server.url), mesh, tmp_path) as engine,
    ):
        assert len([*sampler(engine, {}).responses(PROMPTS, OPTIONS, decoded)]) == 6
    assert "of 6 of 6 responses the server gave no tokens that spell them" in capsys.readouterr().err


def test_sample_by_a_server(agreeing, tmp_path, capsys):
    """Ids of the miniature come back as its words."""
    model = open_model(miniature.BASE)
    said = model.tokenizer.encode(" Thank you for asking.", add_special_tokens=False)
    (tmp_path / "in.jsonl").write_text('{"id": 1, "prompt": "How do I fix the bike?"}\n{"id": 2, "prompt": "Hello"}\n')
    argv = ["sample", "--model", str(miniature.BASE), "--input", str(tmp_path / "in.jsonl"), "--temperature", "0.7"]
    ids = [*said, model.end_tokens[0]]
    with answering(lambda _: answer("as others spell it", "stop", len(ids), token_ids=ids)) as server:
        fields = ["--config.sampling.engine=server", f"--config.server.address={server.url}", "--top_k", "5"]
        assert main([*argv, "--output", str(tmp_path / "out.jsonl"), "--seed", "3", *fields]) == 0
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    wanted = {"response": " Thank you for asking.", "tokens": len(said), "finish_reason": "stop"}
    assert all(row == {"id": row["id"], **wanted, "token_ids": ids} for row in rows)
    asked = server.asked[-2:]
    assert {body["temperature"] for body in asked} == {0.7} and {body["top_k"] for body in asked} == {5}
    assert len({body["seed"] for body in asked}) == 2 and asked[0]["model"] == str(miniature.BASE.absolute())
    assert sorted(body["prompt"] for body in asked) == sorted(
        model.tokenizer.encode(text) for text in ("How do I fix the bike?", "Hello")
    )


@pytest.mark.slow
def test_compare_by_a_server(agreeing, tmp_path):
    """Each of the two is asked for by its own name; what comes back is what is judged."""
    other = shutil.copytree(miniature.BASE, tmp_path / "other")
    model = open_model(miniature.BASE)
    said = {str(miniature.BASE.absolute()): " Hello.", str(other): " Thank you for asking."}
    ids = {name: model.tokenizer.encode(text, add_special_tokens=False) for name, text in said.items()}

    def reply(body: dict):
        own = [*ids[body["model"]], model.end_tokens[0]]
        return answer("as others spell it", "stop", len(own), token_ids=own)

    argv = ["compare", "--config=tiny", "--test", str(other), "--judge", "miniature", "--output", str(tmp_path / "c")]
    with answering(reply) as server:
        fields = ["--config.sampling.engine=server", f"--config.server.address={server.url}"]
        assert main([*argv, *fields, "--config.evaluation.queries=3"]) == 0
    for role, text in zip(("baseline", "test"), said.values(), strict=True):
        rows = [json.loads(line) for line in (tmp_path / "c" / f"{role}.jsonl").read_text().splitlines()]
        assert rows and {row["response"].strip() for row in rows} == {text.strip()}
    assert json.loads((tmp_path / "c" / "comparison.json").read_text())["win_rate"]


def test_adapters_are_not_served(mesh, tmp_path):
    with pytest.raises(UserError, match="serves whole models, and these are adapters"):
        ServerEngine(config_of("x"), mesh, tmp_path).sampler(SimpleNamespace(adapter=Path("a"), place=Path("a")), {})  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (["--config.server.address="], "config.server.command=(): must be a command, or () and server.address given"),
        (["--config.server.command=('x',)"], "must be a command, or () and server.address given"),
        (["--config.server.address=", "--config.server.command=('x','{port}')"], "must be a command that takes {model}"),
        (["--config.server.load=('x','y')"], "must be a path and a field"),
        (["--config.server.gguf=f16"], "must be '' where server.command is ()"),
        (["--config.server.disagreement=0.0"], "config.server.disagreement=0.0: must be above 0"),
        (["--config.sampling.contrast=1.0"], "must be 0 where sampling.engine is 'server'"),
        (["--config.server.address=", "--config.server.command=('no-such','{model}','{port}')"], "no program 'no-such' here"),
        (["--config.server.address=localhost:1"], "localhost:1: not an address"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be_in_one_line(tmp_path, capsys, fields, words):
    (tmp_path / "in.jsonl").write_text('{"id": 1, "prompt": "Hello"}\n')
    argv = ["sample", "--model", str(miniature.BASE), "--input", str(tmp_path / "in.jsonl")]
    server = ["--config.sampling.engine=server", "--config.server.address=http://127.0.0.1:1/v1"]
    assert words in complaint(capsys, *argv, "--output", str(tmp_path / "out"), *server, *fields)
