"""The watch's page in Chromium: on a desktop, on a phone, in the dark, in both languages; axe-core finds nothing."""

import pytest
from support.browser import CHROMIUM, LOOKS, check_access, keep, launched

from benchmarks import watch
from sami_jax.watch.page import write_page

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")]
STATES = {
    "alarm": {"follows": 0.3},
    "quiet": {},
    "learning": None,
}  # what comes after the reference; None: it is not over


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """State and language -> a page."""
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(watch, "WINDOW", 60)
        patch.setattr(watch, "FIRST", 10)
        for state, fault in STATES.items():
            folder = tmp_path_factory.mktemp(state)
            watched, speaker = watch.new_watch(folder), watch.Speaker(state)
            list(watched.watch(speaker.lines(60 * (10 if fault is not None else 4))))
            list(watched.watch(speaker.lines(60 * 5, **fault) if fault is not None else ()))
            assert bool(watched.shown) == (state == "alarm")
            for language in ("en", "ja"):
                found[state, language] = write_page(folder, watched, watch.PRINCIPLES, language, numbers_only=False)
    return found


def test_it_can_be_read_by_all(pages):
    """In one browser: what a page looks like depends on nothing before it."""
    with playwright.sync_playwright() as p:
        browser = launched(p)
        for look, options in LOOKS.items():
            context = browser.new_context(**options)
            context.set_default_timeout(120_000)
            page, asked = context.new_page(), []
            page.on("request", lambda request, asked=asked: asked.append(request.url))
            for (state, language), file in pages.items():
                page.goto(file.as_uri())
                assert page.locator("html").get_attribute("lang") == language
                keep(page, f"watch-{look}-{language}-{state}")
                check_access(page)
            assert all(url.startswith(("file:", "data:")) for url in asked)
            context.close()
        browser.close()
