"""Rating sheets as spreadsheets and pandas leave them: each rating is read, or named."""

import csv
import io
import json
import re
from pathlib import Path

import pandas
import pytest

from sami_jax.data.jsonl import write_json
from sami_jax.errors import UserError
from sami_jax.evaluation.pairs import Pair
from sami_jax.evaluation.ratings import export_ratings, import_ratings

PAIRS = [Pair(f"q{n}", f"Question; {n}?", "1. Be kind.", f"Plain,\n{n}.", f"Kind {n}.", (3, 4)) for n in range(40)]


@pytest.fixture
def folder(tmp_path) -> Path:
    """An export whose even items are rated 1, but the first a tie."""
    export_ratings(PAIRS, tmp_path, 0)
    frame = pandas.read_csv(tmp_path / "ratings.csv", dtype=str, keep_default_na=False)
    frame.loc[::2, "better"] = "1"
    frame.loc[0, "better"], frame.loc[::2, "rater"] = "tie", "ann"
    frame.to_csv(tmp_path / "filled.csv", index=False)
    return tmp_path


def imported(folder: Path, name: str):
    return import_ratings(folder / name, folder / "key.json")


def rows(folder: Path) -> list[list[str]]:
    with open(folder / "filled.csv", newline="", encoding="utf-8") as stream:
        return list(csv.reader(stream))


def written(cells: list[list[str]], delimiter: str = ",") -> str:
    stream = io.StringIO(newline="")
    csv.writer(stream, delimiter=delimiter).writerows(cells)
    return stream.getvalue()


def with_better(cells: list[list[str]], one: str) -> list[list[str]]:
    return [[one if (place, cell) == (5, "1") else cell for place, cell in enumerate(row)] for row in cells]


# What a tool makes of the filled sheet.
TOOLS = {
    "nothing": written,
    "pandas, one column of floats": lambda cells: written(with_better(cells, "1.0")),
    "decimal commas": lambda cells: written(with_better(cells, "1,0"), ";"),
    "Excel with semicolons, told so": lambda cells: "sep=;\r\n" + written(cells, ";"),
    "tabs": lambda cells: written(cells, "\t"),
    "a BOM": lambda cells: "\ufeff" + written(cells),
    "full-width digits, spaces and capitals": lambda cells: written(with_better(cells, " \uff11 ")).replace(
        "tie", "TIE"
    ),
    "columns moved and added": lambda cells: written([["", row[5], "", row[0], row[6], "note"] for row in cells]),
    "names in capitals": lambda cells: written([[cell.title() for cell in cells[0]], *cells[1:]]),
    "blank rows and columns": lambda cells: written([[*row, "", ""] for row in [[""] * 7, *cells, [""] * 7]]),
    "empty cells left away": lambda cells: written([row if row[5] else row[:5] for row in cells]),
    "an index": lambda cells: written([[str(n), *row] for n, row in zip(["", *range(40)], cells, strict=True)]),
}


@pytest.mark.parametrize("tool", TOOLS)
def test_a_sheet_that_a_tool_has_saved(folder, tool):
    wanted = imported(folder, "filled.csv")
    assert len(wanted.rows) == 20 and wanted.unrated == 20 and wanted.rows[0]["win"] == 0.5
    (folder / "saved.csv").write_bytes(TOOLS[tool](rows(folder)).encode())
    assert imported(folder, "saved.csv") == wanted


def test_utf_16_and_bytes_of_windows_in_what_is_not_read(folder):
    wanted, text = imported(folder, "filled.csv"), written(rows(folder))
    (folder / "saved.txt").write_bytes(written(rows(folder), "\t").encode("utf-16"))
    assert imported(folder, "saved.txt") == wanted
    (folder / "saved.csv").write_bytes(text.replace("Plain", "Café").encode("cp1252"))
    assert imported(folder, "saved.csv") == wanted


