"""Other people's files: in, out and in again give the same principles; nothing that was there is lost."""

import csv
import json
import os
from pathlib import Path

import pytest

from sami_jax.errors import UserError
from sami_jax.principles.constitutions import compose, split
from sami_jax.principles.exchange import export_principles, import_principles, merge
from sami_jax.principles.files import add_review, read_principles
from sami_jax.principles.principle import Principle, Review, content_hash

REFERENCE = pytest.mark.skipif("SAMI_REFERENCE" not in os.environ, reason="needs the public reference data")
AWKWARD = [
    Principle(
        "kind",
        (("Be kind,\nalways.", "=cruel()"), ("親切に。", '"quoted", with comma')),
        tags=("tone", "b"),
        notes="-n",
    ),
    Principle("short", (("- Be short", "'=literal"),), version=2),
]


def reference(*parts: str) -> Path:
    return Path(os.environ["SAMI_REFERENCE"]).joinpath("tldr", *parts)


def texts(principles) -> dict:
    return {p.name: p.phrasings for p in principles}


def test_csv_and_back(tmp_path):
    export_principles(AWKWARD, tmp_path / "p.csv", "csv")
    back = import_principles(tmp_path / "p.csv")
    assert texts(back) == texts(AWKWARD)
    assert [(p.tags, p.notes) for p in back] == [(p.tags, p.notes) for p in AWKWARD]
    with open(tmp_path / "p.csv", newline="", encoding="utf-8") as stream:
        cells = [cell for row in csv.reader(stream) for cell in row]
    assert not any(cell.startswith(("=", "-", "+", "@")) for cell in cells)  # no formula for a spreadsheet to run


@REFERENCE
@pytest.mark.parametrize("writer", ["opus", "mistral"])
def test_authors_constitutions_and_back(tmp_path, writer):
    source = reference(f"constitutions_{writer}")
    principles = import_principles(source)
    assert {p.id for p in principles} == {"concise", "comprehensive"}
    export_principles(principles, tmp_path / "out", "constitutions")
    assert texts(import_principles(tmp_path / "out")) == texts(principles)

    def contents(folder: Path):
        """Every file's content, spaces at line ends aside; the files' order is free."""
        files = [json.loads(file.read_text(encoding="utf-8")) for file in folder.glob("*.json")]
        for file in files:
            for column in ("positive", "negative"):
                file[column] = [line.rstrip() for line in file[column].split("\n")]
        return sorted(json.dumps(file, sort_keys=True) for file in files)

    assert contents(tmp_path / "out") == contents(source)
    assert len(contents(source)) == 6


@REFERENCE
def test_every_constitution_file_alone_or_refused_by_name():
    for file in sorted(reference().glob("constitutions_*/*.json")):
        if file.stem in ("2", "5"):  # both principles on both sides
            assert len(import_principles(file)) == 2
        else:
            with pytest.raises(UserError, match="is never shown on both sides"):
                import_principles(file)


@REFERENCE
def test_diverse_principles_and_back_compose_and_split(tmp_path):
    source = reference("principles_diverse.json")
    principles = import_principles(source)
    export_principles(principles, tmp_path / "out.json", "definitions")
    assert texts(import_principles(tmp_path / "out.json")) == texts(principles) and len(principles) == 20
    original = json.loads(source.read_text(encoding="utf-8"))
    again = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert again == {name: {key: text.strip() for key, text in entry.items()} for name, entry in original.items()}
    stated = {
        statement.id
        for index in range(200)
        for constitution in compose(principles, "complement", 2, 2, "seed", index)
        for statement in constitution
    }
    assert len(stated) == 20
    trained, held_out = split(principles, (), 5, seed=0)
    assert (len(trained), len(held_out)) == (15, 5)
    assert {p.id for p in split(principles[::-1], (), 5, seed=0)[1]} == {p.id for p in held_out}
    assert [p.id for p in held_out] == ["independent", "pirate_speak", "eloquent", "humorous", "motivational"]


