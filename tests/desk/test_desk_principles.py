"""Principles on the desk: the same files as the terminal's, nothing overwritten, all of it readable."""

import re
import shutil
from pathlib import Path

import pytest
from support.desk import Browser, Forms, logged, principles_in, text_of

from sami_jax import miniature
from sami_jax.cli import main
from sami_jax.desk.pages import Places
from sami_jax.principles.files import read_principles
from sami_jax.principles.principle import own_status, status

TIME = re.compile(rb"""date: (["'])[^"']*\1""")
CHECKED = """\
id: checked  # a comment of the team
version: 1
principle: |
  Answer in at most two sentences.
  Always.
antithesis: Answer at length.
check:
  principle: {sentences: {at_most: 2}}
  antithesis: {sentences: {at_least: 5}}
tags: [tone, support]
"""


@pytest.fixture
def folders(tmp_path) -> tuple[Path, Path]:
    """Two folders of the same files: for the desk, and for the terminal."""
    desk = principles_in(tmp_path / "desk")
    (desk / "checked.yaml").write_text(CHECKED)
    return desk, Path(shutil.copytree(desk, tmp_path / "terminal"))


@pytest.fixture
def browser(folders) -> Browser:
    return Browser(Places(principles=folders[0]), "Aiko Tanaka")


def files(folder: Path) -> dict[str, bytes]:
    """All but the times, and the desk's own log."""
    return {
        file.name: TIME.sub(b"date: T", file.read_bytes()) for file in folder.iterdir() if file.name != "audit.jsonl"
    }


def terminal(folder: Path, *argv: str) -> None:
    assert main(["principles", *argv, "--folder", str(folder)]) == 0


def walk(monkeypatch, folder: Path, name: str, *answers: str) -> None:
    lines = iter([*answers, "q"])
    monkeypatch.setattr("builtins.input", lambda _: next(lines))
    monkeypatch.delenv("EDITOR", raising=False)
    monkeypatch.delenv("VISUAL", raising=False)
    terminal(folder, "review", name, "--reviewer", "Aiko Tanaka")


def test_what_the_desk_writes_is_what_the_terminal_writes(folders, browser, monkeypatch):
    """Approve, reject, comment; edit a draft, an approved text, and one that was edited by hand; byte by byte."""
    desk, other = folders
    names = "--reviewer", "Aiko Tanaka"
    browser.fill(
        "/principles/kind@1", "decide", decision="approve", comment="Read: with \u201cthe team\u201d.\r\nTwice."
    )
    terminal(other, "approve", "kind", *names, "--comment", "Read: with \u201cthe team\u201d.\nTwice.")
    assert files(desk) == files(other)
    browser.fill("/principles/brief@1", "decide", decision="reject", comment="=Too terse, 短すぎる")
    terminal(other, "reject", "brief", *names, "--comment", "=Too terse, 短すぎる")
    browser.fill("/principles/checked@1", "decide", decision="comment", comment="Why two?")
    walk(monkeypatch, other, "checked", "c", "Why two?")
    assert files(desk) == files(other)
    browser.fill("/principles/brief@1", "edit", **{"principle-0": "At most two sentences.", "antithesis-0": "Many."})
    walk(monkeypatch, other, "brief", "e", "At most two sentences.", "Many.")
    browser.fill("/principles/kind@1", "edit", **{"principle-0": " Be very kind. "})
    walk(monkeypatch, other, "kind@1", "e", "Be very kind.", "")
    assert files(desk) == files(other) and (desk / "kind@2.yaml").exists()
    browser.fill("/principles/kind@1", "edit", **{"principle-0": "Be most kind."})
    walk(monkeypatch, other, "kind@1", "e", "Be most kind.", "")
    assert files(desk) == files(other) and (desk / "kind@3.yaml").exists()
    browser.fill("/principles/checked@1", "decide", decision="approve")
    terminal(other, "approve", "checked", *names)
    for folder in folders:
        file = folder / "checked.yaml"
        file.write_text(file.read_text().replace("at length", "at great length"))
    browser.fill("/principles/checked@1", "decide", decision="approve")
    terminal(other, "approve", "checked", *names)
    assert files(desk) == files(other)
    assert "# a comment of the team" in (desk / "checked.yaml").read_text()
    [checked] = [p for p in read_principles(desk) if p.id == "checked"]
    assert (checked.version, own_status(checked)) == (2, "approved") and checked.check
    events = [(line["event"], line["principle"], line["name"], line["authenticated"]) for line in logged(desk)]
    assert [event[0] for event in events] == [
        "principle approved", "principle rejected", "principle comment", "principle edited", "principle edited", "principle edited",
        "principle approved", "principle approved",
    ]  # fmt: skip
    assert events[-1][1:] == ("checked@2", "Aiko Tanaka", False)


