"""Nothing is judged that was trained on: one function splits queries, by text, for every verb that evaluates."""

import itertools
import json
import shutil

import pytest
from support.complaint import complaint

from sami_jax import miniature
from sami_jax.cli import comparing, main
from sami_jax.config import load_config
from sami_jax.config.checks import validate
from sami_jax.data.queries import Query, read_queries
from sami_jax.data.splits import distinct, of_iteration, split_queries
from sami_jax.errors import UserError
from sami_jax.provenance.manifest import read_statement
from sami_jax.stages import preparation

ROWS = [json.loads(line) for line in (miniature.QUERIES / "held_out.jsonl").read_text().splitlines()]


def write(file, rows) -> str:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def asked(*texts: str) -> list[dict]:
    return [{"id": f"{place}", "query": text} for place, text in enumerate(texts)]


def options(**fields) -> list[str]:
    return [f"--config.data.{name}={value}" for name, value in fields.items()]


def split(tmp_path, training, evaluation=None, **fields):
    named = {"queries": write(tmp_path / "train.jsonl", training), "eval_queries": ""}
    if evaluation is not None:
        named["eval_queries"] = write(tmp_path / "eval.jsonl", evaluation)
    config, _ = load_config("tiny", options(**named, **fields))
    return split_queries(config.data)


def test_without_other_queries_the_last_are_held_out(tmp_path):
    found = split(tmp_path, ROWS[:20])
    assert [query.id for query in found.training] == [f"held_out-{n}" for n in range(18)]
    assert [query.id for query in found.held_out] == ["held_out-18", "held_out-19"]
    assert found.records["queries"]["held_out"] == 2 and found.records["queries"]["trained_on_too"] == 0


@pytest.mark.parametrize(
    ("trained", "again"),
    [
        ("How do I fix it?", "How do I fix it?"),
        ("How do I fix it?", "  how do I\n\tFIX it? "),
        ("How do I fix it?", "\uff28\uff4f\uff57 do I \ufb01x it?"),
        ("Straße", "STRASSE"),
        ("ドアを直す", "ﾄﾞｱを直す"),
    ],
)
def test_a_text_that_is_trained_on_is_not_evaluated_on(tmp_path, capsys, trained, again):
    found = split(tmp_path, asked(trained, "Another?"), asked("New?", again, "Newer?"))
    assert [query.text for query in found.held_out] == ["New?", "Newer?"] and len(found.training) == 2
    assert found.records["eval_queries"]["trained_on_too"] == 1 and found.records["eval_queries"]["held_out"] == 2
    told = " ".join(capsys.readouterr().err.split())
    assert "eval.jsonl: 1 of 3 queries to evaluate on stand among those to train on too; left out" in told


def test_rows_with_ids_that_repeat_a_text_are_not_held_out_from_themselves(tmp_path):
    rows = asked(*(f"Query {n % 17}?" for n in range(20)))
    found = split(tmp_path, rows, eval_fraction=0.5)
    assert [query.text for query in found.held_out] == [f"Query {n}?" for n in range(10, 17)]
    assert found.records["queries"]["trained_on_too"] == 3


@pytest.mark.parametrize("held_out", [None, ["Query 3?", "query 4?"]])
def test_where_nothing_is_left_it_is_one_line(tmp_path, held_out):
    rows = asked(*(f"Query {n % 10}?" for n in range(20)))
    with pytest.raises(UserError, match=r"each of the 2 queries to evaluate on stands among those to train on too"):
        split(tmp_path, rows, held_out and asked(*held_out))


@pytest.mark.parametrize("name", ["q.jsonl", "./q.jsonl", "sub/../q.jsonl", "link.jsonl", "copy.jsonl"])
@pytest.mark.parametrize(
    "verb", [["run", "--workdir=w"], ["compare", f"--test={miniature.BASE}", "--judge=miniature", "--output=w"]]
)
def test_one_file_for_both_is_refused(tmp_path, monkeypatch, capsys, name, verb):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "q.jsonl", ROWS[:20])
    (tmp_path / "sub").mkdir()
    (tmp_path / "link.jsonl").symlink_to("q.jsonl")
    shutil.copy("q.jsonl", "copy.jsonl")
    said = complaint(
        capsys, *verb, "--config=tiny", "--config.mesh.data=8", *options(queries="q.jsonl", eval_queries=name)
    )
    copied = "copy.jsonl: each of the 20 queries to evaluate on stands among those to train on too"
    assert (copied if name == "copy.jsonl" else "must be another file than data.queries, or ''") in said


def test_one_file_for_both_is_held_out_in_part_where_nothing_is_judged(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "q.jsonl", ROWS[:20])
    config, _ = load_config(
        "tiny", [*options(queries="q.jsonl", eval_queries="./q.jsonl"), "--config.evaluation.judge=none"]
    )
    validate(config)
    found = split_queries(config.data)
    assert [len(found.training), [query.id for query in found.held_out]] == [18, ["held_out-18", "held_out-19"]]
    assert "q.jsonl: one file to train and to evaluate on; its last 10% are held out" in capsys.readouterr().err


def test_splits_of_iterations_share_no_text():
    texts = ["a", "b", "A ", "c", "d", "B", "e", "a"]
    queries = [Query(str(place), text) for place, text in enumerate(texts)]
    assert distinct(queries) == 5
    for splits in (1, 2, 3):
        parts = [of_iteration(queries, splits, iteration) for iteration in range(1, splits + 1)]
        assert sorted(query.id for part in parts for query in part) == [query.id for query in queries]
        for one, other in itertools.combinations(parts, 2):
            assert not {query.text.casefold().strip() for query in one} & {q.text.casefold().strip() for q in other}
    # Where no text comes twice they take turns.
    queries = read_queries(miniature.QUERIES / "train.jsonl")
    assert of_iteration(queries, 2, 3) == of_iteration(queries, 2, 1) == queries[::2]


def test_texts_not_rows_make_splits(tmp_path):
    config, _ = load_config(
        "tiny", [*options(queries=write(tmp_path / "q.jsonl", asked("A?", "a?"))), "--config.mesh.data=8"]
    )
    with pytest.raises(UserError, match="1 queries to train on cannot make 2 splits"):
        preparation.prepare(config, tmp_path / "w", False)


def test_a_comparison_asks_what_a_run_holds_out_and_nothing_else(tmp_path, monkeypatch):
    named = options(queries=write(tmp_path / "q.jsonl", ROWS[:20]), eval_queries="", eval_fraction=0.2)
    named += ["--config.mesh.fsdp=1", "--config.mesh.data=-1"]
    config, _ = load_config("tiny", named)
    [held_out, *_] = [one.queries for one in preparation.prepare(config, tmp_path / "w", False).evaluation_sets]
    assert [query.id for query in held_out] == [f"held_out-{n}" for n in range(16, 20)]
    given = []

    def answer(config, contestant, queries, *_):
        given.append(list(queries))
        return [{"id": query.id, "response": f" Hello, {contestant.role}."} for query in queries], 0

    monkeypatch.setattr(comparing, "answer", answer)
    verb = ["compare", "--config=tiny", "--test", str(miniature.BASE), "--judge", "miniature"]
    assert main([*verb, "--output", str(tmp_path / "ab"), *named]) == 0
    assert given == [held_out, held_out]
    inputs = read_statement(tmp_path / "ab")["predicate"]["inputs"]
    assert inputs["queries"]["held_out"] == 4 and "test_model" in inputs
