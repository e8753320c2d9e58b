"""Rows are read unharmed, refused by line, or passed over and counted."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sami_jax.data.jsonl import parse, read_appended, read_json, read_jsonl, write_jsonl
from sami_jax.data.pairs import read_pairs
from sami_jax.data.queries import read_queries
from sami_jax.data.rows import Skipped
from sami_jax.errors import UserError
from sami_jax.evaluation.pairs import read_pairs_of_files

TEXTS = [
    "🙂 家族 👩‍👩‍👧",
    "日本語の質問。",
    "שלום עולם",
    "a\u2028b\u0085c",
    "nul \u0000 in it",
    "x" * 1_000_000,
    "e\u0301 \u202eabc",
]


def test_good_text_of_any_script_is_unharmed(tmp_path):
    file = tmp_path / "q.jsonl"
    rows = [{"id": f"q{n}", "query": text} for n, text in enumerate(TEXTS)]
    plain = "\n".join(json.dumps(row, ensure_ascii=n % 2 == 0) for n, row in enumerate(rows))
    for content in (plain, "\ufeff" + plain, plain.replace("\n", "\r\n") + "\r\n", "\n\n" + plain + "\n  \n"):
        file.write_bytes(content.encode())
        assert [query.text for query in read_queries(file)] == TEXTS


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b'{"id": 1, "query": "\xff"}', "q.jsonl:2: not UTF-8 text; save the file as UTF-8"),
        (b'{"id": 1, "query": "\\ud800"}', "q.jsonl:2: not valid JSON .an escape spells half a character"),
        (b'{"id": 1, "query": "a", "query": "b"}', "q.jsonl:2: not valid JSON .key 'query' stands twice"),
        (b'{"id": NaN, "query": "a"}', "q.jsonl:2: key 'id' is missing"),
        (b'{"id": 1e999, "query": "a"}', "q.jsonl:2: not valid JSON .1e999 is too large"),
        (b'{"id": ' + b"9" * 5000 + b', "query": "a"}', "q.jsonl:2: not valid JSON"),
        (b'{"id": 1, "tags": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "q.jsonl:2: not valid JSON .nested too deep"),
        (b"null", "q.jsonl:2: not a JSON object"),
        (b'{"id": null, "query": "a"}', "q.jsonl:2: key 'id' is missing"),
        (b'{"id": [1], "query": "a"}', "q.jsonl:2: id is neither"),
        (b'{"id": true, "query": "a"}', "q.jsonl:2: id is neither"),
        (b'{"id": "0", "query": "a"}', "q.jsonl:2: the id stands on an earlier line too: '0'"),
        (b'{"id": 1, "query": ["a"]}', "q.jsonl:2: 'query' holds no text but "),
        (b'{"id": 1, "query": "a", "tags": "b"}', "q.jsonl:2: tags must be a list"),
    ],
)
def test_a_bad_row_is_refused_or_passed_over(tmp_path, line, words, capsys):
    file = tmp_path / "q.jsonl"
    file.write_bytes(b'{"id": 0, "query": "first"}\n' + line + b'\n{"id": 2, "query": "last"}\n')
    with pytest.raises(UserError, match=words) as refused:
        read_queries(file)
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 400 + len(str(file))
    skipped = Skipped()
    assert [query.text for query in read_queries(file, skipped)] == ["first", "last"]
    [[reason, count]] = skipped.counts[str(file)].items()
    assert count == 1 and reason in str(refused.value)
    assert f"1 of 3 rows passed over; 1: {reason}" in capsys.readouterr().err


def test_a_file_without_any_good_row_is_refused(tmp_path):
    file = tmp_path / "q.jsonl"
    file.write_text("[]\n[]\n")
    with pytest.raises(UserError, match="no lines that can be used"):
        read_queries(file, Skipped())


def test_pairs_are_passed_over_by_reason(tmp_path):
    good = {"query": "a", "constitutions": ["1. A.", "1. B."], "responses": ["x", "y"]}
    bad = [{"responses": ["x"]}, {"responses": ["x", " "]}, {"responses": ["", "y"]}, {"query": 3}]
    write_jsonl(tmp_path / "p.jsonl", [good, *({**good, **change} for change in bad)])
    skipped = Skipped()
    assert len(read_pairs(tmp_path / "p.jsonl", 2, skipped)) == 1
    assert skipped.counts[str(tmp_path / "p.jsonl")] == {
        "'responses' holds an empty text or none": 2,
        "'responses' must list 2 texts": 1,
        "'query' holds no text": 1,
    }


def test_of_two_aligned_files_both_lines_of_a_bad_pair_are_passed_over(tmp_path):
    rows = [{"id": n, "query": "q", "response": f"r{n}"} for n in range(4)]
    write_jsonl(tmp_path / "a.jsonl", [rows[0], {"id": 1}, *rows[2:]])
    write_jsonl(tmp_path / "b.jsonl", [*rows[:3], {**rows[3], "id": 9}])
    skipped = Skipped()
    pairs = read_pairs_of_files(tmp_path / "a.jsonl", tmp_path / "b.jsonl", {}, skipped)
    assert [pair.id for pair in pairs] == ["0", "2"]
    reasons = {"in a.jsonl: key 'response' is missing": 1, "id differs": 1}
    assert skipped.counts == {str(tmp_path / "b.jsonl"): reasons}


def test_our_own_files_are_read_up_to_a_torn_line(tmp_path):
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"step": 1, "loss": NaN}\n{"step": 2, "lo')
    assert [row["step"] for row in read_appended(file)] == [1]
    file.write_text('{"step": 1}\ngarbage\n{"step": 3}\n')
    with pytest.raises(UserError, match=r"metrics\.jsonl:2: not a JSON object; restore"):
        read_appended(file)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@settings(max_examples=20)
@given(st.lists(st.dictionaries(st.text(), JSON), min_size=1))
def test_what_was_written_is_read_again(tmp_path_factory, rows):
    file = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    write_jsonl(file, rows)
    assert read_jsonl(file) == rows
    file.write_text("".join(json.dumps(row) + "\r\n" for row in rows))
    assert read_jsonl(file) == rows


@given(st.binary() | st.text(st.characters(codec="utf-8"), min_size=1).map(str.encode))
def test_any_bytes_are_rows_or_a_refusal(tmp_path_factory, content):
    file = tmp_path_factory.mktemp("bytes") / "bytes.jsonl"
    file.write_bytes(content)
    for read in (read_jsonl, read_queries, read_appended, lambda file: read_json(file, "mend it")):
        try:
            read(file)
        except UserError as refused:
            assert "\n" not in str(refused)


@given(JSON)
def test_what_is_read_can_be_written(value):
    """Also where escapes spell characters: half a character never comes in."""
    assert parse(json.dumps(value).encode()) == value
