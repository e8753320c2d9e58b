"""Wherever a path is taken, `~` at its beginning is the home folder: options, fields of a config, functions."""

import argparse
import shutil
from pathlib import Path

import pytest

import sami_jax
from sami_jax import miniature
from sami_jax.cli import main
from sami_jax.cli.options import any_path, new_file, new_folder
from sami_jax.cli.parser import new_parser
from sami_jax.config import load_config
from sami_jax.errors import UserError
from sami_jax.stages import loop
from sami_jax.stages.preparation import prepare

PATHS = (any_path, new_file, new_folder)


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """A home folder with what a run reads, and an empty folder to be in."""
    folder = tmp_path / "home"
    shutil.copytree(miniature.FOLDER, folder / "miniature")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", str(folder))
    return folder


def options(parser: argparse.ArgumentParser):
    for action in parser._actions:
        yield action
        if isinstance(action.choices, dict):
            for sub in action.choices.values():
                yield from options(sub)


def test_no_option_takes_a_path_in_another_way():
    types = [action.type for action in options(new_parser())]
    assert Path not in types and sum(kind in PATHS for kind in types) > 40


@pytest.mark.parametrize("kind", PATHS)
def test_an_option(home, kind):
    assert kind("~/new") == home / "new"
    with pytest.raises(argparse.ArgumentTypeError, match="no home folder is known for ~nobody-here; write the path"):
        kind("~nobody-here/new")
    assert list(Path().iterdir()) == []


def test_options_that_may_be_paths(home, capsys):
    (home / "v.jsonl").write_text(
        '{"id": 1, "constitution": "1. A.", "win": 1, "flipped": null, "baseline_tokens": 9, "test_tokens": 8, "tags": []}\n'
    )
    assert main(["rank", "a:b=~/v.jsonl"]) == 0
    folders = ["~/miniature/principles"] * 2
    assert main(["principles", "diff", *folders]) == 0
    assert main(["principles", "list", "--folder=~/miniature/principles"]) == 0
    assert (
        main(["principles", "add", "kind", "--folder=~/p", "--principle", "Be kind.", "--antithesis", "Be cruel."]) == 0
    )
    assert (home / "p" / "kind.yaml").is_file() and list(Path().iterdir()) == []
    capsys.readouterr()
    assert main(["principles", "list", "--folder=~/nowhere"]) == 2
    assert str(home / "nowhere") in capsys.readouterr().err


def test_a_config_by_its_path(home):
    folder = home / "co:lon.d"
    folder.mkdir()
    (folder / "my.py").write_text(
        "from sami_jax.config import derived_from\ndef get_config(arg=None):\n    c = derived_from('tiny')\n    c.track.name = arg or ''\n    return c\n"
    )
    for spec, arg in (("~/co:lon.d/my.py", ""), ("~/co:lon.d/my.py:some:arg", "some:arg")):
        config, name = load_config(spec, [])
        assert config.track.name == arg and name.startswith("my")


def test_fields_of_a_config(home, tmp_path):
    fields = {
        "model.path": "~/miniature/base",
        "principles.path": "~/miniature/principles",
        "data.queries": "~/miniature/queries/train.jsonl",
        "data.eval_queries": "~/miniature/queries/held_out.jsonl",
    }
    overrides = [f"--config.{field}={value}" for field, value in fields.items()]
    config, _ = load_config("tiny", overrides)
    inputs = prepare(config, tmp_path / "run", allow_unapproved=False)
    assert inputs.base.folder == home / "miniature" / "base"
    assert [one["path"] for one in inputs.data.values()] == [
        str(home / "miniature" / "queries" / name) for name in ("train.jsonl", "held_out.jsonl")
    ]
    assert list(Path().iterdir()) == []
    config.model.path = "~nobody-here/base"
    with pytest.raises(UserError, match="no home folder is known for ~nobody-here"):
        prepare(config, tmp_path / "run", allow_unapproved=False)


def test_functions(home, monkeypatch):
    assert sami_jax.read_principles("~/miniature/principles") == sami_jax.read_principles(miniature.PRINCIPLES)
    assert sami_jax.read_queries(Path("~/miniature/queries/held_out.jsonl"))
    model = sami_jax.load("~/miniature/base")
    sami_jax.save(model, "~/saved")
    assert (home / "saved" / "model.safetensors").is_file()
    asked = []
    monkeypatch.setattr(loop, "run", lambda config, folder, *_: asked.append(folder))
    config = sami_jax.load_config("tiny")
    with pytest.raises(UserError, match=r"iteration_0"):
        sami_jax.run(config, "~/run")  # nothing is there to be read
    assert asked == [home / "run"] and list(Path().iterdir()) == []
