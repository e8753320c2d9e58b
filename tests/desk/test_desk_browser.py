"""The desk in Chromium, as people use it: by mouse, by keys, in two tabs, on a phone, in the dark, in Japanese; axe-core finds nothing serious."""

import contextlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.browser import CHROMIUM, LOOKS, check_access, keep, launched
from support.desk import principles_in, ratings_in
from support.fabricated_run import fabricate, predicate, write

from sami_jax.cli import main
from sami_jax.desk.texts import TEXTS
from sami_jax.evaluation.pairs import Pair
from sami_jax.evaluation.sheets import read_ratings, sheet_of
from sami_jax.principles.files import read_principles
from sami_jax.provenance.manifest import RunRecord

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")]
LONG = "Perhaps you can clean the chair with a cloth, warm water and a little soap. " * 3
TWENTY = [
    Pair(f"q{n}", f"How do I clean chair {n}?", "1. Thank the person.\n2. Be brief.", LONG, f"Thank you. {LONG}")
    for n in range(20)
]
CHECK = "check:\n  principle: {sentences: {at_most: 2}}\n  antithesis: {sentences: {at_least: 5}}\n"


@pytest.fixture(scope="module")
def chromium():
    with playwright.sync_playwright() as p:
        browser = launched(p)
        yield browser
        browser.close()


@pytest.fixture
def folders(tmp_path) -> Path:
    principles = principles_in(tmp_path / "principles")
    with open(principles / "brief.yaml", "a") as stream:
        stream.write(CHECK)
    ratings_in(tmp_path / "ratings", TWENTY)
    fabricate(tmp_path / "runs" / "demo")
    return tmp_path


@contextlib.contextmanager
def desk(*argv: str):
    """A real server; yields its address."""
    command = [sys.executable, "-m", "sami_jax.cli", "desk", "--port", "0", *argv]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout
            yield server.stdout.readline().split()[-1].rstrip("/")
        finally:
            server.terminate()


@contextlib.contextmanager
def visitor(chromium, url: str, language: str, name: str = "", **options):
    """A page of a browser of one's own, in which nothing may go wrong unseen."""
    context = chromium.new_context(locale={"en": "en-GB", "ja": "ja-JP"}[language], base_url=url, **options)
    context.set_default_timeout(120_000)
    page = context.new_page()
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on(
        "console",
        lambda said: faults.append(said.text) if said.type == "error" and "status of 4" not in said.text else None,
    )
    page.on("request", lambda asked: faults.append(asked.url) if not asked.url.startswith((url, "data:")) else None)
    if name:
        page.goto("/name")
        page.get_by_label(word("name/label", language)).fill(name)
        page.keyboard.press("Enter")
        page.wait_for_url("**/")
    yield page
    context.close()
    assert not faults


def word(key: str, language: str, **values) -> str:
    return TEXTS[key][language == "ja"].format(**values)


@pytest.mark.parametrize("language", ["en", "ja"])
@pytest.mark.parametrize("look", LOOKS)
def test_every_page_can_be_read_by_all(chromium, folders, language, look):
    argv = [
        "--principles",
        str(folders / "principles"),
        "--ratings",
        str(folders / "ratings"),
        "--runs",
        str(folders / "runs"),
    ]
    main(
        [
            "principles",
            "approve",
            "brief",
            "--reviewer",
            "Ben",
            "--comment",
            "Fine.",
            "--folder",
            str(folders / "principles"),
        ]
    )
    with desk(*argv) as url, visitor(chromium, url, language, "相子 Tanaka", **LOOKS[look]) as page:
        page.goto("/principles/brief@1")
        page.locator("summary").click()
        page.get_by_label(word("principles/principle", language)).first.fill("At most two sentences.")
        page.get_by_role("button", name=word("desk/save", language)).click()
        page.wait_for_url("**/principles/brief%402?done=edited")
        for place in (
            "/",
            "/name",
            "/principles",
            "/principles/brief@2",
            "/ratings",
            "/ratings/1",
            "/ratings/agreement",
            "/runs",
            "/runs/demo",
            "/nothing",
        ):
            page.goto(place)
            if "brief" in place:
                page.locator("summary").click()
            keep(page, f"{look}-{language}-{place.strip('/').replace('/', '-') or 'home'}")
            check_access(page)
            assert page.locator("html").get_attribute("lang") == language
        page.goto("/runs/demo/report")
        assert page.locator("h1").count() == 1


