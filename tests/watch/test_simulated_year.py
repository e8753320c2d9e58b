"""A year in small: answers of the miniature's world, read, measured, judged and held against limits. The whole: benchmarks/watch.py."""

import copy

import pytest
from support.quick import others_slow

from benchmarks import watch


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(watch, "WINDOW", 100)
    monkeypatch.setattr(watch, "FIRST", 12)


@pytest.mark.parametrize("traffic", others_slow(watch.TRAFFIC, "even"))
def test_faults_are_noticed_and_nothing_else(tmp_path, small, traffic):
    reference, speaker = tmp_path / "reference", watch.Speaker("year", watch.TRAFFIC[traffic])
    assert not any(new for new in watch.new_watch(reference).watch(speaker.lines(100 * watch.FIRST)))
    journal = (reference / "watch.jsonl").read_text(encoding="utf-8")
    sound = watch.new_watch(reference)
    assert not any(new for new in sound.watch(copy.deepcopy(speaker).lines(100 * 8)))
    assert sound.windows == watch.FIRST + 8 and sound.control.tests > 200
    for name in ("the base model is served", "answers are a third longer", "another language, a tenth of the answers"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "watch.jsonl").write_text(journal, encoding="utf-8")
        assert (watch.noticed(folder, copy.deepcopy(speaker), *watch.FAULTS[name])[1] or 99) <= 5, name
