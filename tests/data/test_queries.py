"""Queries of CSV, Parquet and JSONL files in the formats that data sets have."""

import gzip
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet
from support.query_files import HH, HH_QUERIES, comparison, turns, write

from sami_jax.data.dialogue import Message
from sami_jax.data.queries import read_queries, read_source
from sami_jax.data.rows import Skipped
from sami_jax.data.sources import Source
from sami_jax.errors import UserError


@pytest.mark.parametrize("name", ["q.parquet", "q.jsonl", "q.jsonl.gz"])
@pytest.mark.parametrize("form", ["text", "messages"])
def test_hh_rlhf(tmp_path, name, form, capsys):
    rows = HH if form == "text" else [{key: turns(text) for key, text in row.items()} for row in HH]
    read = read_source(Source(str(write(tmp_path / name, rows))))
    assert [query.text for query in read.queries] == HH_QUERIES
    assert [query.id for query in read.queries] == ["1", "2"]
    assert read.queries[0].turns[-1] == Message("user", "Write one 🙂") and len(read.queries[0].turns) == 3
    assert "1 of 3 rows repeat an earlier row's query" in capsys.readouterr().err
    del read.record["sha256"]
    place = str(tmp_path / name)
    assert read.record == {"path": place, "rows": 3, "queries": 2, "repeated": 1, "columns": ["chosen"]}


@pytest.mark.parametrize("name", ["q.parquet", "q.jsonl"])
def test_summarize_from_feedback(tmp_path, name, capsys):
    rows = [comparison(post, n) for n, post in enumerate(["A post.\n\n  Long.", "B", "A post.\n\n  Long.", None])]
    file = write(tmp_path / name, rows)
    with pytest.raises(UserError, match=rf"{name}:4: 'info.post' holds no text but None; add the query"):
        read_queries(file)
    skipped = Skipped()
    assert [query.text for query in read_queries(file, skipped)] == ["A post.\n\n  Long.", "B"]
    assert skipped.counts == {str(file): {"'info.post' holds no text": 1}}
    titles = read_source(Source(str(file), column="info.title", id_column="")).queries
    assert [query.text for query in titles] == ["T"]


@pytest.mark.parametrize("name", ["q.parquet", "q.jsonl"])
def test_prompts_and_messages(tmp_path, name):
    asked = [{"role": "system", "content": "S"}, {"role": "user", "content": "Q"}]
    replied = [*asked, {"role": "assistant", "content": "R"}]
    for rows in (
        [{"prompt": asked, "chosen": replied[2:]}],
        [{"messages": replied, "prompt_id": "x"}],
        [{"conversation": replied, "prompt": "other"}],
    ):
        column = "conversation" if "conversation" in rows[0] else ""
        [query] = read_source(Source(str(write(tmp_path / name, rows)), column=column)).queries
        assert query.text == "S\n\nQ" and [turn.role for turn in query.turns] == ["system", "user"]
    [query] = read_queries(write(tmp_path / name, [{"prompt": " P ", "messages": replied}]))
    assert query.text == "P" and query.turns == ()
    [query] = read_queries(write(tmp_path / name, [{"prompt": "\n\nHuman: Q\n\nAssistant:"}]))
    assert query.text == "Q"
    [query] = read_queries(write(tmp_path / name, [{"query": "\n\nHuman: as it stands"}]))
    assert query.text == "Human: as it stands"


def test_ids_and_tags_of_parquet(tmp_path):
    rows = [{"uuid": 7, "question": "A", "tags": ["x"]}, {"uuid": 8, "question": "A", "tags": None}]
    file = write(tmp_path / "q.parquet", rows)
    queries = read_source(Source(str(file), column="question", id_column="uuid")).queries
    assert [(query.id, query.tags) for query in queries] == [("7", ("x",)), ("8", ())]
    file = write(tmp_path / "q.parquet", [{"id": 7, "query": "A", "tags": "not ours"}])
    assert read_queries(file)[0].tags == ()


CSV = 'id,query,notes\n007,"日本語の質問, ""引用"" 🙂\nzweite Zeile",x\n\n8,NA,\n9,null,\n10,1.5,nan\n'


@pytest.mark.parametrize("content", [CSV, "\ufeff" + CSV, CSV.replace("\n", "\r\n"), CSV + "\n\n"])
def test_cells_of_csv_are_texts_as_they_stand(tmp_path, content):
    file = tmp_path / "q.csv"
    file.write_bytes(content.encode())
    queries = read_queries(file)
    assert [query.id for query in queries] == ["007", "8", "9", "10"]
    text = queries[0].text.replace("\r\n", "\n")
    assert text == '日本語の質問, "引用" 🙂\nzweite Zeile'
    assert [query.text for query in queries[1:]] == ["NA", "null", "1.5"]


def test_a_cell_may_be_long(tmp_path):
    (tmp_path / "q.csv").write_text(f"query\n{'x' * 1_000_000}\n")
    assert len(read_queries(tmp_path / "q.csv")[0].text) == 1_000_000


