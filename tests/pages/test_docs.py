"""The documentation: it builds without a warning, asks nothing of the network, and tells the code as it is."""

import ast
import graphlib
import html
import html.parser
import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from ml_collections import ConfigDict
from support.commands_in_text import check_all

from sami_jax.config import defaults

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PACKAGE = ROOT / "sami_jax"
SOURCES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "launch/README.md", *sorted(DOCS.glob("*.md"))]


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    argv = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(argv, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert built.returncode == 0 and "WARNING" not in built.stderr, built.stderr
    return folder


class Elements(html.parser.HTMLParser):
    """Every element's tag and attributes."""

    def __init__(self, text: str):
        super().__init__()
        self.found: list[tuple[str, dict]] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))


@pytest.mark.slow
def test_no_page_asks_the_network(site):
    pages = list(site.glob("*.html"))
    assert len(pages) > 7
    for page in pages:
        for tag, given in Elements(page.read_text(encoding="utf-8")).found:
            asked = [given.get("src")] if tag != "link" else [given.get("href")] * (given.get("rel") != "canonical")
            for place in filter(None, asked):
                assert not urlsplit(place).netloc, f"{page.name}: <{tag}> {place}"
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import)\s*['\"]?(https?:)?//", sheet.read_text(encoding="utf-8")), sheet


@pytest.mark.slow
def test_the_examples_stand_on_their_page(site):
    text = html.unescape(re.sub(r"<[^>]*>", "", (site / "api.html").read_text(encoding="utf-8")))
    examples = list((ROOT / "examples").glob("*.py"))
    assert len(examples) == 5
    for example in examples:
        assert example.read_text(encoding="utf-8").strip() in text, example.name


@pytest.mark.slow
def test_pictures_say_what_they_show(site):
    for page in site.glob("*.html"):
        for tag, given in Elements(page.read_text(encoding="utf-8")).found:
            assert tag != "img" or given.get("alt"), f"{page.name}: {given}"


@pytest.mark.slow
def test_every_page_can_be_reached(site):
    start = Elements((site / "index.html").read_text(encoding="utf-8")).found
    linked = {given.get("href", "").split("#")[0] for tag, given in start if tag == "a"}
    assert {page.name for page in site.glob("*.html")} - {"404.html", "index.html"} <= linked


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: file.stem)
def test_links_out_are_well_formed(file):
    """Inside the site, the strict build sees to links."""
    text = re.sub(r"```.*?```", "", file.read_text(encoding="utf-8"), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)]*)\)", text):
        parts = urlsplit(link)
        if parts.scheme or parts.netloc:
            assert parts.scheme == "https" and re.fullmatch(r"[\w-]+(\.[\w-]+)+", parts.netloc), link
            assert not re.search(r"\s|[.,;]$", link), link
        elif parts.path:
            assert (file.parent / parts.path).exists() or parts.path == "configuration.md", f"{file.name}: {link}"


def test_measured_tables_stand_once():
    """What the README shows of a run is what the page on the embedded world shows."""
    [shown] = [
        body
        for body in re.findall(r"^```text\n(.*?)^```$", SOURCES[0].read_text(encoding="utf-8"), re.S | re.M)
        if "MI, nats" in body
    ]
    assert shown in (DOCS / "miniature.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("file", SOURCES[1:], ids=lambda file: file.stem)
def test_commands_are_such_as_the_parser_takes(file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check_all(file.read_text(encoding="utf-8"))


def fields(config: ConfigDict, prefix: str = "") -> dict[str, object]:
    found = {}
    for name, value in config.items():
        found |= fields(value, f"{prefix}{name}.") if isinstance(value, ConfigDict) else {prefix + name: value}
    return found


def test_every_field_of_the_config_is_told(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS))
    import config_reference

    page = config_reference.page()
    told, group = {}, ""
    for line in page.splitlines():
        if line.startswith("## "):
            group = "" if " " in line[3:] else line[3:] + "."
        elif row := re.fullmatch(r"\| `(\w+)` \| `(.*?)` \| (.*) \|", line):
            told[group + row[1]] = (ast.literal_eval(row[2].replace("\\|", "|")), row[3].replace("\\", ""))
    assert {name: default for name, (default, _) in told.items()} == fields(defaults())
    assert all(meaning for _, meaning in told.values())
    source = (PACKAGE / "config/settings.py").read_text(encoding="utf-8")
    beside = re.findall(r"^    c\.([\w.]+) = .*?  # (.*)$", source.split("def paper_training")[0], flags=re.MULTILINE)
    assert len(beside) > 80
    for name, comment in beside:
        if name in told:
            assert told[name][1].endswith(comment), name


def imports() -> dict[str, set[str]]:
    """Module -> the package's modules that it imports, wherever in its file."""
    files = {}
    for file in PACKAGE.rglob("*.py"):
        parts = file.relative_to(ROOT).with_suffix("").parts
        files[".".join(parts[: -1 if parts[-1] == "__init__" else None])] = file
    found = {}
    for module, file in files.items():
        names = set()
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{module}: imports are written whole"
                inner = {f"{node.module}.{alias.name}" for alias in node.names}
                names |= (inner & files.keys()) | ({node.module} if inner - files.keys() else set())
            elif isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
        found[module] = names
    assert "sami_jax.ground.hosts" in found["sami_jax.stages.loop"]
    return {module: names & files.keys() for module, names in found.items()}


def rooms() -> dict[str, int]:
    """Room, or module without one -> its layer in docs/architecture.md, counted from the top."""
    table = (DOCS / "architecture.md").read_text(encoding="utf-8").split("| layer | rooms |")[1].split("\n\n")[0]
    return {name: n for n, row in enumerate(table.splitlines()[2:]) for name in re.findall(r"`(\w+)`", row)}


def test_every_room_has_its_layer():
    there = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert set(rooms()) == there - {"__init__"}
    drawn = (DOCS / "images/layers.svg").read_text(encoding="utf-8")
    assert set(re.findall(r'class="module"[^>]*>(\w+)/?<', drawn)) == set(rooms())


def test_no_module_lies_loose():
    assert {file.name for file in PACKAGE.glob("*.py")} == {"__init__.py", "errors.py", "sharding.py"}


def test_imports_go_downwards():
    layer = rooms()
    for importer, names in imports().items():
        if importer != "sami_jax":
            for imported in names:
                above, below = (name.split(".")[1] for name in (importer, imported))
                assert layer[above] <= layer[below], f"{importer} imports {imported}"


def test_no_imports_go_in_circles():
    """Neither among files nor among rooms."""
    files = imports()
    by_room: dict[str, set[str]] = {}
    for importer, names in files.items():
        room = importer.split(".")[1:2]
        inner = {name.split(".")[1] for name in names}
        by_room.setdefault("".join(room), set()).update(inner - set(room))
    for graph in (files, by_room):
        graphlib.TopologicalSorter(graph).prepare()  # raises, and names the circle


def test_the_objective_stands_alone():
    """Its formulas can be read, and used elsewhere, without the rest."""
    assert not imports()["sami_jax.contrast.objective"]
