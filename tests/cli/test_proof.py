"""Judging and rating from the command line: the public responses before a real server, stopped and continued; people's sheets."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.scripted_model import write_scripted_model
from support.stand_in_endpoint import answering, said

from sami_jax.cli import main

REFERENCE = pytest.mark.skipif("SAMI_REFERENCE" not in os.environ, reason="needs the public reference data")


def write_lines(file: Path, rows) -> str:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


@pytest.fixture
def two_files(tmp_path) -> list[str]:
    """Options that name the responses of two models to six queries."""
    rows = [{"id": str(i), "constitution": "1. Be brief.", "query": f"q{i}"} for i in range(6)]
    base = write_lines(tmp_path / "base.jsonl", [{**row, "response": f"=long answer {row['id']}"} for row in rows])
    test = write_lines(tmp_path / "test.jsonl", [{**row, "response": "brief"} for row in rows])
    return ["--baseline", base, "--test", test]


@pytest.mark.slow
@REFERENCE
def test_public_responses_before_a_real_server(server, tmp_path, capsys):
    """250 pairs in both orders; the judging is killed in the middle and started again."""
    reference = Path(os.environ["SAMI_REFERENCE"]) / "tldr"
    judge = tmp_path / "judge"
    write_scripted_model(judge, ["Both are fine.\n", "Final Response: A"])
    output = tmp_path / "verdicts.jsonl"
    argv = ["judge", "--baseline", str(reference / "responses/mistral-opus/base.jsonl")]
    argv += ["--test", str(reference / "responses/mistral-opus/it1.jsonl"), "--output", str(output)]
    argv += ["--queries", str(reference / "queries.jsonl"), "--judge", str(judge), "--endpoint", server]
    cache = output.with_name("verdicts.jsonl.replies")
    process = subprocess.Popen([sys.executable, "-m", "sami_jax.cli", *argv], stderr=subprocess.DEVNULL)
    while process.poll() is None and not (cache.exists() and cache.read_bytes().count(b"\n") >= 100):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = cache.read_bytes().count(b"\n")
    assert 100 <= done < 500 and not output.exists()
    assert main(argv) == 0
    out = capsys.readouterr().out
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    keys = [json.loads(line)["key"] for line in cache.read_text().splitlines()]
    assert len(rows) == 250 and len(set(keys)) == len(keys)
    assert sum(len(row["replies"]) for row in rows) == 500
    # A judge that always says A is a judge that says nothing: ties, all of them flipped with the order.
    assert "250 verdicts: 0 wins, 250 ties, 0 losses, 0 invalid" in out and "flipped with the order: 100.0 %" in out
    assert main(["winrate", "--input", str(output), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["n"] == 250 == found["wins"] + found["ties"] + found["losses"] + found["invalid"]


@pytest.mark.slow
def test_a_local_model_judges(two_files, tmp_path, capsys):
    """The scripted model writes " B" after the prime: whichever response stands second."""
    judge = tmp_path / "judge"
    write_scripted_model(judge, ["Final Response:", " B", " A"])
    output = tmp_path / "v.jsonl"
    assert main(["judge", *two_files, "--output", str(output), "--judge", str(judge)]) == 0
    assert "6 ties" in capsys.readouterr().out
    row = json.loads(output.read_text().splitlines()[0])
    assert row["flipped"] and row["replies"][0]["reply"].endswith("Final Response: B")
    assert (row["baseline_tokens"], row["test_tokens"]) == (len("=long answer 0"), len("brief"))


VERDICT = (200, said("Brief.\n\nFinal Response: A"))


def refuses_options(body: dict):
    """As newer models of OpenAI's do."""
    wrong = next((name for name in ("max_tokens", "temperature", "seed") if name in body), None)
    reason = f"Unsupported parameter: '{wrong}' is not supported with this model."
    return (400, {"error": {"message": reason, "param": wrong, "code": "unsupported_parameter"}}) if wrong else VERDICT


def half_cut_off(body: dict):
    """A reasoning model that gets through in one of the two orders."""
    shown = body["messages"][0]["content"]
    first = shown.index("brief\n") < shown.index("=long answer")
    return VERDICT if first else (200, said(None, finish="length", reasoning_content="Let me think."))