@pytest.mark.parametrize("action", ["decide", "edit"])
@pytest.mark.parametrize("meanwhile", ["in the terminal", "in a second tab", "by hand"])
def test_a_text_that_changed_meanwhile_is_shown_again(folders, browser, monkeypatch, action, meanwhile):
    desk, page = folders[0], "/principles/kind@1"
    old = browser.form(page, action)
    if meanwhile == "in the terminal":
        walk(monkeypatch, desk, "kind", "e", "Be kind to all.", "")
    elif meanwhile == "in a second tab":
        browser.fill(page, "edit", **{"principle-0": "Be kind to all."})
    else:
        file = desk / "kind.yaml"
        file.write_text(file.read_text().replace("Be kind.", "Be kind to all."))
    before = files(desk)
    mine = {"decision": "approve", "comment": "My comment"} if action == "decide" else {"principle-0": "My own words."}
    answer = browser.submit(page, action, old | mine)
    assert answer.status_code == 409 and files(desk) == before
    text = text_of(answer.text)
    assert "was changed meanwhile" in text and "Be kind to all." in text
    assert ("My comment" if action == "decide" else "My own words.") in text  # nothing that was typed is lost
    seen = next(fields["seen"] for place, fields in Forms(answer.text).found if place.endswith(action))
    assert seen != old["seen"]
    assert browser.submit(page, action, old | mine | {"seen": seen}).status_code == 200


def test_between_the_look_and_the_lock(folders, browser, monkeypatch):
    """A change that comes after the page's own look is seen by what writes."""
    from sami_jax.principles import reviewing

    def late(write):
        def after_another(folder, principle, *rest):
            file = folder / "kind.yaml"
            file.write_text(file.read_text().replace("Be kind.", "Be kind to all."))
            return write(folder, principle, *rest)

        return after_another

    for name, action in (("decide", "decide"), ("change", "edit")):
        with monkeypatch.context() as patched:
            patched.setattr(reviewing, name, late(getattr(reviewing, name)))
            fields = {"decision": "approve"} if action == "decide" else {"principle-0": "Mine."}
            assert browser.fill("/principles/kind@1", action, **fields).status_code == 409
        kind = next(p for p in read_principles(folders[0]) if p.id == "kind")
        assert kind.phrasings[0][0] == "Be kind to all." and not kind.reviews
        (folders[0] / "kind.yaml").write_text((folders[1] / "kind.yaml").read_text())


def test_a_page_tells_all_that_is_known(folders, browser):
    browser.fill("/principles/checked@1", "decide", decision="approve", comment="Fine.")
    browser.fill(
        "/principles/checked@1",
        "edit",
        **{"antithesis-0": "Be kind.", "principle-1": "Be short.", "antithesis-1": "Be long."},
    )
    text = text_of(browser.get("/principles/checked@2").text)
    for words in (
        "checked@2 draft", "Changed since checked@1, the last that was approved", "before antithesis: Answer at length.",
        "now antithesis: Be kind.", "now principle (2): Be short.", "Check of the principle", "at_most", "tone support",
        "check: responses with 3 to 4 sentences follow neither side", "Nobody has said anything yet.", "Wording 2",
        "Names are not authenticated", "Written down under the name Aiko Tanaka.", "Other versions checked@1",
    ):  # fmt: skip
        assert words in text, words
    text = text_of(browser.get("/principles/checked").text)  # the latest
    assert "checked@2" in text
    text = text_of(browser.get("/principles/checked@1").text)
    assert "Aiko Tanaka · approved" in text and "Fine." in text and "It stays; yours becomes the next version" in text
    assert [p.check is not None for p in read_principles(folders[0]) if p.id == "checked"] == [True, True]


def test_what_cannot_be_approved_or_saved_says_why(folders, browser):
    before = files(folders[0])
    answer = browser.fill("/principles/kind@1", "edit", **{"antithesis-0": "be KIND"})
    assert answer.status_code == 400 and "the antithesis says what the principle says" in text_of(answer.text)
    assert browser.fill("/principles/kind@1", "edit", **{"antithesis-0": ""}).status_code == 400
    assert browser.fill("/principles/kind@1", "edit", **{"principle-0": "", "antithesis-0": ""}).status_code == 400
    assert files(folders[0]) == before


