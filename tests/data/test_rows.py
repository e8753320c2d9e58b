"""Files as people's tools leave them: each is read by what it holds, or refused in one line with the way out."""

import bz2
import decimal
import gzip
import io
import json
import lzma
import uuid
import zipfile

import pandas
import pyarrow
import pytest
from pyarrow import parquet

from sami_jax.data.content import kind_of
from sami_jax.data.queries import read_queries
from sami_jax.data.rows import Skipped
from sami_jax.errors import UserError

TWO = [{"id": 1, "query": "a"}, {"id": 2, "query": "b"}]
ARRAY = json.dumps(TWO).encode()
LINES = b'{"id": 1, "query": "a"}\n{"id": 2, "query": "b"}\n'
CSV = b"id,query\n1,a\n2,b\n"
FRAME = pandas.DataFrame(TWO)


def as_json(**options) -> bytes:
    return (FRAME.to_json(**options) or "").encode()


def zipped(*names: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name in names:
            archive.writestr(name, "x")
    return stream.getvalue()


def zstd(content: bytes) -> bytes:
    sink = pyarrow.BufferOutputStream()
    with pyarrow.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return sink.getvalue().to_pybytes()


# Each is read to the queries "a" of id 1 and "b" of id 2.
READ = {
    "one array": ("q.json", ARRAY),
    "an array called JSON Lines": ("q.jsonl", ARRAY),
    "an array over many lines": ("q.json", json.dumps(TWO, indent=2).encode()),
    "an array of lines": ("q.json", b'[\n{"id": 1, "query": "a"},\n{"id": 2, "query": "b"}\n]\n'),
    "an array behind a BOM, of CRLF": ("q.json", b"\xef\xbb\xbf" + json.dumps(TWO, indent=1).replace("\n", "\r\n").encode()),
    "arrays behind each other": ("q.json", b"".join(json.dumps([row]).encode() + b"\n" for row in TWO)),
    "JSON Lines called .json": ("q.json", LINES),
    "JSON Lines called .ndjson": ("q.ndjson", LINES),
    "JSON Lines of another name": ("q.txt", LINES),
    "JSON Lines called .csv": ("q.csv", LINES),
    "JSON Lines of old Macs": ("q.jsonl", LINES.replace(b"\n", b"\r")),
    "JSON Lines with BOMs where files were joined": ("q.jsonl", LINES.replace(b"{", b"\xef\xbb\xbf{")),
    "JSON Lines as PowerShell redirects them": ("q.jsonl", LINES.decode().encode("utf-16")),
    "UTF-16 of the other order": ("q.jsonl", b"\xfe\xff" + LINES.decode().encode("utf-16-be")),
    "objects over many lines": ("q.jsonl", "\n".join(json.dumps(row, indent=2) for row in TWO).encode()),
    "rows under a key": ("q.json", json.dumps({"version": "1.1", "data": TWO, "tags": []}, indent=1).encode()),
    "rows under a key, on one line": ("q.json", json.dumps({"data": TWO, "licenses": ["x"]}).encode()),
    "pandas' records": ("q.json", as_json(orient="records")),
    "pandas' lines": ("q.json", as_json(orient="records", lines=True)),
    "pandas' table": ("q.json", as_json(orient="table")),
    "CSV": ("q.csv", CSV),
    "CSV in capitals": ("Q.CSV", CSV),
    "CSV of another name": ("q.txt", CSV),
    "a suffix of both": ("Q.Csv.GZ", gzip.compress(CSV)),
    "gzip without its suffix": ("q.csv", gzip.compress(CSV)),
    "a suffix without gzip": ("q.jsonl.gz", LINES),
    "bzip2": ("q.jsonl.bz2", bz2.compress(LINES)),
    "xz": ("q.jsonl.xz", lzma.compress(LINES)),
    "zstandard": ("q.jsonl.zst", zstd(LINES)),
    "semicolons": ("q.csv", b"id;query\n1;a\n2;b\n"),
    "semicolons in quotes": ("q.csv", b'"id";"query"\r\n"1";"a"\r\n"2";"b"\r\n'),
    "semicolons and commas": ("q.csv", b"id;query;price\n1;a;1,5\n2;b;2,25\n"),
    "a first line for Excel": ("q.csv", b"sep=;\r\nid;query\r\n1;a\r\n2;b\r\n"),
    "tabs": ("q.tsv", b"id\tquery\n1\ta\n2\tb\n"),
    "tabs called .csv": ("q.csv", b"id\tquery\n1\ta\n2\tb\n"),
    "Excel's Unicode text": ("q.txt", "id\tquery\r\n1\ta\r\n2\tb\r\n".encode("utf-16")),
    "bars": ("q.csv", b"id|query\n1|a\n2|b\n"),
    "CSV of old Macs": ("q.csv", b"id,query\r1,a\r2,b\r"),
    "nameless columns and blank rows": ("q.csv", b"id,query,,\n1,a,,\n , ,,\n2,b,,\n,,,\n,,,\n"),
    "a row of commas before the header": ("q.csv", b",,\nid,query,\n1,a,\n2,b,\n"),
    "commas left away at the end": ("q.csv", b"id,query,,\n1,a\n2,b,,\n"),
    "commas added at the end": ("q.csv", b"id,query\n1,a,,\n2,b,\n"),
    "pandas' index": ("q.csv", FRAME.to_csv().encode()),
    "floats for ids": ("q.csv", b"id,query\n1.0,a\n2.0,b\n"),
    "a header in capitals, among spaces": ("q.csv", b"ID, Query \n1,a\n2,b\n"),
    "unread columns of one name": ("q.csv", b"id,note,note,query\n1,x,y,a\n2,x,y,b\n"),
    "bytes of an unread column": ("q.csv", b"id,query,note\n1,a,caf\xe9\n2,b,x\n"),
    "a blank column of null": ("q.csv", b"id,query,prompt\n1,,a\n2,b,\n"),
    "an unread NaN": ("q.jsonl", b'{"id": 1, "query": "a", "x": NaN}\n{"id": 2, "query": "b", "x": -Infinity}\n'),
    "an unread number": ("q.jsonl", b'{"id": 1, "query": "a", "x": 1e999}\n{"id": 2, "query": "b"}\n'),
    "unread half a character": ("q.jsonl", b'{"id": 1, "query": "a", "x": "\\ud800"}\n{"id": 2, "query": "b"}\n'),
    "unread bytes": ("q.jsonl", b'{"id": 1, "query": "a", "x": "\xff"}\n{"id": 2, "query": "b"}\n'),
    "an unread key twice": ("q.jsonl", b'{"id": 1, "query": "a", "x": 1, "x": 2}\n{"id": 2, "query": "b"}\n'),
    "null, NaN and empty before a query": (
        "q.jsonl",
        b'{"id": 1, "query": null, "prompt": NaN, "messages": [], "chosen": "\\n\\nHuman: a\\n\\nAssistant: x", "tags": null}\n'
        b'{"id": 2, "query": "", "prompt": "b", "info": null}\n',
    ),
    "null below a dot": ("q.jsonl", b'{"id": 1, "info": {"post": "a"}}\n{"id": 2, "info": {"post": null}, "query": "b"}\n'),
    "floats for ids in JSON": ("q.jsonl", b'{"id": 1.0, "query": "a"}\n{"id": 2.0, "query": "b"}\n'),
    "messages with nulls": (
        "q.jsonl",
        b'{"id": 1, "prompt": null, "messages": [{"role": "user", "content": "a", "tool_calls": null, "name": NaN}]}\n'
        b'{"id": 2, "prompt": "b", "messages": null}\n',
    ),
    "contents in parts": (
        "q.jsonl",
        b'{"id": 1, "messages": [{"role": "user", "content": [{"type": "text", "text": "a", "image_url": null}]}]}\n'
        b'{"id": 2, "messages": [{"role": "user", "content": "b"}]}\n',
    ),
    "messages as texts": (
        "q.csv",
        b'id,messages\n1,"[{""role"": ""user"", ""content"": ""a""}]"\n2,"[{\'role\': \'user\', \'content\': \'b\'}]"\n',
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", READ)
def test_what_people_have_is_read(tmp_path, case, capsys):
    name, content = READ[case]
    (tmp_path / name).write_bytes(content)
    found = read_queries(tmp_path / name)
    assert [(query.id, query.text, query.tags) for query in found] == [("1", "a", ()), ("2", "b", ())]
    assert capsys.readouterr().err == ""


# Each is refused, whether bad rows are passed over or not.
REFUSED = {
    "a workbook": ("q.xlsx", zipped("[Content_Types].xml", "xl/workbook.xml"), "q.xlsx: is a workbook; save the sheet as CSV"),
    "a workbook called .csv": ("q.csv", zipped("xl/workbook.xml"), "q.csv: is a workbook; save the sheet as CSV"),
    "a workbook of LibreOffice": ("q.ods", zipped("mimetype", "content.xml"), "q.ods: is a workbook; save the sheet as CSV"),
    "an old workbook": ("q.xls", b"\xd0\xcf\x11\xe0\xa1\xb1", "q.xls: is an old Excel workbook; save the sheet as CSV"),
    "a ZIP archive": ("q.csv.zip", zipped("q.csv"), "q.csv.zip: is a ZIP archive; unpack it"),
    "a pointer of Git LFS": ("q.parquet", b"version https://git-lfs.github.com/spec/v1\n", "is a pointer of Git LFS, .* `git lfs pull"),
    "an Arrow stream": ("q.arrow", b"\xff\xff\xff\xff\x00\x01", "q.arrow: is an Arrow stream, .* write it with to_parquet"),
    "UTF-16 without a mark": ("q.csv", CSV.decode().encode("utf-16-le"), "q.csv: is no text, or UTF-16 without a mark; save it"),
    "half UTF-16": ("q.csv", b"\xff\xfei\x00d", "q.csv: begins as UTF-16 but is none; save it as UTF-8"),
    "half an array": ("q.json", ARRAY[:-5], "q.json: not readable as one JSON array .*; mend it"),
    "columns for rows": ("q.json", as_json(), r"one JSON object of columns; write rows: to_json\(orient='records'"),
    "pandas' split": ("q.json", as_json(orient="split"), "one JSON object of columns; write rows"),
    "lists for rows": ("q.json", as_json(orient="values"), "q.json:1: not a JSON object"),
    "a dict of lists": ("q.json", json.dumps(FRAME.to_dict("list")).encode(), "one JSON object of columns; write rows"),
    "one text a line": ("q.txt", b"How do I?\nWhy?\n", "q.txt: neither JSON nor a table of known columns; write"),
    "only blank rows": ("q.csv", b",,\n,,\n", "q.csv: is empty; its first line must name the columns"),
    "no rows": ("q.csv", b"id;query\n;\n", "q.csv: no lines that can be used"),
    "an empty array": ("q.json", b"[]", "q.json: no lines that can be used"),
    "semicolons and another column": ("q.csv", b"id;text\n1;a\n", "no column query, .* set config.data.column to one of: 'id', 'text'"),
    "two columns in one spelling": ("q.csv", b"Query,QUERY\na,b\n", "q.csv: two columns are called 'Query'; rename one"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_read_is_named(tmp_path, case):
    name, content, words = REFUSED[case]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=words) as refused:
        read_queries(tmp_path / name)
    assert "\n" not in str(refused.value)
    with pytest.raises(UserError):
        read_queries(tmp_path / name, Skipped())


# Behind a good row, each is named by its line, or passed over.
BAD_ROWS = {
    "a cell of Windows": ("q.csv", b"id,query\n0,x\n1,caf\xe9\n", "3: not UTF-8 text; save the file as UTF-8 .in Excel 'CSV UTF-8'"),
    "a line of Windows": ("q.jsonl", b'{"id": 0, "query": "x"}\n{"id": 1, "query": "caf\xe9"}\n', "2: not UTF-8 text; save the file"),
    "a cell cut by a line end": ("q.csv", b"id,query,note\n0,x,y\n1,first half\n", "3: not as many cells as columns: 2, not 3"),
    "a comma in a text": ("q.csv", b"id,query\n0,x\n1,so, and so\n", "3: not as many cells as columns: 3, not 2"),
    "no query": ("q.csv", b"id,query\n0,x\n1,\n", "3: 'query' holds no text but ''; add the query"),
    "no id": ("q.csv", b"id,query\n0,x\n,a\n", "3: key 'id' is missing; add it"),
    "an id too long for a float": ("q.jsonl", b'{"id": 0, "query": "x"}\n{"id": 1e17, "query": "a"}\n', "2: id is neither a text nor"),
    "an element that is no object": ("q.json", b'[{"id": 0, "query": "x"}, 1]', "2: not a JSON object"),
    "pandas' array of messages": ("q.csv", b"id,messages\n0,x\n1,\"[{'role': 'user', 'content': 'a'}\n {'role': 'user'}]\"\n",
        "3: messages as a text that is no JSON"),
    "an image": ("q.jsonl", b'{"id": 0, "query": "x"}\n{"id": 1, "messages": [{"role": "user", "content": [{"type": "image_url"}]}]}\n',
        "2: a turn of the dialogue holds more than text"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_ROWS)
def test_a_bad_row_is_named_or_passed_over(tmp_path, case, capsys):
    name, content, words = BAD_ROWS[case]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=f"{name}:{words}"):
        read_queries(tmp_path / name)
    assert [query.text for query in read_queries(tmp_path / name, Skipped())] == ["x"]
    assert "1 of 2 rows passed over" in capsys.readouterr().err


TAGS = [["x", "y"], ["z"], [], None]
text, never_null = pyarrow.string(), pyarrow.field("item", pyarrow.string(), nullable=False)
LISTS = {
    "plain": pyarrow.array(TAGS, pyarrow.list_(text)),
    "large": pyarrow.array(TAGS, pyarrow.large_list(pyarrow.large_string())),
    "large in plain": pyarrow.array(TAGS, pyarrow.list_(pyarrow.large_string())),
    "never null": pyarrow.array(TAGS, pyarrow.list_(never_null)),
    "dictionary": pyarrow.array(TAGS, pyarrow.list_(pyarrow.dictionary(pyarrow.int32(), text))),
    "bytes": pyarrow.array([tags and [tag.encode() for tag in tags] for tags in TAGS], pyarrow.list_(pyarrow.binary())),
    "with nulls": pyarrow.array([["x", None, "y"], ["z", None], [None], None], pyarrow.list_(text)),
    "JSON": pyarrow.array([None if tags is None else json.dumps(tags) for tags in TAGS]),
    "Python": pyarrow.array([None if tags is None else str(tags) for tags in TAGS]),
}


@pytest.mark.parametrize("case", LISTS)
@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_any_list_of_texts_is_tags(tmp_path, case, form, capsys):
    table = pyarrow.table({"query": list("abcd"), "tags": LISTS[case]})
    file = tmp_path / f"q.{form}"
    if form == "parquet":
        parquet.write_table(table, file)
    elif case == "bytes":
        pytest.skip("JSON has no bytes")
    else:
        file.write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))
    assert [query.tags for query in read_queries(file)] == [("x", "y"), ("z",), (), ()]
    assert capsys.readouterr().err == ""


def test_lists_of_equal_length_are_tags(tmp_path):
    kinds = [pyarrow.list_(text, 2), pyarrow.list_view(text)]
    for kind in kinds:
        try:
            parquet.write_table(
                pyarrow.table({"query": ["a"], "tags": pyarrow.array([["x", "y"]], kind)}), tmp_path / "q.parquet"
            )
        except pyarrow.ArrowNotImplementedError:
            continue
        assert read_queries(tmp_path / "q.parquet")[0].tags == ("x", "y")


@pytest.mark.parametrize("tags", [["<python><pandas>", None], [1, 2], [[1], [2]]])
@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_a_table_may_have_tags_of_its_own_and_that_is_said(tmp_path, tags, form, capsys):
    frame, file = pandas.DataFrame({"query": ["a", "b"], "tags": tags}), tmp_path / f"q.{form}"
    frame.to_parquet(file) if form == "parquet" else frame.to_csv(file)
    assert [(query.text, query.tags) for query in read_queries(file)] == [("a", ()), ("b", ())]
    assert f'not read: the tags of {file}, which are no lists of texts such as ["a", "b"]' in capsys.readouterr().err


def test_tags_of_csv_are_lists_as_texts(tmp_path):
    (tmp_path / "q.csv").write_text('query,tags\na,"[""x"", ""y""]"\nb,\nc,[\'z\']\n')
    assert [query.tags for query in read_queries(tmp_path / "q.csv")] == [("x", "y"), (), ("z",)]
    (tmp_path / "q.csv").write_text('query,tags\na,"[""x""]"\nb,y\n')
    with pytest.raises(UserError, match=r"q.csv:3: tags must be a list of texts"):
        read_queries(tmp_path / "q.csv")


KEY = uuid.UUID(int=1)
COLUMNS = {
    "strings": (pyarrow.array(["a"]), pyarrow.array([1]), "1"),
    "large strings": (pyarrow.array(["a"], pyarrow.large_string()), pyarrow.array(["007"]), "007"),
    "string views": (pyarrow.array(["a"], pyarrow.string_view()), pyarrow.array([2**60]), str(2**60)),
    "categories": (pyarrow.array(["a"]).dictionary_encode(), pyarrow.array([1.0]), "1"),
    "bytes": (pyarrow.array([b"a"]), pyarrow.array([b"x"]), "x"),
    "decimals": (pyarrow.array(["a"]), pyarrow.array([decimal.Decimal("12")]), "12"),
    "uuids": (pyarrow.array(["a"]), pyarrow.array([KEY.bytes], pyarrow.uuid()), str(KEY)),
}


@pytest.mark.parametrize("case", COLUMNS)
def test_texts_and_ids_of_parquet_are_known_by_what_they_hold(tmp_path, case):
    queries, ids, id = COLUMNS[case]
    for names in (["query", "id"], ["Query", "ID"]):
        parquet.write_table(pyarrow.table([queries, ids], names), tmp_path / "Q.PARQUET")
        assert [(query.id, query.text) for query in read_queries(tmp_path / "Q.PARQUET")] == [(id, "a")]


def test_only_the_columns_that_are_read_are_checked_in_parquet(tmp_path):
    broken = pyarrow.array([b"\xff"], pyarrow.binary()).view(pyarrow.string())
    inside = pyarrow.StructArray.from_arrays([pyarrow.array(["a"]), broken], ["post", "title"])
    table = pyarrow.table([inside, broken, pyarrow.array([1]), pyarrow.array([2])], ["info", "note", "x", "x"])
    parquet.write_table(table, tmp_path / "q.parquet")
    assert [query.text for query in read_queries(tmp_path / "q.parquet")] == ["a"]
    parquet.write_table(table.slice(0, 0), tmp_path / "q.parquet")
    with pytest.raises(UserError, match=r"q.parquet: no lines that can be used"):
        read_queries(tmp_path / "q.parquet")


FOLDERS = {
    "left-overs": ({"train.jsonl": "a", ".DS_Store": "x", "._train.jsonl": "x", ".cache/huggingface/train.jsonl": "x",
        ".ipynb_checkpoints/train-checkpoint.jsonl": "x", "__MACOSX/._train.jsonl": "x"}, ["a"], None),
    "beside any name": ({"mine.jsonl": "a", ".DS_Store": "x", ".gitattributes": "x"}, ["a"], None),
    "files that are no data": ({"train.jsonl": "a", "LICENSE": "x", "SHA256SUMS": "x", "README.md": "x", "dataset_info.json": "{}"}, ["a"], None),
    "copies": ({"train.jsonl": "a", "train.jsonl.bak": "x", "train.jsonl~": "x"}, ["a"], "not read: train.jsonl.bak, train.jsonl~"),
    "capitals": ({"TRAIN.JSONL": "a"}, ["a"], None),
    "capitals in one suffix": ({"train-0.JSONL": "a", "train-1.jsonl": "b"}, ["a", "b"], None),
    "ndjson": ({"train.ndjson": "a"}, ["a"], None),
    "two kinds": ({"a.jsonl": "a", "b.jsonl": "b", "c.csv": "query\nc\n"}, ["a", "b"], "not read: c.csv"),
    "two kinds of a split": ({"train.jsonl": "a", "train_2.csv": "query\nc\n"}, ["a"], "not read: train_2.csv"),
    "a file of no split": ({"train.jsonl": "a", "more.jsonl": "b"}, ["a"], "not read: more.jsonl"),
    "a text called test": ({"mine.jsonl": "a", "test_results.txt": "x"}, ["a"], None),
}  # fmt: skip


def test_a_folder_may_be_called_like_a_pattern_or_be_hidden(tmp_path):
    file = tmp_path / ".data [1]*" / "train.jsonl"
    file.parent.mkdir()
    file.write_bytes(LINES)
    assert len(read_queries(file.parent)) == 2


@pytest.mark.parametrize("case", FOLDERS)
def test_what_is_not_read_of_a_folder_is_said(tmp_path, case, capsys):
    files, texts, said = FOLDERS[case]
    for name, content in files.items():
        file = tmp_path / "data" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        row = len(content) == 1 and kind_of(name) in (".jsonl", ".ndjson")
        file.write_text(json.dumps({"query": content}) if row else content)
    assert sorted(query.text for query in read_queries(tmp_path / "data")) == texts
    told = [line for line in capsys.readouterr().err.splitlines() if "not read" in line]
    assert told == ([f"{tmp_path}/data: {said}"] if said else [])
