"""Ratings on the desk: the sheets that people fill in, blinded, and agreement as `sami rate import` has it."""

import csv
import json

import pytest
from support.desk import PAIRS, Browser, logged, ratings_in, text_of

from sami_jax.cli import main
from sami_jax.desk.pages import Places
from sami_jax.errors import UserError
from sami_jax.evaluation.sheets import read_ratings, sheet_of

COUNT = len(PAIRS)


@pytest.fixture
def places(tmp_path) -> Places:
    verdicts = tmp_path / "judge.jsonl"
    rows = [{"id": pair.id, "constitution": pair.constitution, "win": n % 2} for n, pair in enumerate(PAIRS)]
    verdicts.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Places(ratings=ratings_in(tmp_path / "ratings"), verdicts=verdicts)


def rate_all(browser: Browser, *choices: str) -> None:
    for place, choice in enumerate(choices, start=1):
        answer = browser.fill(f"/ratings/{place}", f"/ratings/{place}", better=choice)
        assert answer.status_code == 200


def by_hand(places: Places, rater: str, choices: tuple[str, ...], reasons: tuple[str, ...]) -> bytes:
    """The exported sheet as a rater fills it in."""
    with open(places.ratings / "ratings.csv", newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    for row, better, reason in zip(rows, choices, reasons, strict=True):
        row["better"], row["rater"], row["reason"] = better, rater, reason
    file = places.ratings.parent / "by_hand.csv"
    with open(file, "w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return file.read_bytes()


def test_a_sheet_is_what_a_rater_fills_in_by_hand(places, tmp_path):
    """And so is what `sami rate import` makes of it, byte by byte."""
    browser, choices = Browser(places, "Aiko"), ("1", "2", "tie", "cannot say", "2", "1")
    browser.fill("/ratings/1", "/ratings/1", better="1", reason="A is\r\nkind, 優しい")
    for place, choice in list(enumerate(choices, start=1))[1:]:
        browser.fill(f"/ratings/{place}", f"/ratings/{place}", better=choice)
    wanted = by_hand(places, "Aiko", choices, ("A is\nkind, 優しい", *[""] * 5))
    assert sheet_of(places.ratings, "Aiko").read_bytes() == wanted
    key = ["--key", str(places.ratings / "key.json")]
    for name, sheet in (("desk", sheet_of(places.ratings, "Aiko")), ("hand", tmp_path / "by_hand.csv")):
        assert main(["rate", "import", str(sheet), *key, "--output", str(tmp_path / f"{name}.jsonl")]) == 0
    assert (tmp_path / "desk.jsonl").read_bytes() == (tmp_path / "hand.jsonl").read_bytes()
    assert [(line["event"], line["name"], line["better"]) for line in logged(places.ratings)] == [
        ("rated", "Aiko", choice) for choice in choices
    ]


def test_each_goes_on_where_they_stopped(places):
    aiko, ben = Browser(places, "Aiko"), Browser(places, "Ben")
    rate_all(aiko, "1", "2")
    assert "2 of 6 done" in text_of(aiko.get("/ratings").text) and 'href="/ratings/3"' in aiko.get("/ratings").text
    assert "0 of 6 done" in text_of(ben.get("/ratings").text) and 'href="/ratings/1"' in ben.get("/ratings").text
    again = Browser(places, "Aiko")  # another browser, another day
    answer = again.fill("/ratings/3", "/ratings/3", better="tie")
    assert answer.url.path == "/ratings/4"
    answer = again.fill("/ratings/1", "/ratings/1", better="2")  # a second thought
    assert answer.url.path == "/ratings/4" and [r.better for r in read_ratings(places.ratings, "Aiko").values()] == [
        "2",
        "2",
        "tie",
    ]
    assert not sheet_of(places.ratings, "Ben").exists()


def test_an_answer_of_another_window_is_shown_and_not_overwritten(places):
    browser = Browser(places, "Aiko")
    old = browser.form("/ratings/1", "/ratings/1")
    browser.fill("/ratings/1", "/ratings/1", better="1", reason="First.")
    answer = browser.post("/ratings/1", data=old | {"better": "2"})
    assert (
        answer.status_code == 409 and "answered this pair elsewhere" in text_of(answer.text) and "First." in answer.text
    )
    [rating] = read_ratings(places.ratings, "Aiko").values()
    assert (rating.better, rating.reason) == ("1", "First.")


@pytest.mark.parametrize(
    ("place", "better"),
    [("0", "1"), ("7", "1"), ("99999999999999999999", "1"), ("1", "3"), ("1", ""), ("1", "baseline")],
)
def test_what_is_no_rating(places, place, better):
    browser = Browser(places, "Aiko")
    fields = browser.form("/ratings/1", "/ratings/1") | {"better": better}
    assert browser.post(f"/ratings/{place}", data=fields).status_code == 400
    assert not sheet_of(places.ratings, "Aiko").exists()


def test_raters_cannot_tell_the_models_apart(places):
    browser = Browser(places, "Aiko")
    firsts = set()
    for place in range(1, COUNT + 1):
        text = browser.get(f"/ratings/{place}").text
        assert not any(word in text.lower() for word in ("baseline", "test_", "key.json")) and not any(
            f'"{p.id}"' in text for p in PAIRS
        )
        shown = text_of(text)
        firsts.add(shown[shown.index("Question") :].split(" A ", 1)[1].split()[0])
    assert firsts == {"Plain", "Kind"}


def test_agreement_is_closed_until_a_rater_is_done_and_then_that_of_the_command(places, tmp_path, capsys):
    aiko, ben, eve = (Browser(places, name) for name in ("Aiko", "Ben", "Zed"))
    rate_all(aiko, "1", "2", "1", "tie", "2", "1")
    rate_all(ben, "1", "2", "2", "tie", "cannot say")
    rate_all(eve, "1")
    for browser in (ben, eve, Browser(places)):
        answer = browser.get("/ratings/agreement")
        assert answer.status_code == 403 and "κ" not in answer.text and "Aiko" not in answer.text
    alone = text_of(aiko.get("/ratings/agreement").text)
    assert "Nobody else is done yet." in alone and "Ben" not in alone
    rate_all(ben, "1", "2", "2", "tie", "cannot say", "2")
    shown = text_of(aiko.get("/ratings/agreement").text)
    assert "Zed" not in shown and text_of(ben.get("/ratings/agreement").text).count("Aiko") == shown.count("Aiko") - 1
    capsys.readouterr()

    def told(*names: str) -> dict:
        sheets = [str(sheet_of(places.ratings, name)) for name in names]
        argv = [
            "rate",
            "import",
            *sheets,
            "--key",
            str(places.ratings / "key.json"),
            "--output",
            str(tmp_path / "out.jsonl"),
        ]
        assert main([*argv, "--verdicts", str(places.verdicts), "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    def row(label: str, found: dict) -> str:
        return f"{label} {found['kappa']:.2f} {found['ci_low']:.2f} \u2013 {found['ci_high']:.2f} {found['n']}"

    both = told("Aiko", "Ben")
    [between] = both["between_raters"]
    wanted = [
        row("Aiko · Ben", between),
        *(row(name, told(name)["agreement"]) for name in ("Aiko", "Ben")),
        row("all together", both["agreement"]),
    ]
    for line in wanted:
        assert line in shown, (line, shown)
    assert between["n"] == 5


def test_a_folder_without_a_sheet_is_said(tmp_path):
    with pytest.raises(UserError, match=r"ratings\.csv.*sami rate export"):
        Browser(Places(ratings=tmp_path))