def test_what_a_form_cannot_show_and_nobody_touched_stays(folders, browser):
    """A joiner that is spelt out on the page, and a line that looks like a secret."""
    file = folders[0] / "kind.yaml"
    text = file.read_text().replace("Be cruel.", '"Be\\u200b cruel to sk-abcdefghijklmnop1234."')
    file.write_text(text)
    form = browser.form("/principles/kind@1", "edit")
    assert form["antithesis-0"] == "Be\\x200b cruel to sk-abcdefghijklmnop1234."
    assert browser.submit("/principles/kind@1", "edit", form).status_code == 200 and file.read_text() == text


def test_a_log_that_was_changed_stops_decisions(folders, browser):
    browser.fill("/principles/kind@1", "decide", decision="comment", comment="One.")
    log = folders[0] / "audit.jsonl"
    log.write_text(log.read_text().replace("Aiko", "Ben"))
    with open(log, "a") as stream:
        stream.write(log.read_text())
    before = files(folders[0])
    answer = browser.fill("/principles/kind@1", "decide", decision="approve")
    assert answer.status_code == 400 and "audit.jsonl:1: the line was changed" in text_of(answer.text)
    assert files(folders[0]) == before


def test_two_desks_share_a_log(folders):
    one, other = (Browser(Places(principles=folders[0]), name) for name in ("Aiko", "Ben"))
    for browser in (one, other, one, other):
        assert browser.fill("/principles/kind@1", "decide", decision="comment", comment="So.").status_code == 200
    assert [line["name"] for line in logged(folders[0])] == ["Aiko", "Ben"] * 2


def test_without_a_name_nothing_can_be_decided(folders):
    browser = Browser(Places(principles=folders[0]))
    page = browser.get("/principles/kind@1").text
    assert "Say who you are" in page and not any(place.endswith(("decide", "edit")) for place, _ in Forms(page).found)
    fields = browser.form("/name", "/name") | {"decision": "approve"}
    assert browser.post("/principles/kind@1/decide", data=fields).status_code == 400


def test_the_name_a_form_was_shown_under_is_who_decides(folders, browser):
    """Although the browser's visitor calls himself otherwise by now, in another tab."""
    fields = browser.form("/principles/kind@1", "decide")
    browser.fill("/name", "/name", name="Ben")
    browser.submit("/principles/kind@1", "decide", fields | {"decision": "approve"})
    kind = next(p for p in read_principles(folders[0]) if p.id == "kind")
    assert [review.reviewer for review in kind.reviews] == ["Aiko Tanaka"]


def test_the_language_is_the_browsers_until_another_is_chosen(folders, browser):
    for header, language in (
        ("ja", "ja"),
        ("fr, ja;q=0.5, en;q=0.4", "ja"),
        ("en-GB,ja;q=0.9", "en"),
        ("fr", "en"),
        ("ja;q=x", "en"),
    ):
        page = browser.get("/principles", headers={"Accept-Language": header}).text
        assert f'<html lang="{language}">' in page, header
    browser.submit("", "/language", browser.form("/", "/language") | {"language": "ja"})
    page = browser.get("/principles/kind@1", headers={"Accept-Language": "en"}).text
    assert "名前は認証されていません" in page and "承認" in page and "Be kind." in page
    browser.submit("", "/language", browser.form("/", "/language") | {"language": "<xx>"})
    assert browser.get("/", headers={"Accept-Language": "en"}).headers["content-language"] == "en"


@pytest.mark.slow
def test_a_model_answers_under_both_sides(tmp_path):
    folder = Path(shutil.copytree(miniature.FOLDER / "principles", tmp_path / "principles"))
    principles = read_principles(folder)
    thanks = next(p for p in principles if p.id == "thanks" and status(p, principles))
    browser = Browser(Places(principles=folder, model=miniature.FOLDER / "base"), "Aiko")
    answer = browser.fill(f"/principles/{thanks.name}", "ask", query="How do I clean the chair?")
    text = text_of(answer.text)
    assert (
        answer.status_code == 200
        and "Under the principle" in text
        and "Under the antithesis" in text
        and "chair" in text
    )
    assert browser.fill(f"/principles/{thanks.name}", "ask", query=" ").status_code == 400
    assert browser.fill(f"/principles/{thanks.name}", "ask", query="x " * 999).status_code == 400
