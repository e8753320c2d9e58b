"""Responses on file: a stopped run goes on where it was, and ends in the same lines."""

from pathlib import Path

import pytest
from support.small_model import SMALL

from sami_jax.config import defaults
from sami_jax.data import jsonl
from sami_jax.data.jsonl import write_jsonl
from sami_jax.models.pretrained import ModelFolder
from sami_jax.sampling.drawing import SamplingOptions
from sami_jax.sampling.rollout import held_against_opposites, seeds, write_responses
from sami_jax.sampling.samplers import OwnSampler, Prompt


class Letters:
    """A tokenizer that writes each id as one character."""

    def decode(self, ids, skip_special_tokens):
        return "".join(chr(0x3042 + i) for i in ids)

    def encode(self, text, add_special_tokens):
        return [*text]


MODEL = ModelFolder(Path("none"), SMALL, Letters(), (0,))
PROMPTS = [Prompt({"id": n}, list(range(1, 3 + n)), seed) for n, seed in enumerate(seeds("test", 6))]


@pytest.fixture
def write(small_params, mesh):
    def write(file: Path, *filters):
        options = SamplingOptions()
        sampler = OwnSampler(MODEL, small_params, mesh, 4)
        return write_responses(file, sampler, PROMPTS, options, "sampling", *filters)

    return write


@pytest.mark.parametrize("kept", [0, 1, 5])
def test_a_stopped_file_is_continued_to_the_same_lines(write, tmp_path, kept):
    rows = write(tmp_path / "whole.jsonl")
    whole = (tmp_path / "whole.jsonl").read_bytes()
    lines = whole.split(b"\n")
    torn = b"\n".join([*lines[:kept], lines[kept][:7]])
    (tmp_path / "stopped.jsonl.partial").write_bytes(torn)
    assert write(tmp_path / "stopped.jsonl") == rows
    assert (tmp_path / "stopped.jsonl").read_bytes() == whole
    assert not (tmp_path / "stopped.jsonl.partial").exists()


def test_what_was_sampled_is_on_storage_that_gets_files_when_they_are_closed(write, tmp_path, monkeypatch):
    """gcsfuse uploads on close alone: a machine that is lost takes what came after the last one with it, and no more than a minute's."""
    uploaded, opened = [], open
    now = iter(range(0, 10_000, 25))  # seconds, at each look at the clock

    class Fuse:
        """A file of which the storage has what was written when it was closed."""

        def __init__(self, *arguments, **options):
            self._file = opened(*arguments, **options)

        def write(self, text):
            return self._file.write(text)

        def flush(self):
            self._file.flush()

        def close(self):
            self._file.close()
            uploaded.append(Path(self._file.name).read_bytes().count(b"\n"))

    monkeypatch.setattr(jsonl.time, "monotonic", lambda: next(now))
    monkeypatch.setattr(jsonl, "open", Fuse, raising=False)
    monkeypatch.setattr(jsonl, "replace_text", lambda file, text: file.write_text(text))
    assert len(write(tmp_path / "whole.jsonl")) == 6
    # Opened at 0 s, lines at 25, 50, 75: closed after the third.
    assert uploaded == [3, 6]


def test_a_whole_file_is_read_back(write, tmp_path):
    rows = [{"id": n, "response": "from before"} for n in range(6)]
    write_jsonl(tmp_path / "whole.jsonl", rows)
    assert write(tmp_path / "whole.jsonl") == rows


@pytest.mark.parametrize("name", ["file.jsonl", "file.jsonl.partial"])
@pytest.mark.parametrize("ids", [[5, 4, 3, 2, 1, 0], [0, 1, 2, 3, 4, 7], [0, 9], [*range(7)]])
def test_responses_to_other_prompts_are_not_taken(write, tmp_path, name, ids, capsys):
    write_jsonl(tmp_path / name, [{"id": n, "response": "from before"} for n in ids])
    assert write(tmp_path / "file.jsonl") == write(tmp_path / "undisturbed.jsonl")
    assert f"{name}: answers other prompts than those of this run; begun anew" in capsys.readouterr().err


def test_rows_hold_the_ids_that_were_sampled(write, tmp_path):
    for row in write(tmp_path / "file.jsonl"):
        ended = row["finish_reason"] == "stop"
        said = row["token_ids"][: len(row["token_ids"]) - ended]
        assert MODEL.decode(said) == row["response"] and len(said) == row["tokens"]
        assert not ended or row["token_ids"][-1] == 0


def test_thinking_is_kept_apart_and_not_counted(write, tmp_path):
    whole = write(tmp_path / "whole.jsonl", defaults().filter)
    filters = defaults().filter
    filters.keep_after = whole[0]["response"][5]
    rows = write(tmp_path / "apart.jsonl", filters)
    for row, one in zip(rows, whole, strict=True):
        assert row["thinking"] + row["response"] == one["response"] and row["sampled_tokens"] == one["tokens"]
        assert row["tokens"] == len(row["response"])
        assert row.get("token_ids", []) == (one["token_ids"][len(row["thinking"]) :] if row["response"] else [])
        assert filters.keep_after not in row["response"]
    assert 0 < rows[0]["tokens"] < whole[0]["tokens"]


def test_seeds_depend_on_the_root_and_the_place():
    assert seeds("a", 5)[:3] == seeds("a", 3) and seeds("a", 5) != seeds("b", 5)
    assert len(set(seeds("a", 1000))) > 990


def test_a_stopped_file_of_contrasted_responses_is_continued(small_params, mesh, tmp_path):
    prompts = held_against_opposites(PROMPTS)
    assert [prompt.against for prompt in prompts[:2]] == [PROMPTS[1].ids, PROMPTS[0].ids]
    sampler, given = OwnSampler(MODEL, small_params, mesh, 4), (SamplingOptions(contrast=1.0), "sampling")
    rows = write_responses(tmp_path / "whole.jsonl", sampler, prompts, *given)
    lines = (tmp_path / "whole.jsonl").read_bytes().split(b"\n")
    (tmp_path / "stopped.jsonl.partial").write_bytes(b"\n".join([*lines[:3], lines[3][:7]]))
    assert write_responses(tmp_path / "stopped.jsonl", sampler, prompts, *given) == rows
