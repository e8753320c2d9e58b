"""Principle folders: ours, the authors', and folders that are refused."""

import json
import os
from pathlib import Path

import pytest

from sami_jax import miniature
from sami_jax.config import shipped
from sami_jax.errors import UserError
from sami_jax.principles.files import read_principles

GOOD = "id: kind\nprinciple: Be kind.\nantithesis: Be cruel.\nphrasings:\n  - principle: 親切に。\n    antithesis: 意地悪に。\n"


def test_reads_wordings_in_order(tmp_path):
    (tmp_path / "kind.yaml").write_text(GOOD, encoding="utf-8")
    [principle] = read_principles(tmp_path)
    assert principle.id == "kind"
    assert principle.phrasings == (("Be kind.", "Be cruel."), ("親切に。", "意地悪に。"))


@pytest.mark.parametrize(
    "folder", [miniature.PRINCIPLES, Path(shipped("principles/hh")), Path(shipped("principles/tldr"))]
)
def test_shipped_principles_are_whole(folder):
    for principle in read_principles(folder):
        assert all(a != b for a, b in principle.phrasings)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("id: [", "not readable YAML"),
        ("- a\n", "not a principle"),
        ("id: a\nprinciple: A.\n", "antithesis is missing"),
        ("id: a\nprinciple: ''\nantithesis: B.\n", "principle is missing or empty"),
        ("principle: A.\nantithesis: B.\n", "id is missing"),
        ("id: a\nprinciple: A.\nantithesis: B.\nphrasings: [C]\n", "one of its phrasings"),
        ("id: kind\nprinciple: A.\nantithesis: B.\n", "two principles have the id 'kind'"),
        ("!!python/object/apply:os.system ['true']", "not readable YAML"),
    ],
)
def test_bad_files_are_named(tmp_path, content, words):
    (tmp_path / "a.yaml").write_text(content)
    (tmp_path / "kind.yaml").write_text(GOOD, encoding="utf-8")
    with pytest.raises(UserError, match=words):
        read_principles(tmp_path)


def test_empty_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match="no principle files"):
        read_principles(tmp_path)


def test_authors_format_needs_both_sides(tmp_path):
    one = {
        "positive": "1. Short.",
        "negative": "1. Short.",
        "identifiers": {"positive": ["pos a"], "negative": ["pos a"]},
    }
    (tmp_path / "0.json").write_text(json.dumps(one))
    with pytest.raises(UserError, match="never shown on both sides"):
        read_principles(tmp_path)


@pytest.mark.skipif("SAMI_REFERENCE" not in os.environ, reason="needs the public reference data")
@pytest.mark.parametrize("writer", ["opus", "mistral"])
def test_authors_constitutions_give_their_principles(writer):
    folder = Path(os.environ["SAMI_REFERENCE"]) / "tldr" / f"constitutions_{writer}"
    principles = read_principles(folder)
    assert [principle.id for principle in principles] == ["comprehensive", "concise"]
    shown = json.loads((folder / "0.json").read_text())
    for (positive, negative), line in zip(
        (p.phrasings[0] for p in principles[::-1]), shown["positive"].split("\n"), strict=True
    ):
        assert line.strip().endswith(positive) and negative != positive
