"""Several reviewers at once: no text is decided about unread, nothing that was written is lost."""

import concurrent.futures
import dataclasses
import subprocess
import sys

import pytest

from sami_jax.principles import reviewing
from sami_jax.principles.files import read_principles, write_principle
from sami_jax.principles.principle import Principle
from sami_jax.principles.reviewing import Changed

KIND = Principle("kind", (("Be kind.", "Be cruel."),))
OTHER = (("Be very kind.", "Be cruel."),)


@pytest.fixture
def folder(tmp_path):
    write_principle(tmp_path / "kind.yaml", KIND)
    return tmp_path


ACTS = {
    "approve": lambda folder, read: reviewing.decide(folder, read, "Ben", "approved", ""),
    "reject": lambda folder, read: reviewing.decide(folder, read, "Ben", "rejected", ""),
    "comment": lambda folder, read: reviewing.remark(folder, read, "Ben", "Why?"),
    "edit": lambda folder, read: reviewing.change(folder, read, (("Be nice.", "Be cruel."),), None),
}


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("meanwhile", ["edited", "gone"])
def test_what_was_changed_since_it_was_read_stays(folder, act, meanwhile):
    [read] = read_principles(folder)
    write_principle(folder / "other.yaml", dataclasses.replace(KIND, id="other"))
    if meanwhile == "edited":
        reviewing.change(folder, read, OTHER, None)
    else:
        (folder / "kind.yaml").unlink()
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    with pytest.raises(Changed, match="kind@1 was changed meanwhile; read it again"):
        ACTS[act](folder, read)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


def test_reviews_that_came_meanwhile_are_kept(folder):
    [read] = read_principles(folder)
    reviewing.remark(folder, read, "Aiko", "Fine.")
    reviewing.decide(folder, read, "Ben", "approved", "")
    assert [review.reviewer for review in read_principles(folder)[0].reviews] == ["Aiko", "Ben"]


def test_many_writers_lose_nothing(folder):
    """Threads of one process, and another process beside them."""
    [read] = read_principles(folder)
    code = (
        "import sys; from pathlib import Path; from sami_jax.principles import reviewing, files\n"
        "folder = Path(sys.argv[1]); [read] = files.read_principles(folder)\n"
        "for n in range(6): reviewing.remark(folder, read, sys.argv[2], str(n))\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(folder), "p"]) as other:
        with concurrent.futures.ThreadPoolExecutor(6) as pool:
            list(pool.map(lambda n: reviewing.remark(folder, read, "t", str(n)), range(12)))
        assert other.wait(60) == 0
    [after] = read_principles(folder)
    said = sorted((review.reviewer, review.comment) for review in after.reviews)
    assert said == sorted([("t", str(n)) for n in range(12)] + [("p", str(n)) for n in range(6)])
