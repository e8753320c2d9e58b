"""What a process sets up: where compiled programs go, whatever the environment says."""

import os
import pwd
import subprocess
import sys

import pytest

from sami_jax.cli.start import keep_compiled_programs

NAME = "JAX_COMPILATION_CACHE_DIR"


@pytest.mark.parametrize(
    ("variables", "place", "said"),
    [
        ({"HOME": "{tmp}"}, "{tmp}/.cache/sami_jax/compiled-", None),
        ({"HOME": "{tmp}", "XDG_CACHE_HOME": "{tmp}/caches"}, "{tmp}/caches/sami_jax/compiled-", None),
        ({"HOME": "{tmp}", "XDG_CACHE_HOME": "caches"}, "{tmp}/.cache/sami_jax/compiled-", None),
        ({"HOME": "{tmp}", "XDG_CACHE_HOME": "~/caches"}, "{tmp}/.cache/sami_jax/compiled-", None),
        ({"HOME": "{tmp}", NAME: "~/mine"}, "{tmp}/mine", None),
        ({"HOME": "{tmp}", NAME: "mine"}, "mine", None),
        ({"HOME": "{tmp}", NAME: ""}, "", None),
        ({}, "", "no home folder is known: compiled programs are not kept"),
        ({NAME: "~nobody-here/mine"}, "", "no home folder is known: compiled programs are not kept"),
        ({"HOME": "/dev/null"}, "", "/dev/null/.cache/sami_jax/compiled-"),
        ({"HOME": "{tmp}", "XDG_CACHE_HOME": "/proc/self"}, "", "/proc/self/sami_jax/compiled-"),
        ({"HOME": "{tmp}", NAME: "/dev/null"}, "", "/dev/null may not be written to: compiled programs are not kept"),
        ({"HOME": "{tmp}", NAME: "/proc/self"}, "/proc/self", "/proc/self may not be written to"),  # but read
    ],
)
def test_where_compiled_programs_go(tmp_path, monkeypatch, variables, place, said):
    def no_such_user(_):
        raise KeyError("no such user")

    monkeypatch.setattr(pwd, "getpwuid", no_such_user)
    monkeypatch.chdir(tmp_path)
    for name in ("HOME", "XDG_CACHE_HOME", NAME):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value.format(tmp=tmp_path))
    told = keep_compiled_programs()
    found = os.environ.get(NAME, "")
    assert found.startswith(place.format(tmp=tmp_path)) and bool(found) == bool(place)
    assert keep_compiled_programs() == told or NAME in variables  # asked again in the same process
    assert told is None if said is None else told.startswith(said)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("command", "status", "said"),
    [
        (["--version"], 0, ""),
        (["principles", "list", "--folder", "{tmp}/gone"], 2, "no such folder of principles"),
        (["run", "--workdir=new"], 2, "the folder we are in: No such file or directory"),
    ],
)
def test_a_folder_that_is_gone_while_we_are_in_it(tmp_path, command, status, said):
    code = "import os, sys; os.mkdir('a'); os.chdir('a'); os.rmdir('../a')\nfrom sami_jax.cli import main; sys.exit(main())"
    argv = [sys.executable, "-c", code, *(word.format(tmp=tmp_path) for word in command)]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == status and said in done.stderr and done.stderr.count("\n") == bool(said)


def test_texts_of_a_locale_without_them_are_kept_as_they_were_typed(tmp_path):
    there = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    folder = tmp_path / "原則"
    for verb in (["add", "ja", "--principle", "丁寧に話す。", "--antithesis", "Don't."], ["show", "ja"]):
        argv = [sys.executable, "-m", "sami_jax.cli", "principles", *verb, "--folder", str(folder)]
        done = subprocess.run(argv, env=there, capture_output=True)
        assert done.returncode == 0, done.stderr
    assert "丁寧に話す。" in (folder / "ja.yaml").read_text(encoding="utf-8")
    assert rb"\u4e01\u5be7" in done.stdout


def test_the_start_imports_nothing_heavy():
    code = "import sys; from sami_jax.cli.parser import new_parser; new_parser(); import sami_jax.cli.start\nprint(*sys.modules)"
    loaded = set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.split())
    assert not loaded & {"jax", "numpy", "rich", "transformers", "scipy", "flax", "asyncio", "importlib.metadata"}
