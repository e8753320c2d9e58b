"""The README's commands: those in blocks are run in their order, as a new user would type them, with training cut short;
those in sentences and tables are read by the real parser. A command that no test knows fails."""

import json
import re
import shlex
import subprocess
import sys
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import pytest
from support.commands_in_text import blocks, check_all
from support.desk import principles_in, ratings_in
from support.fabricated_run import fabricate
from support.flags import environment
from support.launch_world import World
from support.scripted_model import write_scripted_model

from benchmarks.traffic import Speaker
from sami_jax import miniature
from sami_jax.config import load_config
from sami_jax.miniature.untrained import write_random_bytes_model

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
# Of what a run does, enough to pass through every stage; repeated options take the last value.
SHORTER = ["--config.train.updates=(1,)", "--config.evaluation.queries=4", "--config.sampling.batch_size=16"]
QUERIES = [
    f"How do I mend the {thing}?" for thing in ("bike", "chair", "clock", "coat", "door", "lamp", "roof", "sink")
]


COMMANDS = blocks(README)
TESTED = {
    "Two commands": "test_the_two_commands",
    "Your own model": "test_your_own_model_and_queries",
    "Your own queries": "test_your_own_model_and_queries",
    "Your own principles": "test_your_own_principles",
    "Your own judge": "test_your_own_judge",
    "People": "test_people",
    "From laptop to pod": "test_from_laptop_to_pod",
}


def test_every_block_has_its_test():
    assert set(COMMANDS) == set(TESTED) and all(callable(globals()[name]) for name in TESTED.values())


def test_other_commands_are_such_as_the_parser_takes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check_all(README)


def test_it_is_short():
    assert len(README.splitlines()) < 250


@pytest.fixture
def sami(commands, tmp_path, monkeypatch):
    """Runs a command of the README in an empty folder, `more` options behind its own, others `replaced`; what it said."""
    monkeypatch.chdir(tmp_path)

    def run(command: str, more: Sequence[str] = (), **replaced: str) -> str:
        program, *argv = shlex.split(command, comments=True)
        assert program == "sami", command
        for option, value in replaced.items():
            argv[argv.index(f"--{option}") + 1] = value
        status, told = commands.run(*argv, *more)
        assert status == 0, f"{command}: {told}"
        return told

    return run


