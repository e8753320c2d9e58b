"""Sampling to a file: one line a response, kept as they come, so that a stopped run goes on where it was."""

import dataclasses
import functools
import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from sami_jax.data.jsonl import Appended, read_appended, read_jsonl, write_jsonl
from sami_jax.data.pairs import set_apart
from sami_jax.data.replies import spelt_by
from sami_jax.ground import hosts
from sami_jax.ground.progress import track
from sami_jax.ground.terminal import say
from sami_jax.models.pretrained import ModelFolder
from sami_jax.sampling.decoding import Response
from sami_jax.sampling.drawing import SamplingOptions
from sami_jax.sampling.samplers import Prompt, Sampler


def held_against_opposites(prompts: Sequence[Prompt]) -> list[Prompt]:
    """Prompts that come in pairs, of a constitution and its opposite, each held against the other: as the rule 'complement' composes
    them."""
    return [dataclasses.replace(prompt, against=prompts[place ^ 1].ids) for place, prompt in enumerate(prompts)]


def seeds(root: str, count: int) -> list[int]:
    """`count` sampling seeds that depend on the text `root` and their place alone."""
    entropy = [int.from_bytes(root.encode(), "little"), 0x5A41]
    return np.random.SeedSequence(entropy).generate_state(max(count, 1), np.uint32)[:count].tolist()


def write_responses(
    file: Path,
    sampler: Sampler,
    prompts: Sequence[Prompt],
    options: SamplingOptions,
    title: str,
    filters: ConfigDict | None = None,
) -> list[dict]:
    """Samples a response to each prompt and writes {**key, "response", "tokens", "finish_reason", "token_ids"} lines, in order.

    A whole `file` is read back instead; a partial one left by a stopped run is continued, which gives the same lines as
    an undisturbed run, where what a prompt's seed draws does not depend on its batch, as with our own sampler. Where what is there
    answers other prompts, as that of a run that was made otherwise may, it is begun anew.

    With `filters.keep_after`, "response", "tokens" and "token_ids" are of what follows it, all that anybody scores, judges or shows;
    "thinking" holds what comes before, so that both together are the text as it was sampled, of "sampled_tokens" tokens.

    Args:
      title: of the progress bar.
      filters: a run's `filter`; None where responses are whole texts.
    """
    if hosts.once(lambda: _is_whole(file, prompts)):
        return read_jsonl(file)
    partial = file.with_name(file.name + ".partial")
    done = hosts.once(lambda: _whole_lines(partial, prompts))
    waiting, model = prompts[done:], sampler.model
    with Appended(partial if hosts.first() else os.devnull) as lines:
        decode = functools.partial(model.decode, behind=filters.prefix) if filters else model.decode
        responses = sampler.responses(waiting, options, decode)
        responses = track(responses, title, len(prompts), done, tokens=lambda response: response.tokens)
        for prompt, response in zip(waiting, responses, strict=True):
            row = {**prompt.key, **_row(response, model, filters)}
            lines.add(row)
    hosts.once(lambda: os.replace(partial, file))
    return read_jsonl(file)


def _row(response: Response, model: ModelFolder, filters: ConfigDict | None) -> dict:
    said, tokens, token_ids, thoughts = response.text, response.tokens, list(response.token_ids), {}
    if filters and filters.keep_after:
        thinking, said = set_apart(response.text, filters)
        thoughts = {"thinking": thinking, "sampled_tokens": tokens}
        # Where thoughts end within a token, the response has no ids of its own.
        before = spelt_by(model.decode, token_ids, thinking) if said else None
        token_ids = [] if before is None else token_ids[before:]
        tokens = tokens - before if before is not None else len(model.tokenizer.encode(said, add_special_tokens=False))
    row = {"response": said, "tokens": tokens, **thoughts, "finish_reason": response.finish_reason}
    return row | ({"token_ids": token_ids} if token_ids else {})


def _is_whole(file: Path, prompts: Sequence[Prompt]) -> bool:
    """Whether the file is there and answers the prompts; one that answers others is taken away."""
    if not file.exists():
        return False
    rows = read_jsonl(file)
    if len(rows) == len(prompts) and _answers(rows, prompts):
        return True
    _begin_anew(file)
    return False


def _whole_lines(partial: Path, prompts: Sequence[Prompt]) -> int:
    """Takes a torn last line off a stopped run's file, and all of it where it answers other prompts; how many lines are left."""
    rows = read_appended(partial)
    if len(rows) > len(prompts) or not _answers(rows, prompts):
        _begin_anew(partial)
        rows = []
    write_jsonl(partial, rows)
    return len(rows)


def _answers(rows: Sequence[dict], prompts: Sequence[Prompt]) -> bool:
    """Whether the rows are responses to the first of the prompts."""
    asked = (json.loads(json.dumps(prompt.key)) for prompt in prompts)
    return all(key.items() <= row.items() for row, key in zip(rows, asked, strict=False))


def _begin_anew(file: Path) -> None:
    say(f"  {file}: answers other prompts than those of this run; begun anew")
    file.unlink()
