"""One version, wherever it is written; a release carries it as its tag."""

import re
import subprocess
from pathlib import Path

import pytest
from packaging.version import Version

import sami_jax

ROOT = Path(__file__).parent.parent.parent
VERSION = Version(sami_jax.__version__)


def test_it_is_in_normal_form():
    assert str(VERSION) == sami_jax.__version__


def test_the_citation_names_it():
    written = re.search(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text(encoding="utf-8"), re.MULTILINE)[1]
    assert written == sami_jax.__version__


def test_the_changelog_opens_with_it():
    """A version under way is under `Unreleased`; a release has a section and a date."""
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert headings[0] == "[Unreleased]"
    if not VERSION.is_devrelease:
        assert re.fullmatch(rf"\[{re.escape(str(VERSION))}\] - \d{{4}}-\d\d-\d\d", headings[1])


def test_its_tag_is_its_own():
    """Clones without tags have nothing to tell, nor has a source distribution."""
    if not (ROOT / ".git").exists():
        pytest.skip("no git here")
    asked = ["git", "tag", "--points-at", "HEAD", "--list", "v*"]
    tags = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert set(tags) <= {f"v{VERSION}"}
