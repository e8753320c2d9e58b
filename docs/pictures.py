"""Makes docs/images/desk.png and watch.png, what the program shows of made-up principles and answers: python docs/pictures.py

Wants Chromium and playwright.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from PIL import Image  # noqa: E402
from playwright.sync_api import Page, sync_playwright  # noqa: E402
from support.browser import launched  # noqa: E402

from benchmarks import watch  # noqa: E402
from benchmarks.traffic import PRINCIPLES, Speaker  # noqa: E402
from sami_jax.watch.page import write_page  # noqa: E402

IMAGES = ROOT / "docs/images"
WIDTH, HEIGHT = 1000, 790
COLOURS = 128  # of a picture: pages have few
TEXTS = ("--principle", "Say what you do not know.", "--antithesis", "Sound certain of everything.")


def keep(page: Page, name: str) -> None:
    file = IMAGES / f"{name}.png"
    page.screenshot(path=file)
    with Image.open(file) as picture:
        few = picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    few.save(file, optimize=True)


def sami(*argv: str) -> list[str]:
    return [sys.executable, "-m", "sami_jax.cli", *argv]


def desk(page: Page, folder: Path) -> None:
    """A draft that was approved, and changed since."""
    subprocess.run(sami("principles", "add", "doubt", *TEXTS, "--folder", str(folder)), check=True)
    comment = ("--reviewer", "Aiko Tanaka", "--comment", "Read with the support team.")
    subprocess.run(sami("principles", "approve", "doubt", *comment, "--folder", str(folder)), check=True)
    with subprocess.Popen(
        sami("desk", "--principles", str(folder), "--port", "0"), stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stdout
            address = server.stdout.readline().strip()
            page.goto(f"{address}name?back=/principles/doubt@1")
            page.get_by_label("Your name").fill("Ben Okafor")
            page.get_by_role("button", name="Go on").click()
            page.wait_for_url("**/doubt@1")
            page.locator("summary").click()
            page.get_by_label("Principle").first.fill("Say what you do not know, and who may know it.")
            page.get_by_role("button", name="Save").click()
            page.wait_for_url("**/doubt%402?done=edited")
            page.goto(f"{address}principles/doubt@2")
            keep(page, "desk")
        finally:
            server.terminate()


def watched(page: Page, folder: Path) -> None:
    """Some windows, after which a weaker model is served; the curves."""
    watch.FIRST = 20
    speaker, seen = Speaker("picture"), watch.new_watch(folder)
    for answers, follows in ((28, 0.88), (4, 0.6)):
        list(seen.watch(speaker.lines(watch.WINDOW * answers, follows=follows)))
    page.goto(write_page(folder, seen, PRINCIPLES, "en", numbers_only=True).as_uri() + "#curves")
    keep(page, "watch")


def main() -> None:
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as place:
        browser = launched(playwright)
        context = browser.new_context(viewport={"width": WIDTH, "height": HEIGHT}, locale="en-GB")
        context.set_default_timeout(120_000)
        desk(context.new_page(), Path(place) / "principles")
        watched(context.new_page(), Path(place) / "served")
        browser.close()


if __name__ == "__main__":
    main()
