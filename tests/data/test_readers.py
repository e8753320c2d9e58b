"""Every reader of rows reads them in every form that tools leave, and null as absent."""

import json
from argparse import Namespace
from pathlib import Path

import pandas
import pytest

from sami_jax import miniature
from sami_jax.cli import files
from sami_jax.config import load_config
from sami_jax.data.pairs import read_pairs
from sami_jax.errors import UserError
from sami_jax.evaluation.compare import read_examples
from sami_jax.evaluation.explain import read_answers
from sami_jax.evaluation.pairs import read_pairs_of_files
from sami_jax.evaluation.verdicts import Verdict, read_verdicts
from sami_jax.models.pretrained import open_model

FILTER = load_config("tiny", [])[0].filter


def written(file: Path, rows: list[dict]) -> Path:
    """The rows in the form that the file's name says, as pandas or a spreadsheet writes them, beside a column that nobody reads."""
    frame = pandas.DataFrame(rows).assign(unread=float("nan"))
    if file.suffix == ".parquet":
        frame.to_parquet(file)
    elif file.suffix == ".csv":
        frame.to_csv(file, sep=";", index=False)
    elif file.suffix == ".json":
        frame.to_json(file, orient="records")
    else:  # Python's own, with NaN as it stands
        file.write_text("".join(json.dumps(row) + "\n" for row in frame.to_dict("records")))
    return file


FORMS = pytest.mark.parametrize("form", ["jsonl", "json", "csv", "parquet"])


@FORMS
def test_verdicts(tmp_path, form):
    rows = [
        {"win": 1, "id": 7, "constitution": "1. A.", "baseline_tokens": 9, "test_tokens": 8, "flipped": True, "tags": ["a"]},
        {"win": 0.5, "id": 8, "constitution": "1. B.", "baseline_tokens": 9, "test_tokens": 8, "flipped": False, "tags": []},
        {"win": None, "id": 8, "constitution": None, "baseline_tokens": None, "test_tokens": None, "flipped": None, "tags": None},
    ]  # fmt: skip
    assert read_verdicts(written(tmp_path / f"v.{form}", rows)) == [
        Verdict(1.0, "7", "1. A.", 9, 8, True, ("a",)),
        Verdict(0.5, "8", "1. B.", 9, 8, False),
        Verdict(None, "8"),
    ]


@pytest.mark.parametrize(
    ("content", "wins"),
    [
        ("id;win\n1;0,5\n2;1,0\n3;\n", [0.5, 1, None]),
        ("id,win,\n1,1.0,\n,,\n2,0.0,\n", [1, 0]),
        ("win,flipped\n1,TRUE\n0,\n", [1, 0]),
    ],
)
def test_verdicts_of_a_spreadsheet(tmp_path, content, wins):
    (tmp_path / "v.csv").write_text(content)
    assert [verdict.win for verdict in read_verdicts(tmp_path / "v.csv")] == wins


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("id,win\n1,won\n", r"v.csv:2: win is none of 1, 0.5, 0 and null but 'won'"),
        ("id,win\n1,2\n", r"v.csv:2: win is none of 1, 0.5, 0 and null but 2.0"),
        ("id,won\n1,1\n", r"v.csv:2: key 'win' is missing"),
        ('win,test_tokens\n1,"1,234"\n', r"v.csv:2: a length is no number of tokens but '1,234'"),
        ("win,flipped\n1,WAHR\n", r"v.csv:2: flipped is of another type: 'WAHR'"),
    ],
)
def test_cells_that_are_no_verdict_are_named(tmp_path, content, words):
    (tmp_path / "v.csv").write_text(content)
    with pytest.raises(UserError, match=words):
        read_verdicts(tmp_path / "v.csv")


@FORMS
def test_responses(tmp_path, form):
    rows = [
        {"id": 1, "constitution": "1. A.", "query": None, "response": "xyz", "tokens": 9, "tags": None},
        {"id": 2, "constitution": None, "query": "Q", "response": "y", "tokens": 4, "tags": ["t"]},
    ]
    floats = [{**row, "id": float(row["id"]), "response": row["response"] + "."} for row in rows]
    files = written(tmp_path / f"a.{form}", rows), written(tmp_path / "b.jsonl", floats)
    found = read_pairs_of_files(*files, {"1": "P"})
    assert [(p.id, p.query, p.constitution, p.lengths, p.tags) for p in found] == [
        ("1", "P", "1. A.", (3, 4), ()),
        ("2", "Q", "", (1, 2), ("t",)),
    ]