def test_merge_loses_nothing(tmp_path):
    first = [
        Principle("a", (("A.", "Not A."),)),
        Principle("b", (("B.", "Not B."),)),
        Principle("c", (("C.", "Not C."),)),
    ]
    assert merge(tmp_path, first)["new"] == ["a@1", "b@1", "c@1"]
    a = read_principles(tmp_path)[0]
    add_review(tmp_path, a, Review("ann", "2026-01-01", "approved", content_hash(a)))
    changed = [Principle("a", (("A!", "Not A."),)), Principle("b", (("B!", "Not B."),)), first[2]]
    outcome = merge(tmp_path, changed)
    assert outcome == {"new": [], "changed": ["b@1"], "next version": ["a@2"], "unchanged": ["c@1"]}
    assert texts(read_principles(tmp_path)) == {
        "a@1": (("A.", "Not A."),),
        "a@2": (("A!", "Not A."),),
        "b@1": (("B!", "Not B."),),
        "c@1": (("C.", "Not C."),),
    }
    assert merge(tmp_path, changed)["unchanged"] == ["a@2", "b@1", "c@1"]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("p.csv", "id,principle\na,B\n", "row 2: antithesis is empty or has no column"),
        ("p.csv", "", "is empty; its first line must name the columns"),
        ("p.csv", "id,principle,antithesis\n", "no rows; the first line names the columns id, version"),
        ("p.csv", "id,principle,antithesis\na,B,C,D\n", "row 2: not as many cells as columns: 4, not 3"),
        ("p.xlsx", "PK\x03\x04", "is a ZIP archive"),
        ("p.csv", "id,version,principle,antithesis\na,x,B,C\n", "row 2: version is 'x'"),
        ("p.csv", "id,principle,antithesis\n../a,B,C\n", "'../a' cannot be an id"),
        ("p.json", "[1]", "must look like"),
        ("p.json", '{"a": {"definition": "", "antithesis": "b"}}', "'a' has an empty text"),
        ("p.json", '{"positive": "1. A", "negative": "1. A", "identifiers": {"positive": [], "negative": []}}', "not a constitution file"),
        ("p.json", '[{"id": "a", "principle": "B"}]', "row 1: antithesis is empty or has no column"),
        ("p.txt", "Be kind.", "neither JSON nor a table of known columns"),
    ],
)  # fmt: skip
def test_bad_files_are_named(tmp_path, name, content, words):
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=words) as error:
        import_principles(tmp_path / name)
    assert name in str(error.value)


HEADER, ROWS = (
    "id,version,principle,antithesis,tags,notes",
    ["a,1,A.,Not A.,x y,", "a,1,A!,Not A!,,", "b,2,B.,Not B.,,n"],
)
PLAIN = "\n".join([HEADER, *ROWS, ""])
OBJECTS = [dict(zip(HEADER.split(","), row.split(","), strict=True)) for row in ROWS]
# The same principles as a spreadsheet or pandas leaves them.
TABLES = {
    "p.csv": PLAIN.encode(),
    "P.CSV": PLAIN.replace("id,version", "Id, Version ").encode(),
    "semicolons.csv": ("sep=;\n" + PLAIN.replace(",", ";")).encode(),
    "p.tsv": PLAIN.replace(",", "\t").encode(),
    "unicode.txt": PLAIN.replace(",", "\t").replace("\n", "\r\n").encode("utf-16"),
    "blank.csv": "\n".join(f"{row},," for row in [",,,,,", HEADER, *ROWS, ",,,,,"]).encode(),
    "floats.csv": PLAIN.replace(",1,", ",1.0,").replace(",2,", ",2.0,").encode(),
    "cut.csv": PLAIN.replace(",,\n", "\n").encode(),
    "p.JSON": json.dumps(
        [{**row, "version": float(row["version"]), "notes": row["notes"] or None} for row in OBJECTS]
    ).encode(),
    "p.jsonl": "".join(json.dumps({**row, "tags": row["tags"].split() or None}) + "\n" for row in OBJECTS).encode(),
}


@pytest.mark.parametrize("name", TABLES)
def test_tables_that_a_tool_has_saved(tmp_path, name):
    (tmp_path / name).write_bytes(TABLES[name])
    found = import_principles(tmp_path / name)
    assert texts(found) == {"a@1": (("A.", "Not A."), ("A!", "Not A!")), "b@2": (("B.", "Not B."),)}
    assert [(p.tags, p.notes) for p in found] == [(("x", "y"), ""), ((), "n")]


def test_constitution_files_in_capitals_are_read_and_hidden_ones_are_not(tmp_path):
    content = {
        "identifiers": {"positive": ["pos a"], "negative": ["neg a"]},
        "positive": "1. A.",
        "negative": "1. Not A.",
    }
    (tmp_path / "0.JSON").write_text(json.dumps(content))
    for name in ("._0.JSON", "._0.json", "Thumbs.db", "README.md"):
        (tmp_path / name).write_text("x")
    assert texts(import_principles(tmp_path)) == {"a@1": (("A.", "Not A."),)}


def test_what_a_format_cannot_hold_is_refused(tmp_path):
    with pytest.raises(UserError, match="kind@1: has 2 wordings"):
        export_principles(AWKWARD, tmp_path / "x.json", "definitions")
    many = [Principle(name, ((name, f"not {name}"),)) for name in "abcd"]
    with pytest.raises(UserError, match="at most 3"):
        export_principles(many, tmp_path / "x", "constitutions")
