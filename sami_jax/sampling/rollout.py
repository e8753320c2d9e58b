"""Sampling to a file: one line a response, kept as they come, so that a stopped run goes on where it was."""

import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from sami_jax.data.jsonl import read_appended, read_jsonl, write_jsonl
from sami_jax.data.pairs import set_apart
from sami_jax.ground import hosts
from sami_jax.ground.progress import track
from sami_jax.models.pretrained import ModelFolder
from sami_jax.sampling.decoding import Response, SamplingOptions, generate


@dataclasses.dataclass(frozen=True)
class Prompt:
    key: dict  # what the output line starts with, for example {"id": ..., "constitution": ...}
    ids: list[int]
    seed: int  # 0 <= seed < 2**32


def seeds(root: str, count: int) -> list[int]:
    """`count` sampling seeds that depend on the text `root` and their place alone."""
    entropy = [int.from_bytes(root.encode(), "little"), 0x5A41]
    return np.random.SeedSequence(entropy).generate_state(max(count, 1), np.uint32)[:count].tolist()


def write_responses(
    file: Path,
    model: ModelFolder,
    params: dict,
    prompts: Sequence[Prompt],
    options: SamplingOptions,
    mesh: jax.sharding.Mesh,
    batch_size: int,
    title: str,
    filters: ConfigDict | None = None,
) -> list[dict]:
    """Samples a response to each prompt and writes {**key, "response", "tokens", "finish_reason"} lines, in order.

    A whole `file` is read back instead; a partial one left by a stopped run is continued, which gives the same lines as
    an undisturbed run, for what a prompt's seed draws does not depend on its batch.

    With `filters.keep_after`, "response" and "tokens" are of what follows it, all that anybody scores, judges or shows;
    "thinking" holds what comes before, so that both together are the text as it was sampled, of "sampled_tokens" tokens.

    Args:
      title: of the progress bar.
      filters: a run's `filter`; None where responses are whole texts.
    """
    if hosts.once(file.exists):
        return read_jsonl(file)
    partial = file.with_name(file.name + ".partial")
    done = hosts.once(lambda: _whole_lines(partial))
    waiting = prompts[done:]
    with open(partial if hosts.first() else os.devnull, "a", encoding="utf-8") as stream:
        responses = generate(
            params,
            model.config,
            [prompt.ids for prompt in waiting],
            [prompt.seed for prompt in waiting],
            options,
            end_tokens=model.end_tokens,
            decode=model.decode,
            mesh=mesh,
            batch_size=batch_size,
        )
        responses = track(responses, title, len(prompts), done)
        for prompt, response in zip(waiting, responses, strict=True):
            row = {**prompt.key, **_texts(response, model, filters), "finish_reason": response.finish_reason}
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")
            stream.flush()
    hosts.once(lambda: os.replace(partial, file))
    return read_jsonl(file)


def _texts(response: Response, model: ModelFolder, filters: ConfigDict | None) -> dict:
    if filters is None or not filters.keep_after:
        return {"response": response.text, "tokens": response.tokens}
    thinking, said = set_apart(response.text, filters)
    tokens = len(model.tokenizer.encode(said, add_special_tokens=False))
    return {"response": said, "tokens": tokens, "thinking": thinking, "sampled_tokens": response.tokens}


def _whole_lines(partial: Path) -> int:
    """Takes a torn last line off a stopped run's file; how many are left."""
    rows = read_appended(partial)
    write_jsonl(partial, rows)
    return len(rows)
