"""No part of a key in anything that a command says, wherever the key came in."""

import json
import subprocess
import sys

import pytest

from sami_jax.cli import main
from sami_jax.provenance.manifest import RunRecord

KEY = "my-vllm-token-123"


@pytest.fixture(autouse=True)
def planted(monkeypatch, tmp_path):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    "argv",
    [
        ["winrate", "--input", KEY],
        ["winrate", "--input", "v.jsonl", "--ties", KEY],
        ["winrate", "--input", "v.jsonl", f"--{KEY}"],
        ["run", "--config", KEY],
        ["run", "--config=tiny", f"--config.{KEY}=1"],
        ["run", "--config=tiny", f"--config.seed={KEY}"],
        ["judge", "--baseline", "a", "--test", "b", "--output", "o", "--judge", "m", "--max_tokens", KEY],
        ["principles", "list"],
        ["principles", "list", "--json"],
        ["principles", "show", "key"],
    ],
)
def test_what_a_command_says(capsys, argv, tmp_path):
    folder = tmp_path / "principles"
    folder.mkdir()
    (folder / "key.yaml").write_text(f"id: key\nprinciple: Say {KEY}.\nantithesis: Say no thanks.\n")
    try:
        main(argv)
    except SystemExit as end:
        assert end.code == 2
    told = capsys.readouterr()
    assert told.out + told.err
    assert "my-vllm" not in told.out + told.err and "token-123" not in told.out + told.err


def test_a_fault_of_ours_is_shown_without_it():
    program = (
        f"import sys, sami_jax.cli.start as c; sys.excepthook = c._show_crash; raise RuntimeError({KEY!r} + ' failed')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.endswith("RuntimeError: *** failed\n")


def test_what_was_masked_is_not_read_back(capsys, tmp_path):
    """A prompt that run.json cannot tell is not explained with *** in it."""
    prompt = {"training": f"Say {KEY}. {{query}}", "max_tokens": 64}
    made_from = {
        "config": {
            "prompt": prompt,
            "filter": {"prefix": "", "cut_at": []},
            "constitutions": {"count": 2},
            "objective": {"normalize": "mean"},
            "evaluation": {"judge": "none"},
        },
        "seed": 0,
        "review": {"unapproved": []},
        "principles": [],
        "inputs": {},
        "base_model": {"path": "base", "files": {}},
        "status": "running",
    }
    RunRecord(tmp_path / "run", made_from, {"kind": "cpu", "count": 1})
    assert (
        json.loads((tmp_path / "run/run.json").read_text())["predicate"]["config"]["prompt"]["training"]
        == "Say ***. {query}"
    )
    assert main(["explain", str(tmp_path / "run")]) == 2
    assert "config.prompt.training held a secret, which run.json does not keep" in capsys.readouterr().err
