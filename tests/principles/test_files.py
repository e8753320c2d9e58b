"""Principle files: what is read, what is written and kept, and what is refused by name."""

import dataclasses
from pathlib import Path

import pytest

from sami_jax import miniature
from sami_jax.config import shipped
from sami_jax.errors import UserError
from sami_jax.principles.files import add_review, file_of, read_principle, read_principles, write_principle
from sami_jax.principles.principle import Principle, Review, Source, content_hash, own_status

SHIPPED = [shipped(f"principles/{name}") for name in ("hh", "tldr", "diverse")]
GOOD = "id: kind\nprinciple: Be kind.\nantithesis: Be cruel.\nphrasings:\n  - principle: 親切に。\n    antithesis: 意地悪に。\n"
WHOLE = Principle(
    id="kind",
    phrasings=(("Be kind,\nalways:\n  - even here", "Be cruel."), ("親切に。", "意地悪に: #1"), ("yes", "no")),
    version=3,
    source=Source("writer", "a/model:7b", "sha256:ab", "sha256:cd"),
    tags=("tone", "1"),
    notes="Asked for\nby two teams.",
    reviews=(Review("Aiko 田中", "2026-11-24T10:00:00Z", "approved", "sha256:ef", 'Says "yes": good'),),
)


def test_reads_wordings_in_order(tmp_path):
    (tmp_path / "kind.yaml").write_text("\ufeff" + GOOD, encoding="utf-8")
    [principle] = read_principles(tmp_path)
    assert principle == Principle("kind", (("Be kind.", "Be cruel."), ("親切に。", "意地悪に。")))


def test_written_and_read_again_is_the_same(tmp_path):
    write_principle(tmp_path / "kind.yaml", WHOLE)
    assert read_principle(tmp_path / "kind.yaml") == WHOLE
    assert "principle: |-\n  Be kind," in (tmp_path / "kind.yaml").read_text()  # texts of several lines stay readable


def test_a_review_keeps_the_files_comments_and_layout(tmp_path):
    text = "# Agreed in the tone workshop.\n" + GOOD.replace("Be kind.", "Be kind.  # not only polite")
    (tmp_path / "kind.yaml").write_text(text)
    principle = read_principle(tmp_path / "kind.yaml")
    review = Review("ann", "2026-11-24T10:00:00Z", "approved", content_hash(principle))
    reviewed = add_review(tmp_path, principle, review)
    assert (tmp_path / "kind.yaml").read_text().startswith(text)
    assert read_principle(tmp_path / "kind.yaml") == reviewed and own_status(reviewed) == "approved"


def test_a_new_version_gets_a_file_of_its_own(tmp_path):
    first = Principle("kind", (("Be kind.", "Be cruel."),))
    second = dataclasses.replace(first, version=2, phrasings=(("Be kinder.", "Be cruel."),))
    for principle in (first, second):
        write_principle(file_of(tmp_path, principle), principle)
    assert {file.name for file in tmp_path.iterdir()} == {"kind.yaml", "kind@2.yaml"}
    assert read_principles(tmp_path) == (first, second)
    assert file_of(tmp_path, second).name == "kind@2.yaml"


@pytest.mark.parametrize("folder", [miniature.PRINCIPLES, *map(Path, SHIPPED)])
def test_shipped_principles_are_approved(folder):
    for principle in read_principles(folder):
        assert own_status(principle) == "approved", principle.id


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("id: [", "not readable YAML"),
        ("- a\n", "not a principle"),
        ("id: a\nprinciple: A.\n", "antithesis is missing"),
        ("id: a\nprinciple: ''\nantithesis: B.\n", "principle is missing or empty"),
        ("principle: A.\nantithesis: B.\n", "id is missing"),
        ("id: a b\nprinciple: A.\nantithesis: B.\n", "id is missing or not a word"),
        ("id: ../a\nprinciple: A.\nantithesis: B.\n", "id is missing or not a word"),
        ("id: a\nprinciple: A.\nantithesis: B.\nphrasings: [C]\n", "one of its phrasings"),
        ("id: a\nprinciple: A.\nantithesis: B.\nphrasings: C\n", "phrasings must be a list"),
        ("id: a\nprinciple: A.\nantithesis: B.\nantithsis: C\n", "unknown key 'antithsis'"),
        ("id: a\nversion: '2'\nprinciple: A.\nantithesis: B.\n", "write a whole number"),
        ("id: a\nprinciple: A.\nantithesis: B.\nreviews: [{reviewer: x}]\n", "reviews needs the keys"),
        ("id: a\nid: b\nprinciple: A.\nantithesis: B.\n", "not readable YAML"),
        ("id: kind\nprinciple: A.\nantithesis: B.\n", "kind@1 is in a.yaml too"),
        ("!!python/object/apply:os.system ['true']", "not readable YAML"),
        (b"\xff\xfe", "not readable YAML"),
    ],
)
def test_bad_files_are_named(tmp_path, content, words):
    (tmp_path / "a.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
    (tmp_path / "kind.yaml").write_text(GOOD, encoding="utf-8")
    with pytest.raises(UserError, match=words):
        read_principles(tmp_path)


def test_empty_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match="no principle files"):
        read_principles(tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        read_principles(tmp_path / "none")


def test_null_is_absent_and_suffixes_may_be_capitals(tmp_path):
    (tmp_path / "a.YAML").write_text(
        "id: a\nversion:\nprinciple: A.\nantithesis: Not A.\nphrasings: null\nsource: {kind: writer, name: null}\n"
        "tags: [x, null]\nnotes:\nreviews:\n"
    )
    (tmp_path / "._a.yaml").write_bytes(b"\x00\x05\x16\x07")
    [found] = read_principles(tmp_path)
    assert (found.version, found.tags, found.notes, found.source.name) == (1, ("x",), "", "")