@pytest.mark.parametrize("language", ["en", "ja"])
def test_a_reviewer_edits_approves_and_rejects_by_keys_alone(chromium, folders, language):
    folder = folders / "principles"
    with desk("--principles", str(folder)) as url, visitor(chromium, url, language, "Aiko") as page:
        page.goto("/principles")
        reach(page, "a", "kind@1")
        page.keyboard.press("Enter")
        page.wait_for_url("**/kind%401")
        reach(page, "summary", word("desk/edit", language))
        page.keyboard.press("Enter")
        reach(page, "textarea", "Be kind.")
        page.keyboard.press("Control+A")
        page.keyboard.type("Be kind to all.")
        reach(page, "button", word("desk/save", language))
        page.keyboard.press("Enter")
        page.get_by_role("status").filter(has_text=word("done/edited", language)).wait_for()
        reach(page, "textarea", "")
        page.keyboard.type("Read it.")
        reach(page, "button", word("desk/approve", language))
        page.keyboard.press("Enter")
        page.get_by_role("status").filter(has_text=word("done/approved", language)).wait_for()
        page.goto("/principles/brief@1")
        reach(page, "button", word("desk/reject", language))
        page.keyboard.press("Enter")
        page.get_by_role("status").filter(has_text=word("done/rejected", language)).wait_for()
    brief, kind = read_principles(folder)
    assert [(r.reviewer, r.decision, r.comment) for r in (*kind.reviews, *brief.reviews)] == [
        ("Aiko", "approved", "Read it."), ("Aiko", "rejected", ""),
    ]  # fmt: skip
    assert kind.phrasings == (("Be kind to all.", "Be cruel."),) and brief.check


def reach(page, tag: str, text: str) -> None:
    """Presses Tab until this has the focus, and sees that the focus shows."""
    for _ in range(60):
        page.keyboard.press("Tab")
        focused = page.evaluate(
            "(({tagName, value, innerText}) => [tagName.toLowerCase(), tagName === 'TEXTAREA' ? value : innerText])(document.activeElement)"
        )
        if focused == [tag, text]:
            assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
            return
    raise AssertionError(f"no Tab leads to {tag} {text!r}")


@pytest.mark.parametrize("language", ["en", "ja"])
def test_a_second_tab_with_an_old_text_is_told(chromium, folders, language):
    with desk("--principles", str(folders / "principles")) as url, visitor(chromium, url, language, "Aiko") as page:
        page.goto("/principles/kind@1")
        second = page.context.new_page()
        second.goto("/principles/kind@1")
        page.locator("summary").click()
        page.get_by_label(word("principles/principle", language)).first.fill("Be kind to all.")
        page.get_by_role("button", name=word("desk/save", language)).click()
        page.get_by_role("status").filter(has_text=word("done/edited", language)).wait_for()
        second.get_by_label(word("desk/comment", language)).fill("Mine")
        second.get_by_role("button", name=word("desk/approve", language), exact=True).click()
        second.get_by_role("alert").filter(has_text=word("done/changed", language)).wait_for()
        assert second.locator(".sides .data").first.inner_text() == "Be kind to all."
        assert second.get_by_label(word("desk/comment", language)).input_value() == "Mine"
        keep(second, f"changed-{language}")
        second.get_by_role("button", name=word("desk/approve", language), exact=True).click()
        second.get_by_role("status").filter(has_text=word("done/approved", language)).wait_for()
    assert [r.decision for r in read_principles(folders / "principles")[1].reviews] == ["approved"]


@pytest.mark.parametrize("language", ["en", "ja"])
def test_two_raters_by_keys_one_comes_back(chromium, folders, language, capsys):
    ratings, verdicts = folders / "ratings", folders / "judge.jsonl"
    rows = [{"id": pair.id, "constitution": pair.constitution, "win": n % 2} for n, pair in enumerate(TWENTY)]
    verdicts.write_text("".join(json.dumps(row) + "\n" for row in rows))
    keys = {"Aiko": "1234a=b?\uff112" * 2, "Ben": "1122b=b?21" * 2}
    with desk("--ratings", str(ratings), "--verdicts", str(verdicts)) as url:
        with visitor(chromium, url, language, "Aiko") as page:
            page.goto("/ratings/1")
            press(page, keys["Aiko"][:7])
            page.goto("/ratings/8")
            page.get_by_label(word("rating/reason", language)).fill("1 and 2")  # keys in a text are text
            assert page.url.endswith("/ratings/8")
        assert len(read_ratings(ratings, "Aiko")) == 7
        for name, left in (("Aiko", keys["Aiko"][7:]), ("Ben", keys["Ben"])):
            with visitor(chromium, url, language, name) as page:
                page.goto("/ratings")
                page.locator("a.main").click()
                page.wait_for_url(f"**/ratings/{21 - len(left)}")
                press(page, left)
                page.wait_for_url("**/ratings")
                page.get_by_role("status").filter(has_text=word("ratings/done", language)).wait_for()
                page.goto("/ratings/agreement")
                shown = page.locator("main").inner_text()
                keep(page, f"agreement-{language}")
                check_access(page)
    meant = {
        "1": "1",
        "a": "1",
        "\uff11": "1",
        "2": "2",
        "b": "2",
        "3": "tie",
        "=": "tie",
        "4": "cannot say",
        "?": "cannot say",
    }
    for name, pressed in keys.items():
        assert [rating.better for rating in read_ratings(ratings, name).values()] == [meant[key] for key in pressed]
    argv = [
        "--key",
        str(ratings / "key.json"),
        "--output",
        str(folders / "people.jsonl"),
        "--verdicts",
        str(verdicts),
        "--json",
    ]
    capsys.readouterr()
    assert main(["rate", "import", *(str(sheet_of(ratings, name)) for name in keys), *argv]) == 0
    told = json.loads(capsys.readouterr().out)
    for found in (told["agreement"], *told["between_raters"]):
        row = f"{found['kappa']:.2f}\t{found['ci_low']:.2f} \u2013 {found['ci_high']:.2f}\t{found['n']}"
        assert row in shown, (row, shown)


