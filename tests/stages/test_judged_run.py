"""Runs whose judge is asked: a model behind a server, a model's folder. A bounded number, told before, and nothing twice."""

import json
import re

import pytest
from support.short_run import changed
from support.stand_in_endpoint import answering

from sami_jax import miniature
from sami_jax.cli import main
from sami_jax.data.jsonl import read_jsonl

ONE_UPDATE = ("--config.train.updates=(1,)", "--config.train.batch_size=16")  # two a device, on eight
ONE_ITERATION = changed(*ONE_UPDATE, "--config.evaluation.judged=4")


def reply(body: dict) -> tuple:
    """Judges by the length of what it is asked, so that not all verdicts are the same."""
    letter = "AB"[len(body["messages"][0]["content"]) % 2]
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": f"Final Response: {letter}"},
        "finish_reason": "stop",
    }
    return 200, {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}


def evaluated(workdir, iteration) -> dict:
    return json.loads((workdir / f"iteration_{iteration}" / "evaluation.json").read_text())


@pytest.mark.slow
def test_a_server_judges_a_run_and_is_asked_nothing_twice(tmp_path, capsys):
    with answering(reply) as server:
        judge = ["--config.evaluation.judge=my-judge", f"--config.evaluation.endpoint={server.url}"]
        argv = ["run", *ONE_ITERATION, *judge, "--workdir", str(tmp_path)]
        assert main(argv) == 0
        most = int(
            re.search(r"my-judge: is asked at most ([\d,]+) questions", capsys.readouterr().err)[1].replace(",", "")
        )
        asked = len(server.asked)
        assert 0 < asked <= most
        for iteration in (0, 1):
            found = evaluated(tmp_path, iteration)["trained"]
            assert found["judged"] == 4 and 0 <= found["following"] <= 1
        assert evaluated(tmp_path, 1)["trained"]["win_rate"] >= 0
        # As after a kill before the last measurement was written: it is made again from what was said.
        before = evaluated(tmp_path, 1)
        (tmp_path / "iteration_1" / "evaluation.json").unlink()
        assert main(argv) == 0 and evaluated(tmp_path, 1) == before and len(server.asked) == asked
    verdicts = read_jsonl(tmp_path / "iteration_1" / "evaluation" / "trained.verdicts.jsonl")
    assert sum(bool(row["followed"]) for row in verdicts) == 4
    assert main(["report", str(tmp_path)]) == 0 and "my-judge" in (tmp_path / "report.html").read_text()


@pytest.mark.slow
def test_a_folder_judges_a_run(tmp_path, capsys):
    judge = [
        f"--config.evaluation.judge={miniature.BASE}",
        "--config.evaluation.judged=2",
        "--config.canaries.action=off",
    ]
    short = changed(*ONE_UPDATE, "--config.prompt.max_tokens=128", "--config.evaluation.queries=2")
    status = main(["run", *short, *judge, "--workdir", str(tmp_path)])
    # The miniature's context is too short for a judge's question: one line, and what was sampled is kept.
    assert status == 2 and "a question longer than the judge's context" in capsys.readouterr().err
    assert (tmp_path / "iteration_0" / "evaluation" / "trained.jsonl").exists()


def test_a_judge_that_is_nowhere_is_refused_at_once(tmp_path, capsys):
    assert main(["run", *ONE_ITERATION, "--config.evaluation.judge=nobody", "--workdir", str(tmp_path)]) == 2
    assert "config.evaluation.judge='nobody': no folder of a model here" in capsys.readouterr().err
    assert main(["run", *ONE_ITERATION, "--config.evaluation.judge=checks", "--workdir", str(tmp_path)]) == 2
    assert "config.evaluation.judge='checks': no principle in " in capsys.readouterr().err
    url = "--config.evaluation.endpoint=http://127.0.0.1:9/v1"
    assert main(["run", *ONE_ITERATION, url, "--workdir", str(tmp_path)]) == 2
    assert "must be a model that config.evaluation.endpoint has" in capsys.readouterr().err
