"""Environments as people have them, each with what is done in it: no traceback, the right status, and the results are there."""

import contextlib
import json
import shutil
import subprocess
import sys
import types
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pytest
from support.fabricated_run import fabricate
from support.flags import environment
from support.short_run import changed

from sami_jax import miniature

NO_USER = "import pwd\ndef none(_): raise KeyError('no such user')\npwd.getpwuid = none\n"
NO_LOCKS = "import errno, fcntl\ndef none(*_): raise OSError(errno.ENOLCK, 'No locks available')\nfcntl.flock = fcntl.lockf = none\n"
FEW_FILES = "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))\n"
NO_PROXY_HERE = "http://127.0.0.1:9"


class Environment(NamedTuple):
    variables: Mapping[str, str | None] = types.MappingProxyType({})  # None takes one away
    prelude: str = ""  # Python that the process begins with
    redirected: str = ""  # by the shell
    folder: str = "here"
    linked: bool = False  # the folder is a symbolic link
    said: tuple[str, ...] = ()  # what stderr has at most once a command, where a model is taken


def together(names: tuple[str, ...]) -> Environment:
    chosen = [ENVIRONMENTS[name] for name in names]
    variables = {name: value for one in chosen for name, value in one.variables.items()}
    return Environment(
        variables,
        "".join(one.prelude for one in chosen),
        "".join(one.redirected for one in chosen),
        next((one.folder for one in chosen if one.folder != "here"), "here"),
        any(one.linked for one in chosen),
        tuple(line for one in chosen for line in one.said),
    )


ENVIRONMENTS = {
    "as ever": Environment(),
    "no HOME, and a user without an entry": Environment({"HOME": None}, NO_USER),
    "no HOME and no place for programs": Environment(
        {"HOME": None, "JAX_COMPILATION_CACHE_DIR": None}, NO_USER, said=("no home folder is known: compiled programs",)
    ),
    "HOME cannot be written to": Environment(
        {"HOME": "/dev/null", "JAX_COMPILATION_CACHE_DIR": None}, said=("/dev/null/.cache/sami_jax/compiled-",)
    ),
    "caches in a relative place": Environment({"XDG_CACHE_HOME": "~/caches", "HF_HOME": None}),
    "ASCII, strictly": Environment({"PYTHONIOENCODING": "ascii:strict"}),
    "latin-1": Environment({"PYTHONIOENCODING": "latin-1"}),
    "C": Environment({"LC_ALL": "C", "LANG": "C"}),
    "C, and not in UTF-8 mode": Environment({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}),
    "a locale that is not installed": Environment({"LC_ALL": "tlh_QS.UTF-8"}),
    "colours by force": Environment({"FORCE_COLOR": "1", "TERM": "xterm-256color"}),
    "no colours": Environment({"NO_COLOR": "1"}),
    "a dumb terminal, one column wide": Environment({"TERM": "dumb", "COLUMNS": "1", "LINES": "0"}),
    "no locks": Environment(prelude=NO_LOCKS, said=("this file system has no locks",)),
    "umask 077": Environment(prelude="import os\nos.umask(0o077)\n"),
    "an odd folder": Environment(folder="~a [b] {c} (d) #é 日本/[/red] CAPS"),
    "a linked folder": Environment(linked=True),
    "another time zone": Environment({"TZ": "Asia/Kathmandu"}),
    "a time zone that there is not": Environment({"TZ": "Mars/Olympus"}),
    "proxies": Environment(
        {"http_proxy": NO_PROXY_HERE, "HTTPS_PROXY": NO_PROXY_HERE, "ALL_PROXY": "socks5://127.0.0.1:9"}
    ),
    "few files at a time": Environment(prelude=FEW_FILES),
    "warnings are errors": Environment({"PYTHONWARNINGS": "error::UserWarning"}),
    "nobody listens": Environment(redirected=">&- 2>&- <&-"),
    "the reader has gone": Environment(redirected="| true"),
}
# What takes a model takes time, so that environments which do not get in each other's way are met together.
TOGETHER = [
    ("as ever",),
    ("no HOME and no place for programs", "ASCII, strictly", "no locks", "umask 077", "an odd folder"),
    ("HOME cannot be written to", "C, and not in UTF-8 mode", "few files at a time", "another time zone"),
    ("caches in a relative place", "latin-1", "a linked folder", "colours by force", "proxies"),
    ("no HOME, and a user without an entry", "C", "a time zone that there is not", "nobody listens", "no colours"),
    (
        "a locale that is not installed",
        "a dumb terminal, one column wide",
        "warnings are errors",
        "the reader has gone",
    ),
]
READY = "import sys, json\nfrom sami_jax.cli.start import set_up\nset_up()\nfrom sami_jax.cli import main\n"
WORK = (
    "with open('statuses', 'w') as told:\n    told.writelines(f'{main(argv)}\\n' for argv in json.loads(sys.argv[1]))\n"
)