def press(page, keys: str) -> None:
    """A key for each pair, each when its page has come."""
    for key in keys:
        place = page.url
        page.wait_for_load_state()
        if key.isascii():
            page.keyboard.press(key)
        else:  # as a Japanese keyboard gives it
            page.evaluate(
                "key => document.body.dispatchEvent(new KeyboardEvent('keydown', {key, bubbles: true, cancelable: true}))",
                key,
            )
        page.wait_for_url(lambda url, place=place: url != place)


@pytest.mark.parametrize("language", ["en", "ja"])
def test_a_run_is_followed_live(chromium, folders, language):
    made_from = predicate()
    made_from["config"]["train"] = {"updates": [40]}
    run = folders / "runs" / "live"
    record = RunRecord(run, made_from, {"kind": "cpu", "count": 1, "processes": 1})
    with desk("--runs", str(folders / "runs")) as url, visitor(chromium, url, language) as page:
        page.clock.install()
        page.goto("/runs/live")
        stage = page.locator("#stage")
        assert stage.inner_text() == word("stage/measuring", language, number=0)
        record.stage("evaluated", 0, [])
        record.stage("sampled", 1, [])
        rows = [{"step": n, "loss": 0.7 - 0.01 * n, "mi_posterior_bound": 0.01 * n} for n in range(1, 31)]
        write(run / "iteration_1/metrics.jsonl", *rows)
        write(run / "iteration_1/canaries.jsonl", {"update": 20, "following": 0.75, "well_formed": 1.0, "mi_share": 0.3, "mean_tokens": 21.0, "repetition": 0.0, "refusal": 0.0})  # fmt: skip
        write(
            run / "iteration_1/responses.jsonl",
            {"id": 1, "query": "How?", "constitution": "1. C", "response": "<i>So.</i>", "tokens": 3},
        )
        page.locator("#live").get_by_text("<i>So.</i>").wait_for()  # what was written last: a look may come in between
        assert "30 / 40" in page.locator("table").first.inner_text()
        assert page.locator("#said").inner_text() == word("stage/training", language, number=1)
        keep(page, f"live-{language}")
        check_access(page)
        page.get_by_label(word("runs/follow", language)).uncheck()  # what moves can be stopped
        write(run / "iteration_1/metrics.jsonl", *rows, {"step": 31, "loss": 0.1})
        page.clock.fast_forward(10_000)
        assert "30 / 40" in page.locator("table").first.inner_text()
        page.get_by_label(word("runs/follow", language)).check()
        page.get_by_text("31 / 40").wait_for()
        record.finish("complete")
        page.locator("#stage").filter(has_text=word("stage/complete", language)).wait_for()


def test_from_elsewhere_with_a_token(chromium, folders):
    with desk("--principles", str(folders / "principles"), "--host", "127.0.0.1") as address:
        url, entrance = address.split("/enter")[0], f"/enter{address.split('/enter')[1]}"
        with visitor(chromium, url, "en") as page:
            assert page.goto("/principles").status == 401
            page.goto(entrance)
            page.get_by_role("button", name=word("enter/button", "en")).click()
            page.wait_for_url("**/")
            assert page.goto("/principles").status == 200
        with visitor(chromium, url, "en") as page:
            page.goto(entrance)
            page.get_by_role("button", name=word("enter/button", "en")).click()
            page.get_by_role("alert").filter(has_text=word("refused/token", "en")).wait_for()


def test_without_its_script_all_can_be_done(chromium, folders):
    with desk("--ratings", str(folders / "ratings")) as url:
        context = chromium.new_context(base_url=url, java_script_enabled=False, locale="en-GB")
        page = context.new_page()
        page.goto("/name?back=/ratings/1")
        page.get_by_label("Your name").fill("Aiko")
        page.get_by_role("button", name="Go on").click()
        page.get_by_role("button", name="B is better").click()
        page.wait_for_url("**/ratings/2")
        context.close()
    assert [rating.better for rating in read_ratings(folders / "ratings", "Aiko").values()] == ["2"]
