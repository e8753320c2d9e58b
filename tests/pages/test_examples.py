"""Every example, as a user would start it: in an empty folder, on one device."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.flags import environment

EXAMPLES = Path(__file__).parents[2] / "examples"


def shown(name: str, folder: Path) -> str:
    argv = [sys.executable, str(EXAMPLES / name)]
    done = subprocess.run(argv, cwd=folder, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def numbers(pattern: str, text: str) -> list[float]:
    return [float(found) for found in re.findall(pattern, text)]


@pytest.mark.slow
def test_score(tmp_path):
    told = shown("score.py", tmp_path)
    assert len(numbers(r"(-\d+\.\d+)(?=  )", told)) == 4
    (least,) = numbers(r"at least (\S+) nats", told)
    assert 0 < least < 0.693


@pytest.mark.slow
def test_sample(tmp_path):
    told = shown("sample.py", tmp_path)
    assert told.count(" -> ") == told.count("1. ") == 4 and "How do I fix the bike?" in told


@pytest.mark.slow
def test_update(tmp_path):
    information = numbers(r"information (\S+) nats", shown("update.py", tmp_path))
    assert len(information) == 8 and information[-1] > information[0] + 0.02
    assert (tmp_path / "aligned/model.safetensors").exists()


@pytest.mark.slow
def test_run(tmp_path):
    told = shown("run.py", tmp_path)
    for name in ("base", "iteration 1", "iteration 2"):
        assert len(numbers(rf" {name} .* (\d+\.\d)% followed", told)) == 3, told
    assert (tmp_path / "runs/example/report.html").exists()


@pytest.mark.slow
def test_explain(tmp_path):
    told = shown("explain.py", tmp_path)
    words = re.findall(r"(\S+)\[([+-]\d\.\d\d)\]", told)
    assert len(words) > 10 and any(float(nats) > 0.1 for _, nats in words)


def test_each_is_short_and_tested():
    files = sorted(EXAMPLES.glob("*.py"))
    assert [file.stem for file in files] == ["explain", "run", "sample", "score", "update"]
    assert all(len(file.read_text().splitlines()) <= 40 for file in files)