@pytest.mark.parametrize("form", ["filled.xlsx.json", "min.JSON", "filled.parquet", "label_studio.csv"])
def test_other_forms_of_the_sheet(folder, form):
    """pandas' JSON, Label Studio's JSON-MIN and CSV, Parquet."""
    wanted = imported(folder, "filled.csv")
    frame = pandas.read_csv(folder / "filled.csv")
    if form == "min.JSON" or form.startswith("label"):
        frame = frame.rename(columns={"rater": "annotator"}).assign(lead_time=1.5, annotation_id=7)
    if form.endswith("parquet"):
        frame.to_parquet(folder / form)
    elif form.endswith("csv"):
        frame.to_csv(folder / form, index=False)
    else:
        frame.to_json(folder / form, orient="records")
    assert imported(folder, form) == wanted


def test_no_spreadsheet_changes_an_item(folder):
    items = list(json.loads((folder / "key.json").read_text()))
    assert len(set(items)) == len(PAIRS)
    assert all(re.fullmatch(r"[bcdfghjklmnpqrst]{10}", item) for item in items)
    frame = pandas.read_csv(folder / "ratings.csv")
    assert list(frame["item"]) == items or set(frame["item"]) == set(items)


OLD = ["5002758e33", "0012345678", "9123456789", "12e4567890", "00a1b2c3d4", "5102758e33"]


@pytest.mark.parametrize(
    ("shown", "item"),
    [
        ("5002758e33", OLD[0]),
        ("5.00276E+39", OLD[0]),  # Excel
        ("5,00276E+39", OLD[0]),
        ("5.00E+39", OLD[0]),
        ("5.002758e+39", OLD[0]),  # pandas
        ("5.10E+39", OLD[5]),
        ("12345678", OLD[1]),
        ("9123456789.0", OLD[2]),
        ("9.12E+09", OLD[2]),
        ("12e4567890", OLD[3]),
        ("00a1b2c3d4", OLD[4]),
        ("5E+39", None),  # two of them
        ("5.00277E+39", None),
        ("inf", None),
        ("0", None),
    ],
)
def test_items_of_older_sheets_are_known_as_numbers(tmp_path, shown, item):
    key = {one: {"id": one, "constitution": "", "baseline_first": True} for one in OLD}
    write_json(tmp_path / "key.json", key)
    (tmp_path / "r.csv").write_text(f'item,better\n"{shown}",2\n')
    if item is None:
        with pytest.raises(
            UserError, match=r"r.csv: row 2: item '.*' is not in .*key.json; they do not belong together"
        ):
            imported(tmp_path, "r.csv")
    else:
        assert [row["id"] for row in imported(tmp_path, "r.csv").rows] == [item]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"item;better\nITEM;3\n", "row 2: '3' is no rating; write 1, 2 or tie"),
        (b"item,better\nITEM,1.5\n", "row 2: '1.5' is no rating"),
        (b"item,better\n,1\n", "row 2: item '' is not in"),
        (b"item,best\nITEM,1\n", "not a filled ratings.csv: column 'better' is missing; save the sheet as CSV"),
        (b"item,better\nITEM,caf\xe9\n", "2: not UTF-8 text; save the file as UTF-8"),
        (b"item,better\nITEM,\n", "no item is rated"),
        (b'[{"id": 1}]', "neither a filled ratings.csv nor an export of Label Studio"),
        (b'[{"annotations": [], "data": {}}]', "task 1: data.item is missing; give Label Studio's JSON export"),
        (b"PK\x03\x04", "is a ZIP archive"),
    ],
)
def test_what_is_no_rating_is_named(folder, content, words):
    item = next(iter(json.loads((folder / "key.json").read_text())))
    (folder / "r.csv").write_bytes(content.replace(b"ITEM", item.encode()))
    with pytest.raises(UserError, match=re.escape(words)):
        imported(folder, "r.csv")


def test_what_label_studio_adds_is_not_checked(folder):
    items = list(json.loads((folder / "key.json").read_text()))
    result = {"from_name": "better", "value": {"choices": ["2"]}, "score": float("nan")}
    tasks = [
        {
            "id": n,
            "data": {"item": item},
            "annotations": [{"completed_by": 3, "result": [result]}],
            "predictions": [{"score": float("nan")}],
        }
        for n, item in enumerate(items[:3])
    ] + [{"id": 9, "data": {"item": items[3]}, "annotations": [], "meta": None}]
    (folder / "done.JSON").write_text(json.dumps(tasks))
    found = imported(folder, "done.JSON")
    assert len(found.rows) == 3 and found.unrated == 1
