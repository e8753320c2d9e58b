"""A path means itself; only a home folder at its beginning is put in place."""

import os
import pwd
from pathlib import Path

import pytest

from sami_jax.errors import UserError
from sami_jax.ground.paths import may_be_written, path_of


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("~/base", "/home/of/base"),
        ("~", "/home/of"),
        ("~//base", "/home/of/base"),
        (Path("~/base"), "/home/of/base"),
        ("./~", "./~"),
        ("./~/base", "./~/base"),
        ("a~b/~", "a~b/~"),
        ("runs/~x", "runs/~x"),
        (" a [b] {c} *?", " a [b] {c} *?"),
        ("[!x]/[/red]", "[!x]/[/red]"),
        ("CAPS/日本/é", "CAPS/日本/é"),
        ("$HOME/%s", "$HOME/%s"),
        ("", ""),
    ],
)
def test_what_a_path_means(monkeypatch, text, meant):
    monkeypatch.setenv("HOME", "/home/of")
    assert path_of(text) == Path(meant)


def test_the_home_of_a_user_by_name():
    user = pwd.getpwuid(os.getuid())
    assert path_of(f"~{user.pw_name}/x") == Path(user.pw_dir, "x")


def no_such_user(_):
    raise KeyError("no such user")


@pytest.mark.parametrize("text", ["~/base", "~", "~nobody-of-this-name/base"])
def test_a_home_that_is_not_known_is_said_and_never_a_folder(monkeypatch, text):
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", no_such_user)
    with pytest.raises(UserError, match=r"no home folder is known for ~.*; write the path in full"):
        path_of(text)


def test_where_a_folder_may_be_made(tmp_path):
    (tmp_path / "file").touch()
    assert may_be_written(tmp_path) and may_be_written(tmp_path / "a" / "b")
    assert not may_be_written(tmp_path / "file") and not may_be_written(tmp_path / "file" / "a")
    assert not may_be_written(Path("/proc/self/a"))
