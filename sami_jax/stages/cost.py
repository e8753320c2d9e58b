"""What it took to make a run's models: tokens in forward passes, and seconds."""

import itertools
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from ml_collections import ConfigDict

from sami_jax.data.batches import ContrastExample
from sami_jax.data.jsonl import read_appended, read_jsonl
from sami_jax.data.templates import encode_prompt
from sami_jax.provenance.audit import read_audit
from sami_jax.provenance.manifest import AUDIT
from sami_jax.stages.finetuning import batches_of, examples_of
from sami_jax.stages.metrics import METRICS
from sami_jax.stages.preparation import Inputs

MAKING = ("sampled", "trained")  # events of the audit log that end what is counted


def forward_tokens(config: ConfigDict, inputs: Inputs, workdir: Path) -> int:
    """Tokens that went forward through a model while a run was made: prompts and replies sampled for training, rows of its updates, and of
    these again what the base reads. Backward passes, canaries and evaluation are not counted, nor is padding."""
    total = 0
    for folder in sorted(workdir.glob("iteration_[1-9]*")):
        if (folder / "responses.jsonl").is_file():
            total += _sampled(config, inputs, folder / "responses.jsonl")
        if updates := max((row["step"] for row in read_appended(folder / METRICS)), default=0):
            iteration = int(folder.name.removeprefix("iteration_"))
            batches = batches_of(config, examples_of(config, inputs, folder / "pairs.jsonl"), iteration)
            total += sum(_trained(config, batches.examples(index)) for index in range(updates))
    return total


def _sampled(config: ConfigDict, inputs: Inputs, file: Path) -> int:
    queries, base, total = {query.id: query for query in inputs.queries}, inputs.base, 0
    for row in read_jsonl(file):
        # A query that comes again is numbered.
        query = queries.get(row["id"]) or queries[row["id"].rpartition("#")[0]]
        asked = (config.prompt.generation, row["constitution"], query.text, config.prompt.max_tokens)
        ids, _ = encode_prompt(base.tokenizer, *asked, base.chat, query.turns)
        total += len(ids) + row["tokens"]
    return total


def _trained(config: ConfigDict, examples: Sequence[ContrastExample]) -> int:
    whole = sum(example.tokens for example in examples)
    if config.objective.over_base:
        return 2 * whole
    if config.objective.kl_weight:  # the base reads each prompt with its own response
        return whole + sum(len(ids) for example in examples for ids in (*example.prompts, *example.responses))
    return whole


def seconds(workdir: Path) -> float:
    """Of sampling and training, as the audit log has them to a second; what a run lost when it was stopped is left out."""
    events = read_audit(workdir / AUDIT)
    pairs = [pair for pair in itertools.pairwise(events) if pair[1]["event"] in MAKING]
    return sum(
        (datetime.fromisoformat(b["time"]) - datetime.fromisoformat(a["time"])).total_seconds() for a, b in pairs
    )