QUICK = [["principles", "list", "--folder", "principles"], ["verify", "run"]]
RUN = changed("--config.train.updates=(2,)", "--config.evaluation.queries=2", "--config.track.to=()")
MODEL = ["--model", str(miniature.BASE)]
WHOLE = [
    *QUICK,
    ["winrate", "--input", "v.jsonl"],
    ["doctor"],
    ["sample", *MODEL, "--input", "prompts.jsonl", "--output", "o.jsonl", "--max_new_tokens", "4"],
    ["score", *MODEL, "--input", "pairs.jsonl", "--output", "s.jsonl"],
    ["run", *RUN, "--workdir=w"],
    ["verify", "w"],
    ["report", "w", "--language", "ja"],
    ["export", "--checkpoint", "w/iteration_1/checkpoints", "--output", "m"],
]
LEFT = [
    "o.jsonl",
    "s.jsonl",
    "w/run.json",
    "w/report.html",
    "w/report.ja.html",
    "w/iteration_1/model/model.safetensors",
]
LEFT += ["m/model.safetensors"]


def fill(folder: Path) -> None:
    """What the verbs read, in the characters of people."""
    shutil.copytree(miniature.PRINCIPLES, folder / "principles")
    text = (folder / "principles/greeting.yaml").read_text(encoding="utf-8")
    (folder / "principles/greeting.yaml").write_text(text + "notes: 丁寧に、“é”\n", encoding="utf-8")
    win = {"id": "é", "constitution": "1. 丁", "win": 1, "flipped": None, "tags": ["日本"]}
    rows = {
        "v.jsonl": win | {"baseline_tokens": 9, "test_tokens": 8},
        "prompts.jsonl": {"id": 1, "prompt": "Hello, “you”"},
        "pairs.jsonl": {"id": 1, "prompts": ["a", "b"], "responses": ["é one", "two"]},
    }
    for name, row in rows.items():
        (folder / name).write_text(json.dumps(row, ensure_ascii=False) + "\n", encoding="utf-8")
    fabricate(folder / "run")


def live_in(tmp_path: Path, chosen: Environment, commands: list[list[str]]) -> tuple[Path, str, str]:
    """Does it all in one process there; the folder, stdout and stderr."""
    folder = tmp_path / chosen.folder
    folder.mkdir(parents=True)
    fill(folder)
    if chosen.linked:
        (tmp_path / "link").symlink_to(folder)
        folder = tmp_path / "link"
    variables = {name: value for name, value in chosen.variables.items() if value is not None}
    there = environment() | {"HOME": str(tmp_path)} | variables
    for name in chosen.variables.keys() - variables.keys():
        there.pop(name, None)
    code = chosen.prelude + READY + WORK
    command = ["sh", "-c", f'"$0" -c "$1" "$2" {chosen.redirected}', sys.executable, code, json.dumps(commands)]
    done = subprocess.run(command, cwd=folder, env=there, capture_output=True)
    out, err = done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace")
    with contextlib.suppress(FileNotFoundError):
        assert (folder / "statuses").read_text().split() == ["0"] * len(commands), err
    assert (folder / "statuses").exists(), err
    for wrong in ("Traceback", "Exception ignored", "site-packages", "*** You may"):
        assert wrong not in out + err, err
    assert not (folder / "~").exists() and not list(tmp_path.glob("**/~"))
    return folder, out, err


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_what_takes_no_model(tmp_path, name):
    chosen = ENVIRONMENTS[name]
    _, out, err = live_in(tmp_path, chosen, QUICK)
    assert err == ""
    if not chosen.redirected:
        for shown in ("greeting@1", "Greet the person", "as recorded"):
            assert shown in out
        # A table is as wide as it wants to be where there is no terminal, and its lines are of what the encoding has.
        assert "\u2026" not in out and "\\u2500" not in out


@pytest.mark.faults
@pytest.mark.parametrize("names", TOGETHER, ids=lambda names: names[0])
def test_a_whole_run_and_all_that_is_about_it(tmp_path, names):
    chosen = together(names)
    folder, _, err = live_in(tmp_path, chosen, WHOLE)
    for file in LEFT:
        assert (folder / file).stat().st_size, file
    assert (folder / "s.jsonl").read_text(encoding="utf-8").count("logprobs") == 1
    for line in () if chosen.redirected else chosen.said:
        assert 1 <= err.count(line) <= len(WHOLE), err


def test_every_environment_is_met():
    assert {name for names in TOGETHER for name in names} == set(ENVIRONMENTS)
