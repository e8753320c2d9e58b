"""`sami` with queries of other formats than its own: bad ones are one line and status 2, other ones are no reason to go on."""

import json

import pyarrow
import pytest
from pyarrow import parquet
from support.complaint import complaint
from support.fabricated_run import predicate

from sami_jax.cli import main
from sami_jax.config import load_config
from sami_jax.data.queries import read_source
from sami_jax.data.sources import Source
from sami_jax.errors import UserError
from sami_jax.provenance.manifest import RunRecord, read_statement
from sami_jax.stages import preparation

HH = "\n\nHuman: How do I fix chair {}?\n\nAssistant: Well."
COMMIT = "0" * 40


@pytest.mark.parametrize("verb", [["run", "--workdir=w"], ["evaluate", "--model=w", "--output=o"]])
@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["queries=hub:Anthropic/hh-rlhf"], "config.data.revision='': must be the commit (40 hex digits)"),
        (["queries=hub:Anthropic/hh-rlhf", "revision=main"], "config.data.revision='main': must be the commit"),
        (["queries=q.csv"], "q.csv:4: not as many cells as columns: 1, not 2; mend the row"),
        (["queries=q.csv", "column=question"], "q.csv: no column question; set config.data.column to one of: 'id', 'query'"),
        (["queries=q.parquet"], "q.parquet:2: a dialogue without a turn of the user"),
        (["queries=broken.parquet"], "broken.parquet: not readable as Parquet"),
        (["queries=folder"], "folder: no split 'train'; there are: validation"),
        (["eval_queries=folder"], "folder: no split 'test'; there are: validation"),
        (["queries=folder", "subset=other"], "config.data.subset='other': folder has the subsets default"),
    ],
)  # fmt: skip
def test_bad_queries_are_one_line(capsys, tmp_path, monkeypatch, verb, overrides, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "q.csv").write_bytes('id,query\r\n1,"Zeile\r\n日本"\r\n2\r\n'.encode())
    (tmp_path / "broken.parquet").write_bytes(b"PAR1")
    rows = pyarrow.table({"chosen": [HH, "\n\nAssistant: Hello."]})
    parquet.write_table(rows, tmp_path / "q.parquet")
    (tmp_path / "folder").mkdir()
    parquet.write_table(rows, tmp_path / "folder" / "validation-00000-of-00001.parquet")
    options = [f"--config.data.{override}" for override in overrides]
    assert words in complaint(capsys, *verb, "--config=tiny", "--config.mesh.data=8", *options)
    assert not (tmp_path / "w").exists()


def test_without_a_network_a_dataset_that_was_never_fetched_is_refused(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    options = ["--config.data.queries=hub:Anthropic/hh-rlhf", f"--config.data.revision={COMMIT}"]
    assert main(["run", "--config=tiny", "--workdir", str(tmp_path / "w"), "--config.mesh.data=8", *options]) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith("sami: hub:Anthropic/hh-rlhf: the hub cannot be reached (or HF_HUB_OFFLINE is set)")


def test_queries_of_a_judge_may_be_csv(capsys, tmp_path):
    for name in "ab":
        rows = [{"id": n, "constitution": "1. Say thanks.", "response": f"Yes {n}."} for n in (1, 2)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "q.csv").write_text('id,query\n1,"One, ""1"""\n2,Two\n')
    argv = [
        "rate",
        "export",
        "--baseline",
        f"{tmp_path}/a.jsonl",
        "--test",
        f"{tmp_path}/b.jsonl",
        "--output",
        f"{tmp_path}/o",
    ]
    assert main([*argv, "--queries", f"{tmp_path}/q.csv"]) == 0
    assert '"One, ""1"""' in (tmp_path / "o" / "ratings.csv").read_text()
    assert "hub datasets are read at one alone" in complaint(capsys, *argv, "--queries", "hub:a/b")


def test_a_run_goes_on_with_the_same_data_alone(tmp_path):
    """What was read is in the manifest; a folder whose rows are others is another run's."""
    file = tmp_path / "data" / "train-00000-of-00001.parquet"
    file.parent.mkdir()

    def begin(*posts: str) -> None:
        rows = [{"info": {"post": post}, "summaries": [{"text": post}]} for post in posts]
        parquet.write_table(pyarrow.Table.from_pylist(rows), file)
        inputs = {"queries": read_source(Source(str(file.parent))).record}
        RunRecord(tmp_path / "run", predicate() | {"inputs": inputs}, {"kind": "cpu", "count": 1})

    begin("A", "B", "A")
    written = read_statement(tmp_path / "run")["predicate"]["inputs"]["queries"]
    assert (written["rows"], written["queries"], written["repeated"], written["columns"]) == (3, 2, 1, ["info.post"])
    assert written["split"] == "train" and written["files"] == [str(file)]
    begin("A", "B")  # the same queries
    with pytest.raises(UserError, match=r"holds a run made otherwise \(inputs.queries was '[0-9a-f]{64}', now"):
        begin("A", "C")


def test_what_was_read_is_what_the_manifest_gets(tmp_path):
    (tmp_path / "q.csv").write_text("query\n" + "".join(f"How do I fix chair {n}?\n" for n in range(40)))
    config, _ = load_config("tiny", [f"--config.data.queries={tmp_path}/q.csv", "--config.mesh.data=8"])
    inputs = preparation.prepare(config, tmp_path / "w", False)
    made_from = preparation.provenance(config, inputs, tmp_path)
    assert made_from["inputs"]["queries"]["path"] == f"{tmp_path}/q.csv"
    assert made_from["inputs"]["queries"]["rows"] == made_from["inputs"]["queries"]["queries"] == 40
    assert made_from["inputs"]["eval_queries"]["columns"] == ["query"]
