"""Datasets of a hub, at one commit, from a server that speaks the hub's protocol on this machine; and folders laid out like them."""

import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from huggingface_hub import constants
from support.query_files import HH, HH_QUERIES, comparison, turns, write

from sami_jax.data import hub
from sami_jax.data.queries import read_source
from sami_jax.data.sources import Source
from sami_jax.errors import UserError

OLD, NEW = "a" * 40, "b" * 40
NAME = "somebody/hh-rlhf"
SCRIPT = "raise SystemExit('foreign code ran')\n"


class Hub:
    """Commits of one dataset, as a server; `asked` has every file that was fetched."""

    def __init__(self, commits: dict[str, Path]):
        self.commits, self.asked = commits, []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self, body: bool = True):
                hub.answer(self, [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")], body)

            def do_HEAD(self):
                self.do_GET(body=False)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def answer(self, request, path: list[str], body: bool) -> None:
        api, path = path[0] == "api", path[1:] if path[0] == "api" else path
        name, revision, inner = "/".join(path[1:3]), path[4] if len(path) > 4 else "", "/".join(path[5:])
        folder = self.commits.get(revision)
        if name != NAME:
            return self.send(request, 404, b"", {"X-Error-Code": "RepoNotFound"})
        if folder is None:
            return self.send(request, 404, b"", {"X-Error-Code": "RevisionNotFound"})
        if api:
            files = [file for file in folder.rglob("*") if file.is_file()]
            tree = [
                {"type": "file", "path": str(f.relative_to(folder)), "size": f.stat().st_size, "oid": "0" * 40}
                for f in files
            ]
            return self.send(request, 200, json.dumps(tree).encode(), {"Content-Type": "application/json"})
        content = (folder / inner).read_bytes()
        if body:
            self.asked.append(inner)
        headers = {"X-Repo-Commit": revision, "ETag": f'"{abs(hash((inner, content))):x}"'}
        return self.send(request, 200, content, headers, body)

    def send(self, request, status: int, content: bytes, headers: dict, body: bool = True) -> None:
        request.send_response(status)
        for key, value in {"Content-Length": str(len(content)), **headers}.items():
            request.send_header(key, value)
        request.end_headers()
        if body:
            request.wfile.write(content)


@contextlib.contextmanager
def serving(commits: dict[str, Path]):
    stand_in = Hub(commits)
    threading.Thread(target=stand_in.server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield stand_in
    finally:
        stand_in.server.shutdown()
        stand_in.server.server_close()


@pytest.fixture
def online(tmp_path, monkeypatch):
    """A hub with two commits of one dataset, each with a script beside its data, and an empty cache."""
    for commit, rows in ((OLD, HH[1:]), (NEW, HH)):
        for folder in ("helpful-base", "harmless-base"):
            for split in ("train", "test"):
                write(
                    tmp_path / commit / folder / f"{split}.jsonl.gz", rows if folder.startswith("helpful") else HH[:1]
                )
        (tmp_path / commit / "hh-rlhf.py").write_text(SCRIPT)
        (tmp_path / commit / "README.md").write_text("---\nlicense: mit\n---\n")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    with serving({commit: tmp_path / commit for commit in (OLD, NEW)}) as stand_in:
        at(stand_in.url, monkeypatch)
        yield stand_in


def at(url: str, monkeypatch) -> None:
    """Where the hub is."""
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")


def pinned(revision: str, subset: str = "helpful-base", name: str = NAME) -> Source:
    return Source(f"hub:{name}", subset=subset, revision=revision)


def test_a_hub_dataset_is_read_at_its_commit_and_again_without_a_network(online, monkeypatch):
    read = read_source(pinned(NEW))
    assert [query.text for query in read.queries] == HH_QUERIES
    assert read.record["revision"] == NEW and read.record["split"] == "train"
    assert read.record["files"] == [f"hub:{NAME}/helpful-base/train.jsonl.gz"]
    assert "hh-rlhf.py" not in online.asked and "helpful-base/train.jsonl.gz" in online.asked
    asked = len(online.asked)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert read_source(pinned(NEW)) == read and len(online.asked) == asked
    # Another commit is not here; the one that is, is no substitute.
    with pytest.raises(UserError, match=f"the hub cannot be reached .* revision {OLD} is not whole in"):
        read_source(pinned(OLD))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    other = read_source(pinned(OLD))
    assert [query.text for query in other.queries] == ["Hello"]
    assert other.record["sha256"] != read.record["sha256"]


def test_half_a_download_is_not_taken_for_the_whole(online, monkeypatch, tmp_path):
    read_source(pinned(NEW))
    [file] = (tmp_path / "cache").rglob("harmless-base/test.jsonl.gz")
    file.unlink()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="is not whole in this machine's cache"):
        read_source(pinned(NEW))


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (pinned("c" * 40), f"hub:{NAME}: has no commit cccc"),
        (pinned(NEW, name="nobody/nothing"), "hub:nobody/nothing: no such dataset on the hub"),
        (pinned(NEW, subset="helpful"), "config.data.subset='helpful': .* name one, or a folder in it"),
    ],
)
def test_what_the_hub_has_not_is_one_line(online, source, words):
    with pytest.raises(UserError, match=words) as refused:
        read_source(source)
    assert "\n" not in str(refused.value)


def test_a_hub_that_is_away_is_one_line(online, monkeypatch, capfd):
    at("http://127.0.0.1:9", monkeypatch)
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # between tries
    with pytest.raises(UserError, match="the hub cannot be reached") as refused:
        read_source(pinned(NEW))
    told = capfd.readouterr().err.splitlines()
    assert "\n" not in str(refused.value) and len(told) == 1, told


