"""What `make package` has built in dist/: complete, nothing else in it, and at work in an environment of its own."""

import json
import os
import re
import subprocess
import sys
import tarfile
import urllib.request
import zipfile
from pathlib import Path

import pytest

import sami_jax

pytestmark = pytest.mark.package

ROOT = Path(__file__).parent.parent.parent
NAME = f"sami_jax-{sami_jax.__version__}"
WHEEL, SOURCE = ROOT / f"dist/{NAME}-py3-none-any.whl", ROOT / f"dist/{NAME}.tar.gz"


@pytest.fixture(scope="module")
def tracked() -> set[str]:
    """Paths that git knows, from the root."""
    asked = ["git", "ls-files", "-z"]
    return set(subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")[:-1])


def test_the_wheel_is_the_package_and_its_configs(tracked):
    wanted = {file for file in tracked if file.startswith("sami_jax/")}
    wanted |= {f"sami_jax/{file}" for file in tracked if file.startswith("configs/")}
    with zipfile.ZipFile(WHEEL) as wheel:
        found = set(wheel.namelist())
        about = {file for file in found if file.startswith(f"{NAME}.dist-info/")}
        assert f"{NAME}.dist-info/licenses/LICENSE" in about
        metadata = wheel.read(f"{NAME}.dist-info/METADATA").decode()
    assert found - about == wanted
    assert "License-Expression: Apache-2.0\n" in metadata and f"\nVersion: {sami_jax.__version__}\n" in metadata


def test_the_source_is_what_git_tracks(tracked):
    with tarfile.open(SOURCE) as source:
        found = {file.name.removeprefix(f"{NAME}/") for file in source if file.isfile()}
    made = {file for file in found if file.startswith("sami_jax.egg-info/")} | {"PKG-INFO", "setup.cfg"}
    wanted = {file for file in tracked if not file.startswith((".ci/", ".github/", ".gitignore"))}
    assert found - made == wanted


def environment() -> dict[str, str]:
    """A user's: without this checkout, on one device."""
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "XLA_FLAGS", "VIRTUAL_ENV")}


def output(command: list, place: Path) -> str:
    """Of a command typed in a folder."""
    done = subprocess.run(command, cwd=place, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """The folder of the commands of a new environment that has the wheel, and what the desk wants."""
    folder = tmp_path_factory.mktemp("new") / "bin"
    output([sys.executable, "-m", "venv", folder.parent], folder.parent.parent)
    output(
        [folder / "python", "-m", "pip", "install", "--quiet", "--no-compile", f"{WHEEL}[desk]"], folder.parent.parent
    )
    return folder


def test_a_run_in_an_environment_of_its_own(installed, tmp_path):
    where = output([installed / "python", "-c", "import sami_jax; print(sami_jax.__file__)"], tmp_path)
    assert Path(where.strip()).is_relative_to(installed.parent)
    assert sami_jax.__version__ in output([installed / "sami", "--version"], tmp_path)
    shorter = ["--config.train.updates=(1,)", "--config.train.batch_size=8", "--config.evaluation.queries=4"]
    output([installed / "sami", "run", "--config=tiny:smoke", "--workdir=runs/smoke", *shorter], tmp_path)
    assert "as recorded" in output([installed / "sami", "verify", "runs/smoke"], tmp_path)


def test_the_desk_and_the_watch_in_an_environment_of_its_own(installed, tmp_path):
    sami = installed / "sami"
    texts = ["--principle", "Be kind.", "--antithesis", "Be cruel."]
    output([sami, "principles", "add", "kind", *texts], tmp_path)
    command = [sami, "desk", "--principles", "principles", "--port", "0"]
    with subprocess.Popen(command, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout
            address = server.stdout.readline().strip()
            for place, content in (("", "/principles"), ("principles/kind@1", "Be cruel."), ("name", "<form")):
                assert content in fetched(address + place)
            assets = set(re.findall(r'(?:href|src)="/(static/[^"]+)"', fetched(address)))
            assert len(assets) == 3 and all(fetched(address + asset) for asset in assets)
        finally:
            server.terminate()
    rows = [{"time": 1_700_000_000 + n, "query": "How?", "response": f"So, {n} times."} for n in range(120)]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    watch = [sami, "watch", "log.jsonl", "--principles", "principles", "--output", "watch"]
    output([*watch, "--window", "10", "--first", "10", "--language", "ja"], tmp_path)
    page = (tmp_path / "watch/watch.ja.html").read_text(encoding="utf-8")
    assert page.startswith("<!DOCTYPE html>") and 'lang="ja"' in page and "<svg" in page and "--paper" in page
    assert len((tmp_path / "watch/watch.jsonl").read_text(encoding="utf-8").splitlines()) == 13


def fetched(address: str) -> str:
    with urllib.request.urlopen(address, timeout=60) as answer:
        return answer.read().decode()