@FORMS
def test_pairs(tmp_path, form):
    row = {"query": "Q", "constitutions": ["1. A.", "1. B."], "responses": ["x", "y"]}
    rows = [
        {**row, "finish_reasons": None, "turns": None},
        {**row, "finish_reasons": ["stop", "length"], "turns": None},
    ]
    plain = {"query": "Q", "constitutions": ["1. A.", "1. B."], "responses": ["x", "y"]}
    plain |= {"turns": [], "token_ids": [[], []]}
    assert read_pairs(written(tmp_path / f"p.{form}", rows), 2) == [
        {**plain, "finish_reasons": ["stop", "stop"]},
        {**plain, "finish_reasons": ["stop", "length"]},
    ]


@FORMS
def test_answers_and_examples(tmp_path, form):
    rows = [{"id": 1, "query": "Q", "constitution": f"1. {c}.", "response": c, "turns": None} for c in "AB"]
    file = written(tmp_path / f"r.{form}", rows)
    assert [(a.id, a.query, a.response) for a in read_answers(file, FILTER)] == [("1", "Q", "A"), ("1", "Q", "B")]
    assert [one["response"] for one in read_examples(file)] == ["A", "B"]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"query": "Q", "constitution": None, "response": "R"}, "e.jsonl:1: key 'constitution' is missing"),
        ({"query": "Q", "constitution": 1, "response": "R"}, "e.jsonl:1: 'constitution' must be a text"),
    ],
)
def test_what_is_no_example_is_named(tmp_path, row, words):
    (tmp_path / "e.jsonl").write_text(json.dumps(row))
    with pytest.raises(UserError, match=words):
        read_examples(tmp_path / "e.jsonl")


class Read(Exception):
    """What a verb has read, before it does anything costly."""


@pytest.fixture
def read(monkeypatch):
    """Runs a verb up to what it has read."""
    base = open_model(miniature.BASE)
    kept = []
    real = files.read_rows

    def keep(*asked):
        kept.append(real(*asked))
        raise Read

    monkeypatch.setattr(files, "read_rows", keep)
    monkeypatch.setattr(files, "open_model", lambda *_, **__: base)

    def run(verb, file: Path, **options):
        shared = {
            "model": miniature.BASE,
            "input": file,
            "chat": False,
            "batch_size": 1,
            "skip_bad_rows": False,
            "date": None,
        }
        with pytest.raises(Read):
            verb(Namespace(**shared, **options))
        return [row for _, row in kept.pop()]

    return run


@FORMS
def test_prompts_to_sample(tmp_path, form, read):
    rows = [{"id": 1, "prompt": "Hi", "messages": None}, {"id": 2, "prompt": "Bye", "messages": None}]
    options = {
        "config": "tiny",
        "overrides": [],
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": 0,
        "max_new_tokens": 4,
        "stop": (),
    }
    plain = read(files.sample_file, written(tmp_path / "in.jsonl", rows), **options)
    found = read(files.sample_file, written(tmp_path / f"in.{form}", rows), **options)
    assert [ids for _, ids in found] == [ids for _, ids in plain] and [str(key["id"]) for key, _ in found] == ["1", "2"]


@FORMS
def test_pairs_to_score(tmp_path, form, read):
    lists = {"prompts": ["Hi", "Bye"], "responses": [" a", " b"]}
    rows = [{"id": 1, **lists, "query": None, "constitutions": None}]
    template = [
        {"id": 2, "prompts": None, "responses": lists["responses"], "query": "Q", "constitutions": lists["prompts"]}
    ]
    options = {"config": "tiny", "overrides": [], "score_eos": False}
    plain = read(files.score_file, written(tmp_path / "in.jsonl", rows + template), **options)
    found = read(files.score_file, written(tmp_path / f"in.{form}", rows + template), **options)
    assert [example for _, example in found] == [example for _, example in plain] and [str(id) for id, _ in found] == [
        "1",
        "2",
    ]
