"""The desk in this process: its folders, and a browser that fills in its forms."""

import html.parser
import re
from pathlib import Path
from urllib.parse import urlsplit

from starlette.testclient import TestClient

from sami_jax.cli import main
from sami_jax.desk.app import make_app
from sami_jax.desk.pages import Places
from sami_jax.evaluation.pairs import Pair
from sami_jax.evaluation.ratings import export_ratings
from sami_jax.provenance.audit import read_audit

HOST = "http://127.0.0.1:8700"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
PAIRS = [Pair(f"q{n}", f"Question {n}?", "1. Be kind.", f"Plain {n}.", f" Kind {n}.", (3, 4)) for n in range(6)]


def principles_in(folder: Path) -> Path:
    """A folder with the drafts kind and brief."""
    for id, text, antithesis in (("kind", "Be kind.", "Be cruel."), ("brief", "One sentence.", "Many sentences.")):
        argv = ["--principle", text, "--antithesis", antithesis, "--folder", str(folder)]
        assert main(["principles", "add", id, *argv]) == 0
    return folder


def ratings_in(folder: Path, pairs=PAIRS) -> Path:
    export_ratings(pairs, folder, 0)
    return folder


class Forms(html.parser.HTMLParser):
    """The forms of a page: where each leads, and the fields that it begins with."""

    def __init__(self, page: str):
        super().__init__()
        self.found: list[tuple[str, dict[str, str]]] = []
        self._area = ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        if tag == "form":
            self.found.append((given.get("action") or "", {}))
        elif tag in ("input", "textarea") and self.found and given.get("name"):
            self.found[-1][1][given["name"]] = given.get("value") or ""
            self._area = given["name"] if tag == "textarea" else ""

    def handle_data(self, data):
        if self._area:
            self.found[-1][1][self._area] += data

    def handle_endtag(self, tag):
        if tag == "textarea":
            self._area = ""


class Browser(TestClient):
    """Of one visitor. It sends Origin as browsers do."""

    def __init__(self, places: Places, name: str = "", app=None, **options):
        super().__init__(app or make_app(places, None), base_url=HOST, headers={"Origin": HOST}, **options)
        if name:
            self.fill("/name", "/name", name=name)

    def form(self, page: str, action: str) -> dict[str, str]:
        """The fields of a form as the page gives them."""
        text = self.get(page).text
        return next(fields for place, fields in Forms(text).found if urlsplit(place).path.endswith(action))

    def fill(self, page: str, action: str, **fields: str):
        """Opens a page, and sends one of its forms with these fields."""
        return self.submit(page, action, self.form(page, action) | fields)

    def submit(self, page: str, action: str, fields: dict[str, str]):
        place = action if action.startswith("/") else f"{page}/{action}"
        return self.post(place, data=fields)


def text_of(page: str) -> str:
    """What a page shows, without markup."""
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", re.sub(r"(?s)<(script|style).*?</\1>", "", page))).split())


def logged(folder: Path) -> list[dict]:
    """The lines of a folder's audit log, whose chain holds."""
    return read_audit(folder / "audit.jsonl")
