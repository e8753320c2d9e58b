"""`check` finds what a reviewer would want to know, and leaves good principles alone."""

import os
from pathlib import Path

import pytest

from sami_jax import miniature
from sami_jax.config import shipped
from sami_jax.principles.exchange import import_principles, merge
from sami_jax.principles.files import read_principles, write_principle
from sami_jax.principles.lint import NEAR, check, closest
from sami_jax.principles.principle import Principle


def findings(folder, *principles: Principle) -> list[str]:
    for principle in principles:
        write_principle(folder / f"{principle.id}.yaml", principle)
    return [f"{'error' if f.error else 'warning'} {f.where} {f.text}" for f in check(folder)]


@pytest.mark.parametrize(
    ("wording", "words"),
    [
        (("Be kind.", "be  KIND"), "error a.yaml the antithesis says what the principle says"),
        (("Be kind.", "Be\u202e cruel."), "error a.yaml a text holds invisible control characters"),
        (("Answer the question in one short sentence.", "Ramble."), "warning a.yaml a and b say nearly the same"),
    ],
)
def test_finds(tmp_path, wording, words):
    other = Principle("b", (("Answer the question in a short sentence.", "Talk on and on."),))
    found = findings(tmp_path, Principle("a", (wording,)), other)
    assert len(found) == 1 and found[0].startswith(words), found


def test_finds_repeated_wordings_wrong_names_and_unreadable_files(tmp_path):
    write_principle(tmp_path / "x.yaml", Principle("a", (("Be kind.", "Be cruel."), ("Be kind", "be cruel"))))
    (tmp_path / "broken.yaml").write_text("id: [")
    found = " | ".join(findings(tmp_path))
    assert "error broken.yaml not readable YAML" in found
    assert "the file of a@1 is not called a.yaml" in found and "two phrasings are the same" in found


def test_good_principles_pass(tmp_path):
    for folder in (miniature.PRINCIPLES, *(Path(shipped(f"principles/{name}")) for name in ("hh", "tldr", "diverse"))):
        assert check(folder) == []
    joined = Principle("a", (("Use emojis such as 👩‍🌾.", "Use words only."),))
    assert findings(tmp_path, joined) == []


@pytest.mark.skipif("SAMI_REFERENCE" not in os.environ, reason="needs the public reference data")
def test_our_diverse_principles_are_our_own():
    theirs = import_principles(Path(os.environ["SAMI_REFERENCE"]) / "tldr" / "principles_diverse.json")
    for principle in read_principles(Path(shipped("principles/diverse"))):
        assert closest(principle.phrasings[0][0], theirs)[0] < NEAR, principle.id


@pytest.mark.skipif("SAMI_REFERENCE" not in os.environ, reason="needs the public reference data")
def test_the_papers_diverse_principles_pass(tmp_path):
    merge(tmp_path, import_principles(Path(os.environ["SAMI_REFERENCE"]) / "tldr" / "principles_diverse.json"))
    assert check(tmp_path) == []
