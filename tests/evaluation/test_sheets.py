"""A rater's sheet: the exported one with ratings in it, byte by byte, and what several of them add up to."""

import csv
import json

import pytest

from sami_jax.cli import main
from sami_jax.errors import UserError
from sami_jax.evaluation.pairs import Pair
from sami_jax.evaluation.ratings import agreement, between_raters, export_ratings, import_ratings
from sami_jax.evaluation.sheets import CANNOT_SAY, Rating, read_ratings, read_sheet, sheet_of, texts, write_ratings
from sami_jax.evaluation.verdicts import Verdict

PAIRS = [
    Pair(f"q{n}", f"Question\u2028 {n}, really?", '1. Say "please".', f" Plain,\r\n{n}.", f"=Kind('{n}')", (3, 4))
    for n in range(12)
]


@pytest.fixture
def folder(tmp_path):
    export_ratings(PAIRS, tmp_path, 0)
    return tmp_path


def test_a_sheet_without_ratings_is_the_exported_one(folder):
    write_ratings(folder, "Aiko", {})
    assert sheet_of(folder, "Aiko").read_bytes() == (folder / "ratings.csv").read_bytes()


def test_ratings_stand_where_a_spreadsheet_has_them(folder):
    """Against an independent writing of the cells."""
    with open(folder / "ratings.csv", newline="", encoding="utf-8") as stream:
        header, *rows = csv.reader(stream)
    given = {}
    for place, (better, reason) in enumerate([("1", ""), ("tie", "Same; both, \n are"), (CANNOT_SAY, "=cmd()")]):
        given[rows[place][0]] = Rating(better, reason)
        cells = {"better": better, "rater": "'@ben", "reason": reason.replace("=cmd()", "'=cmd()")}
        for name, cell in cells.items():
            rows[place][header.index(name)] = cell
    with open(folder / "wanted.csv", "w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([header, *rows])
    write_ratings(folder, "@ben", given)
    assert sheet_of(folder, "@ben").read_bytes() == (folder / "wanted.csv").read_bytes()
    assert read_ratings(folder, "@ben") == given
    found = import_ratings(sheet_of(folder, "@ben"), folder / "key.json")
    assert [row["rater"] for row in found.rows] == ["@ben", "@ben"] and found.unrated == 10
    assert [row.get("reason") for row in found.rows] == [None, "Same; both, \n are"]


@pytest.mark.parametrize("name", ["../../x", "a/b", "Aiko", "aiko", "相子", ".", "", "x" * 500, "a\0b", "con "])
def test_each_name_has_a_file_of_its_own_in_the_folder(folder, name):
    file = sheet_of(folder, name)
    assert file.parent == folder and len(file.name.encode()) < 200 and "\0" not in file.name
    assert file.name.lower() != sheet_of(folder, name + "_").name.lower()


def test_what_raters_see_tells_nothing_of_the_models(folder):
    shown = [texts(row) for row in read_sheet(folder / "ratings.csv")]
    assert {one["response_1"][:5] for one in shown} == {"Plain", "=Kind"}
    assert not any("baseline" in str(one) or "q1" in str(one.values()) for one in shown)


@pytest.mark.parametrize("content", ["", "item,better\nx,1\n", "item;query\n", '"', b"\xff\xfe", "a" * 10])
def test_what_is_no_sheet_is_said(folder, content):
    (folder / "ratings.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=r"ratings.csv: not a sheet as it was exported.*sami rate export"):
        read_sheet(folder / "ratings.csv")


def test_a_sheet_of_an_earlier_version_has_no_reasons(folder):
    text = (folder / "ratings.csv").read_text(encoding="utf-8")
    rows = list(csv.reader(text.splitlines(keepends=True)))
    assert rows[0][-1] == "reason"
    (folder / "ratings.csv").write_bytes(text.replace(",reason\n", "\n").replace(",,\n", ",\n").encode())
    write_ratings(folder, "Aiko", {read_sheet(folder / "ratings.csv")[0]["item"]: Rating("1")})
    assert [one.better for one in read_ratings(folder, "Aiko").values()] == ["1"]


def test_agreement_of_several(folder, tmp_path, capsys):
    """Kappa by hand: two raters agree in 9 of 12, chance in half."""
    items = [row["item"] for row in read_sheet(folder / "ratings.csv")]
    key = json.loads((folder / "key.json").read_text())

    def wins(item: str, win: bool) -> str:
        return "2" if key[item]["baseline_first"] == win else "1"

    write_ratings(folder, "Aiko", {item: Rating(wins(item, n < 6)) for n, item in enumerate(items)})
    write_ratings(folder, "Ben", {item: Rating(wins(item, 3 <= n < 9 or n < 1)) for n, item in enumerate(items)})
    sheets = [sheet_of(folder, name) for name in ("Ben", "Aiko")]
    rows = [row for sheet in sheets for row in import_ratings(sheet, folder / "key.json").rows]
    both = [n < 6 for n in range(12)], [3 <= n < 9 or n < 1 for n in range(12)]
    observed = sum(a == b for a, b in zip(*both, strict=True)) / 12
    shares = [sum(one) / 12 for one in both]
    chance = shares[0] * shares[1] + (1 - shares[0]) * (1 - shares[1])
    [(names, found)] = between_raters(rows).items()
    assert names == ("Aiko", "Ben") and found.n == 12
    assert found.kappa == pytest.approx((observed - chance) / (1 - chance))
    output = str(tmp_path / "people.jsonl")
    argv = ["rate", "import", *map(str, sheets), "--key", str(folder / "key.json"), "--output", output, "--json"]
    assert main(argv) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["between_raters"][0]["raters"] == ["Aiko", "Ben"] and told["n"] == 24
    assert told["between_raters"][0]["kappa"] == found.kappa
    rated = [Verdict(row["win"], row["id"], row["constitution"]) for row in rows]
    assert agreement(rated, []) is None and agreement(rated, rated[:12]).n == 24
