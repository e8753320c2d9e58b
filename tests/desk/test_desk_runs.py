"""Runs on the desk: how far each is while it goes on, and its report."""

import json

import pytest
from support.desk import Browser, text_of
from support.fabricated_run import fabricate, write
from support.quick import others_slow

from sami_jax.desk.pages import Places
from sami_jax.errors import UserError
from sami_jax.provenance.manifest import RunRecord
from sami_jax.report.data import gather
from sami_jax.report.texts import Words
from sami_jax.report.write import render


@pytest.fixture
def browser(tmp_path) -> Browser:
    (tmp_path / "runs").mkdir()
    return Browser(Places(runs=tmp_path / "runs"))


def live(browser: Browser) -> str:
    return text_of(browser.get("/runs/demo/live").text)


def test_a_run_is_followed_from_its_beginning(browser, tmp_path):
    from support.fabricated_run import predicate

    run = tmp_path / "runs" / "demo"
    assert "No run is here yet." in text_of(browser.get("/runs").text)
    made_from = predicate()
    made_from["config"]["train"] = {"updates": [3, 3]}
    record = RunRecord(run, made_from, {"kind": "cpu", "count": 1, "processes": 1})
    assert "Measuring, iteration 0" in live(browser) and "Nothing is measured yet." in live(browser)
    first = run / "iteration_1"
    record.stage("evaluated", 0, [])
    assert "Sampling responses, iteration 1" in live(browser)
    write(
        first / "responses.jsonl.partial",
        *({"id": n, "constitution": "1. C", "response": f"Response {n}."} for n in range(9)),
    )
    with open(first / "responses.jsonl.partial", "a") as stream:
        stream.write('{"id": 10, "response": "To')
    text = live(browser)
    assert (
        text.index("Response 8.") < text.index("Response 7.") and "Response 5." not in text and "To" not in text.split()
    )
    record.stage("sampled", 1, [])
    write(first / "metrics.jsonl", *({"step": n, "loss": 0.7 - 0.1 * n, "mi_posterior_bound": 0.1 * n} for n in (1, 2)))
    write(first / "canaries.jsonl", {"update": 0, "following": 0.5, "mi_share": 0.25, "mean_tokens": 20.0})
    text = live(browser)
    assert (
        "Training, iteration 1" in text and "iteration 1 2 / 3 50.0 % - 0.200 0.500" in text and "25.0 % 20.0" in text
    )
    with open(first / "metrics.jsonl", "a") as stream:  # torn
        stream.write('{"step": 3, "lo')
    assert "2 / 3" in live(browser)
    with open(run / "audit.jsonl", "a") as stream:
        stream.write('{"number": 9')
    assert "Training, iteration 1" in live(browser) and "Training, iteration 1" in text_of(browser.get("/runs").text)


def test_a_run_that_is_over(browser, tmp_path):
    fabricate(tmp_path / "runs" / "demo")
    fabricate(tmp_path / "runs" / "stopped", stopped={"last_good": 2})
    page = browser.get("/runs/demo").text
    assert (
        "Complete" in page and "wins over the base" in page and 'id="follow"' not in page and "<noscript>" not in page
    )
    text = text_of(browser.get("/runs/stopped").text)
    assert (
        "Stopped by canaries" in text and "Canaries stopped iteration 1 after update 3: length: <b>replies</b>" in text
    )
    text = text_of(browser.get("/runs").text)
    assert "demo Complete" in text and "stopped Stopped by canaries" in text


@pytest.mark.parametrize("language", others_slow(["en", "ja"], "ja"))
def test_the_report_is_that_of_the_command(browser, tmp_path, language):
    run = fabricate(tmp_path / "runs" / "demo")
    for _ in range(2):  # the second is remembered
        answer = browser.get("/runs/demo/report", headers={"Accept-Language": language})
        assert answer.text == render(gather(run), Words(language))
    (run / "iteration_1/evaluation.json").write_text("{}")
    assert (
        "evaluation.json: was changed since" in browser.get("/runs/demo/report", headers={"Accept-Language": "en"}).text
    )


def test_damaged_runs_are_said_and_others_are_shown(browser, tmp_path):
    fabricate(tmp_path / "runs" / "good")
    bad = fabricate(tmp_path / "runs" / "bad")
    (bad / "run.json").write_text("{}")
    text = text_of(browser.get("/runs").text)
    assert "good Complete" in text and "damaged manifest" in text
    assert browser.get("/runs/bad").status_code == 400 and browser.get("/runs/bad/report").status_code == 400
    (bad / "run.json").write_text((tmp_path / "runs/good/run.json").read_text())
    (bad / "iteration_1/metrics.jsonl").write_text('{"step": "x"}\n')
    assert "metrics.jsonl:1: step is" in text_of(browser.get("/runs/bad/live").text)


def test_secrets_are_masked(browser, tmp_path):
    run = fabricate(tmp_path / "runs" / "demo")
    row = {"id": 1, "query": "My key: sk-abcdefghij0123456789", "response": "sk-abcdefghij0123456789"}
    (run / "iteration_1/responses.jsonl.partial").write_text(json.dumps(row) + "\n")
    assert "***" in live(browser) and "abcdefghij" not in live(browser)


def test_the_folder_of_one_run_or_none_is_said(tmp_path):
    fabricate(tmp_path / "demo")
    with pytest.raises(UserError, match="the folder of one run; give the one that it is in"):
        Browser(Places(runs=tmp_path / "demo"))
    with pytest.raises(UserError, match="no such folder of runs"):
        Browser(Places(runs=tmp_path / "none"))