BAD_CSV = b'id,query\n1,first\n2,\xff\n3,a,b\n4\n5,"a"b\n6,  \n1,again\n7,"last\none"\n8,\xed\xa0\x80\n'


def test_bad_rows_of_csv_are_told_by_their_line(tmp_path, capsys):
    file = tmp_path / "q.csv"
    file.write_bytes(BAD_CSV)
    skipped = Skipped()
    assert [query.text for query in read_queries(file, skipped)] == ["first", "last\none"]
    assert skipped.counts[str(file)] == {
        "not UTF-8 text": 2,
        "not as many cells as columns": 2,
        "not a CSV row": 1,
        "'query' holds no text": 1,
        "the id stands on an earlier line too": 1,
    }
    assert "7 of 9 rows passed over" in capsys.readouterr().err
    lines = BAD_CSV.split(b"\n")
    for number, words in ((3, "not UTF-8 text"), (4, "not as many cells as columns: 3, not 2"), (6, "not a CSV row")):
        file.write_bytes(b"\n".join([*lines[: number - 1][:1], *[b""] * (number - 2), lines[number - 1], b""]))
        with pytest.raises(UserError, match=f"q.csv:{number}: {words}"):
            read_queries(file)


def raw_parquet(file: Path, **columns: list) -> Path:
    """A Parquet file with texts of any bytes."""
    arrays = {name: pyarrow.array(values, pyarrow.binary()).view(pyarrow.string()) for name, values in columns.items()}
    parquet.write_table(pyarrow.table(arrays), file)
    return file


def test_bad_rows_of_parquet_are_told_by_their_number(tmp_path):
    file = raw_parquet(tmp_path / "q.parquet", query=[b"a", b"\xff", b"\xed\xa0\x80", None, b" ", b"\xe6\x97\xa5"])
    with pytest.raises(UserError, match=r"q.parquet:2: not UTF-8 text"):
        read_queries(file)
    skipped = Skipped()
    assert [(query.id, query.text) for query in read_queries(file, skipped)] == [("1", "a"), ("6", "日")]
    assert skipped.counts[str(file)] == {"not UTF-8 text": 2, "'query' holds no text": 2}
    file = write(tmp_path / "q.parquet", [{"query": float("nan")}])
    with pytest.raises(UserError, match=r"q.parquet:1: 'query' holds no text but None"):
        read_queries(file)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("q.csv", b"", "q.csv: is empty; its first line must name the columns"),
        ("q.csv", b"id,query\n", "q.csv: no lines that can be used"),
        ("q.csv", b"id,text\n1,a\n", "q.csv: no column query, prompt.* set config.data.column to one of: 'id', 'text'"),
        ("q.csv", b"id,id,query\n1,2,a\n", "q.csv: two columns are called 'id'"),
        ("q.csv", b'id,query\n1,a\n2,"b\n3,c\n4,d\n', "q.csv:3: a quoted cell is never closed"),
        ("q.csv.gz", gzip.compress(b"id,query\n1,a\n", mtime=0)[:-9], "q.csv.gz: cannot be decompressed"),
        ("q.parquet", b"", "q.parquet: not readable as Parquet"),
        ("q.parquet", b"PAR1 and no more", "q.parquet: not readable as Parquet"),
        ("q.parquet", None, "q.parquet: No such file or directory; give the path"),
        ("q.csv", None, "q.csv: No such file or directory; give the path"),
    ],
)
def test_files_that_cannot_be_read_are_one_line(tmp_path, name, content, words):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    for skipped in (None, Skipped()):  # nor can a whole file be passed over
        with pytest.raises(UserError, match=words) as refused:
            read_queries(tmp_path / name, skipped)
        assert "\n" not in str(refused.value)


def test_columns_that_are_not_there(tmp_path):
    file = str(write(tmp_path / "q.parquet", [{"id": 1, "query": "a", "info": {"post": "b"}}]))
    with pytest.raises(UserError, match=r"no column text; set config.data.column to one of: 'id', 'query', 'info'"):
        read_source(Source(file, column="text"))
    with pytest.raises(UserError, match=r"q.parquet:1: no query: nothing called info.text"):
        read_source(Source(file, column="info.text"))
    with pytest.raises(UserError, match=r"config.data.id_column='key': no row of .* has it; '' numbers the rows"):
        read_source(Source(file, id_column="key"))


def test_ids_are_asked_of_all_rows_or_none(tmp_path):
    file = write(tmp_path / "q.jsonl", [{"query": "a"}, {"query": "b", "id": 2}])
    with pytest.raises(UserError, match=r"q.jsonl:1: key 'id' is missing"):
        read_queries(file)
    write(file, [{"query": "a"}, {"query": "b"}])
    assert [query.id for query in read_queries(file)] == ["1", "2"]


def test_without_the_package_parquet_is_refused_in_one_line(tmp_path, monkeypatch):
    file = write(tmp_path / "q.parquet", [{"query": "a"}])
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(UserError, match=r"need the pyarrow package: pip install 'sami_jax\[hub\]'"):
        read_queries(file)