def test_the_two_commands():
    """What make would do: the demo itself takes minutes, and these tests are what the other one runs."""
    for command in COMMANDS["Two commands"]:
        program, target = shlex.split(command, comments=True)
        assert program == "make"
        would = subprocess.run(
            ["make", "--no-print-directory", "--dry-run", "--always-make", target],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        does = {"demo": "/sami run --config=tiny --workdir=runs/demo", "test": "-m pytest -m 'not slow and not faults"}[
            target
        ]
        assert does in would.stdout
    assert load_config("tiny", [])[1] == "tiny"


@pytest.mark.slow
def test_your_own_model_and_queries(sami, tmp_path):
    rows = [{"id": str(n), "query": text} for n, text in enumerate(QUERIES)]
    lines = [json.dumps(row) for row in rows]
    (tmp_path / "queries.jsonl").write_text("\n".join(lines) + "\n")
    write_random_bytes_model(tmp_path / "models/mine", max_positions=2048, seed=1)
    shorter = [*SHORTER, "--config.prompt.max_tokens=512", "--config.data.eval_fraction=0.5"]
    shorter += ["--config.sampling.max_new_tokens=16", "--config.canaries.action=off"]
    smoke, mine = COMMANDS["Your own model"]
    sami(smoke, shorter)
    # The recipe's model is large: here its place is taken by a small one, so all else may be small too.
    assert ":smoke" not in mine
    sami(mine.replace("hh_mistral7b ", "hh_mistral7b:smoke "), shorter)
    predicate = json.loads((tmp_path / "runs/mine/run.json").read_text())["predicate"]
    assert predicate["config"]["model"]["path"] == "models/mine"
    (tmp_path / "queries.jsonl").write_text("\n".join([*lines, "no JSON"]) + "\n")
    [skipping] = COMMANDS["Your own queries"]
    sami(skipping, shorter)
    assert "rows passed over" in (tmp_path / "runs/queries/audit.jsonl").read_text()
    assert_told(tmp_path / "runs/mine")


def assert_told(run: Path) -> None:
    """docs/formats.md has a line for every file that a run leaves."""
    text = (ROOT / "docs/formats.md").read_text(encoding="utf-8").split("## What a run leaves behind")[1]
    told = set(re.findall(r"^ +([\w.-]+)[/ ]", text.split("```")[1], flags=re.MULTILINE))
    for path in [*run.iterdir(), *run.glob("iteration_*/*")]:
        name = re.sub(r"iteration_\d+", "iteration_1", path.name)
        assert name in told, path


@pytest.mark.slow
def test_your_own_principles(sami, tmp_path):
    shown = ""
    for command in COMMANDS["Your own principles"]:
        shown += sami(command, SHORTER if command.startswith("sami run") else [])
    assert "runs/mine: as recorded" in shown and "runs/mine/iteration_1/model" in shown
    predicate = json.loads((tmp_path / "runs/mine/run.json").read_text())["predicate"]
    assert [record["approved_by"] for record in predicate["principles"]] == [["Aiko Tanaka"]] * 3


@pytest.mark.slow
def test_your_own_judge(sami, tmp_path, server):
    """The comparison with the base in the place of a trained model, then a judge behind a server, then people."""
    compare, judge, rate, winrate = COMMANDS["Your own judge"]
    shown = sami(compare, SHORTER, test=str(miniature.BASE))
    assert "no difference shown" in shown.splitlines()[-1] and (tmp_path / "ab/run.json").exists()
    write_scripted_model(tmp_path / "judge", ["Both are fine.\n", "Final Response: A"])
    shown = sami(judge, endpoint=server, judge=str(tmp_path / "judge"))
    assert "flipped with the order: 100.0 %" in shown
    assert "keep key.json from the raters" in sami(rate)
    assert "win rate, ties as half: 50.0 %" in sami(winrate)


@pytest.mark.slow
def test_from_python():
    """In a process of its own, on one device."""
    [code] = re.findall(r"^```python\n(.*?)^```$", README, flags=re.DOTALL | re.MULTILINE)
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"\[\['.+', '.+'\]\] \[-?\d\.\d+\]\n", done.stdout), done.stdout


@pytest.mark.slow
def test_people(sami, tmp_path):
    """A folder of drafts, one of ratings, one of runs; then two weeks of answers as the run measured them."""
    principles_in(tmp_path / "principles")
    ratings_in(tmp_path / "ratings")
    fabricate(tmp_path / "runs/demo")
    desk, watch = COMMANDS["People"]
    argv = [sys.executable, "-m", "sami_jax.cli", *shlex.split(desk)[1:], "--port", "0"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as server:
        try:
            with urllib.request.urlopen(server.stdout.readline().strip(), timeout=60) as answer:
                shown = answer.read().decode()
        finally:
            server.terminate()
    assert all(f'href="/{place}"' in shown for place in ("principles", "ratings", "runs"))
    lines = Speaker("readme").lines(14 * 700)
    (tmp_path / "served.jsonl").write_bytes(b"".join(line.content + b"\n" for line in lines))
    sami(watch)
    assert (tmp_path / "watch/watch.html").exists()


def test_from_laptop_to_pod(tmp_path):
    """The launcher prints what it would do, from the shipped settings."""
    world = World(tmp_path)
    for command in COMMANDS["From laptop to pod"]:
        script, settings, *arguments = shlex.split(command)
        assert arguments[-1] == "--dry_run" and Path(script).parent.name == "launch"
        # The wheel that the example names is not here.
        changes = {"PACKAGE": "git+https://example.org/sami_jax@v1"} if "tpu" in settings else {}
        assert world.settings(Path(settings).stem, **changes).name == settings
        would = world.run(Path(script).name, settings, *arguments)
        assert would.returncode == 0 and "sami-tldr" in would.stdout, would.stderr
        assert world.calls() == []
