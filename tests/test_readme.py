"""The README's commands, in their order and in an empty folder, as a new user would type them. Training is cut short."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from sami_jax import miniature

README = Path(__file__).parent.parent / "README.md"
SHORTER = ["--config.train.updates=(1,)", "--config.evaluation.queries=4", "--config.sampling.batch_size=16"]


def commands(section: str) -> list[list[str]]:
    """The `sami` commands of a section's first code block."""
    text = README.read_text(encoding="utf-8").split(f"## {section}\n", 1)[1]
    block = re.search(r"```\n(.*?)```", text, flags=re.DOTALL)[1]
    return [shlex.split(line) for line in block.splitlines() if line.startswith("sami ")]


@pytest.mark.slow
def test_your_own_principles(tmp_path):
    shown = ""
    for _, *argv in commands("Your own principles"):
        more = SHORTER if argv[0] == "run" else []
        done = subprocess.run(
            [sys.executable, "-m", "sami_jax.cli", *argv, *more], cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{argv}: {done.stderr}"
        shown += done.stdout
    assert "runs/mine: as recorded" in shown and "runs/mine/iteration_1/model" in shown
    predicate = json.loads((tmp_path / "runs/mine/run.json").read_text())["predicate"]
    assert [record["approved_by"] for record in predicate["principles"]] == [["Aiko Tanaka"]] * 3


@pytest.mark.slow
def test_is_it_better(tmp_path):
    """The comparison, with the base in the place of a trained model."""
    [[_, *argv]] = commands("Is it better?")
    argv[argv.index("--test") + 1] = str(miniature.BASE)
    done = subprocess.run(
        [sys.executable, "-m", "sami_jax.cli", *argv, *SHORTER], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0 and "no difference shown" in done.stdout.splitlines()[-1], done.stderr
    assert (tmp_path / "ab/run.json").exists()


def test_every_verb_in_the_readme_exists():
    from sami_jax.cli.parser import new_parser

    parser = new_parser()
    text = README.read_text(encoding="utf-8")
    mentioned = {tuple(words.split()) for words in re.findall(r"`sami ((?:principles )?[a-z]+)", text)}
    assert len(mentioned) > 12
    for words in mentioned:
        with pytest.raises(SystemExit) as exit:
            parser.parse_args([*words, "--help"])
        assert exit.value.code == 0, words