README = """---
configs:
- config_name: comparisons
  data_files:
  - split: train
    path: comparisons/train-*
  - split: validation
    path: comparisons/validation-*
- config_name: outside
  data_files: {outside}
---
"""


@pytest.fixture
def folder(tmp_path) -> Path:
    """summarize_from_feedback as a folder of Parquet files with a card that names its configurations."""
    for n, split in enumerate(("train-00000-of-00002", "train-00001-of-00002", "validation-00000-of-00001")):
        rows = [comparison(f"Post {n}.", n), comparison("A post in all.", 9)]
        write(tmp_path / "tldr" / "comparisons" / f"{split}.parquet", rows)
    write(tmp_path / "elsewhere.parquet", [{"query": "a secret"}])
    (tmp_path / "tldr" / "README.md").write_text(README.replace("{outside}", f"{tmp_path}/elsewhere.parquet"))
    return tmp_path / "tldr"


def test_a_folder_of_parquet_files(folder, monkeypatch):
    read = read_source(Source(str(folder), subset="comparisons"))
    assert [(query.id, query.text) for query in read.queries] == [
        ("1.1", "Post 0."),
        ("1.2", "A post in all."),
        ("2.1", "Post 1."),
    ]
    assert (read.record["rows"], read.record["repeated"], read.record["columns"]) == (4, 1, ["info.post"])
    held_out = read_source(Source(str(folder), subset="comparisons", split="validation"))
    assert [query.text for query in held_out.queries] == ["Post 2.", "A post in all."]
    monkeypatch.chdir(folder.parent)  # a relative folder is the same one, whatever it is called
    (folder.parent / "tldr").rename("csv")
    assert read_source(Source("csv", subset="comparisons")).record["sha256"] == read.record["sha256"]


@pytest.mark.parametrize("name", ["[d] *?", "CAPS {a} ~ 日本"])
@pytest.mark.parametrize("card", ["", "---\nconfigs:\n- config_name: default\n  data_files: '*.jsonl'\n---\n"])
def test_the_name_of_a_folder_is_no_pattern(tmp_path, name, card):
    folder = tmp_path / name / "data[1]"
    folder.mkdir(parents=True)
    for split, query in (("train", "Why?"), ("test", "How?")):
        (folder / f"{split}.jsonl").write_text(json.dumps({"query": query}) + "\n")
    (folder / "README.md").write_text(card)
    read = read_source(Source(str(folder), split="train" if card else "test"))
    assert [query.text for query in read.queries] == (["How?", "Why?"] if card else ["How?"])


def test_the_hubs_own_parquet_revision_has_folders_for_subsets(tmp_path):
    for subset, splits in {"axis": ("validation",), "comparisons": ("train", "validation")}.items():
        for split in splits:
            write(tmp_path / subset / split / "0000.parquet", [comparison(f"{subset} {split}", 0)])
    [query] = read_source(Source(str(tmp_path), subset="comparisons")).queries
    assert query.text == "comparisons train"
    everything = read_source(Source(str(tmp_path), split="validation"))
    assert {query.text for query in everything.queries} == {"axis validation", "comparisons validation"}


def test_messages_of_a_folder(tmp_path):
    write(
        tmp_path / "data" / "train-00000-of-00001.parquet",
        [{key: turns(text) for key, text in row.items()} for row in HH],
    )
    assert [query.text for query in read_source(Source(str(tmp_path))).queries] == HH_QUERIES


@pytest.mark.parametrize(
    ("change", "subset", "split", "words"),
    [
        ({}, "", "train", "config.data.subset='': .* has the subsets comparisons, outside; name one"),
        ({}, "axis", "train", "config.data.subset='axis': .* has the subsets comparisons, outside; name one"),
        ({}, "comparisons", "test", "no split 'test'; there are: train, validation"),
        ({}, "outside", "train", "leads out of the dataset, to .*elsewhere.parquet"),
        ({"README.md": "---\n: [\n---\n"}, "comparisons", "train", "not readable as a dataset"),
        (
            {"tldr.py": SCRIPT},
            "comparisons",
            "train",
            "not readable as a dataset .Dataset scripts are no longer supported",
        ),
        (
            {"comparisons/train-00001-of-00002.parquet": "PAR1"},
            "comparisons",
            "train",
            "train-00001-of-00002.parquet: not readable",
        ),
    ],
)
def test_folders_that_cannot_be_read_are_one_line(folder, change, subset, split, words):
    for name, content in change.items():
        (folder / name).write_text(content)
    with pytest.raises(UserError, match=words) as refused:
        read_source(Source(str(folder), subset=subset, split=split))
    assert "\n" not in str(refused.value)


def test_kinds_of_files_that_are_not_read_are_named(tmp_path):
    (tmp_path / "train.txt").write_text("a line\n")
    with pytest.raises(UserError, match=r"train.txt is of a kind that is not read; give .jsonl"):
        read_source(Source(str(tmp_path)))
    (tmp_path / "train.txt").unlink()
    with pytest.raises(UserError, match=r"not readable as a dataset .The directory at .* contain any data files"):
        read_source(Source(str(tmp_path)))


def test_without_the_package_a_folder_is_refused_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(UserError, match=r"need the datasets package: pip install 'sami_jax\[hub\]'"):
        hub.split_files(tmp_path, Source(str(tmp_path)))
