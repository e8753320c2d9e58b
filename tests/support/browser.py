"""Pages in Chromium: whether all can read them, and pictures for eyes, in the folder that SAMI_SCREENSHOTS names."""

import os
import shutil
from pathlib import Path

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
LOOKS = {
    "desktop": {"viewport": {"width": 1280, "height": 900}},
    "phone": {
        "viewport": {"width": 375, "height": 740},
        "device_scale_factor": 2,
        "is_mobile": True,
        "has_touch": True,
    },
    "dark": {"viewport": {"width": 1280, "height": 900}, "color_scheme": "dark"},
}


def launched(playwright):
    """A browser; the sandbox of Chromium wants rights that containers do not give."""
    return playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])


def check_access(page) -> None:
    """axe-core finds nothing at all."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    told = [(one["impact"], one["id"], [node["html"] for node in one["nodes"]][:3]) for one in found]
    assert not told, f"{page.url}: {told}"


def keep(page, name: str) -> None:
    """A picture for eyes; and nothing is wider than the screen."""
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth"), page.url
    if folder := os.environ.get("SAMI_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)