@pytest.mark.parametrize(
    ("answer", "status", "words", "kept"),
    [
        (refuses_options, 0, ["asked without temperature and seed, with max_completion_tokens", "6 verdicts", "0 invalid"], 12),
        (lambda _: (400, {"error": {"message": "No \x1b[31mjudge\nhere"}}), 2, ["none of 12 replies can be used; 12: the request was refused (status 400)", '"No \\x1b[31mjudge here"'], 0),
        (lambda _: (200, said(None, finish="length", reasoning_content="Hm.")), 2, ["12: cut off at 90 tokens", "give more by --max_tokens"], 0),
        (half_cut_off, 0, ["6 invalid", "no verdict in 6 replies: cut off at 90 tokens", "no valid verdict"], 6),
        (lambda _: (200, said("Hm.\nFinal Response: A\nFinal Response: B")), 0, ["6 invalid", "in 12 replies: two different final verdicts"], 0),
        (lambda _: (401, {"error": {"message": "Wrong key"}}), 2, ["not let in (status 401)", '"Wrong key"'], 0),
    ],
)  # fmt: skip
def test_a_server_that_cannot_be_used_says_why_and_costs_nothing_once_mended(
    two_files, tmp_path, capsys, answer, status, words, kept
):
    output = tmp_path / "v.jsonl"
    with answering(answer) as server:
        argv = ["judge", *two_files, "--output", str(output), "--judge", "m", "--max_tokens", "90", "--endpoint"]
        assert main([*argv, server.url]) == status
        said_of_it = capsys.readouterr()
        told = " ".join((said_of_it.out + said_of_it.err).split())
        assert all(word in told for word in words)
        assert said_of_it.err.splitlines()[-1].startswith("sami: ") == (status == 2)
        assert len(output.with_name("v.jsonl.replies").read_text().splitlines()) == kept
        assert len(server.asked) == (12 + 3 * (answer is refuses_options) if "status 401" not in told else 1)
        server.answer, before = (lambda _: VERDICT), len(server.asked)
        assert main([*argv, server.url]) == 0
        assert "6 verdicts: 0 wins, 6 ties, 0 losses, 0 invalid" in capsys.readouterr().out
        assert len(server.asked) - before == 12 - kept


def rated(folder: Path, better: str) -> str:
    """The exported sheet, with one model's response called better in every item."""
    key = json.loads((folder / "key.json").read_text())
    with open(folder / "ratings.csv", newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    for row in rows:
        first = key[row["item"]]["baseline_first"]
        row["better"] = {"baseline": "1" if first else "2", "test": "2" if first else "1"}[better]
    with open(folder / "filled.csv", "w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return str(folder / "filled.csv")


def test_people_rate_blindly(two_files, tmp_path, capsys):
    folder = tmp_path / "ratings"
    assert main(["rate", "export", *two_files, "--output", str(folder)]) == 0
    for file in ("ratings.csv", "label_studio.json"):
        text = (folder / file).read_text()
        assert "baseline" not in text and "base.jsonl" not in text and "test" not in text
    with open(folder / "ratings.csv", newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert len({row["response_1"] for row in rows}) > 1  # sides are shuffled
    assert [row["query"] for row in rows] != [f"q{i}" for i in range(6)]
    assert not any(cell.startswith("=") for row in rows for cell in row.values())
    judged = [{"id": str(i), "constitution": "1. Be brief.", "win": int(i != 0)} for i in range(6)]
    verdicts = write_lines(tmp_path / "judge.jsonl", judged)
    argv = ["--key", str(folder / "key.json"), "--output", str(tmp_path / "people.jsonl"), "--verdicts", verdicts]
    assert main(["rate", "import", rated(folder, "test"), *argv]) == 0
    out = capsys.readouterr().out
    assert "6 verdicts: 6 wins, 0 ties, 0 losses" in out and "Cohen's kappa: 0.00" in out and "n = 6" in out


def test_label_studio_comes_back(two_files, tmp_path, capsys):
    folder = tmp_path / "ratings"
    main(["rate", "export", *two_files, "--output", str(folder)])
    tasks = json.loads((folder / "label_studio.json").read_text())
    for task, choice in zip(tasks, ["1", "2", "tie", "1", "2", "tie"], strict=True):
        result = {"from_name": "better", "to_name": "query", "type": "choices", "value": {"choices": [choice]}}
        task["annotations"] = [{"completed_by": 1, "result": [result]}, {"was_cancelled": True, "result": []}]
    (folder / "done.json").write_text(json.dumps(tasks))
    argv = ["--key", str(folder / "key.json"), "--output", str(tmp_path / "people.jsonl")]
    assert main(["rate", "import", str(folder / "done.json"), *argv]) == 0
    assert "6 verdicts" in capsys.readouterr().out
    assert sum(json.loads(line)["win"] == 0.5 for line in (tmp_path / "people.jsonl").read_text().splitlines()) == 2


def test_bad_ratings_are_named(two_files, tmp_path, capsys):
    folder = tmp_path / "ratings"
    main(["rate", "export", *two_files, "--output", str(folder)])
    key, output = ["--key", str(folder / "key.json")], ["--output", str(tmp_path / "people.jsonl")]
    item = next(iter(json.loads((folder / "key.json").read_text())))
    for content, words in (
        (f"item,better\n{item},3\n", "row 2: '3' is no rating"),
        ("item,better\nx,1\n", "row 2: item 'x' is not in"),
        (f"item,better\n{item},\n", "no item is rated"),
    ):
        (tmp_path / "r.csv").write_text(content)
        capsys.readouterr()
        assert main(["rate", "import", str(tmp_path / "r.csv"), *key, *output]) == 2
        assert words in capsys.readouterr().err
    (tmp_path / "r.json").write_text("[{}]")
    assert main(["rate", "import", str(tmp_path / "r.json"), *key, *output]) == 2
    assert "neither a filled ratings.csv nor an export of Label Studio" in capsys.readouterr().err
