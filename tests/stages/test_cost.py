"""What making a run's models took, counted anew from what the run left."""

import pytest
from support.short_run import SHORT

from sami_jax.config import load_config
from sami_jax.data.jsonl import read_jsonl
from sami_jax.miniature import world
from sami_jax.stages import cost
from sami_jax.stages.cost import forward_tokens
from sami_jax.stages.preparation import prepare


def short_config():
    """On eight devices."""
    return load_config(SHORT[0].removeprefix("--config="), [*SHORT[1:], "--config.train.microbatches=1"])[0]


@pytest.fixture(scope="module")
def inputs(undisturbed):
    return prepare(short_config(), undisturbed.workdir, allow_unapproved=False)


def count(inputs, undisturbed, base_reads) -> int:
    """
    Args:
      base_reads: of the prompts, the responses under each of them and the prompts with their own alone, how often.
    """
    tokenizer, total = inputs.base.tokenizer, 0
    queries = {query.id: query.text for query in inputs.queries}

    def prompt(constitution: str, query: str) -> int:
        return len(tokenizer.encode(world.PROMPT.format(constitution=constitution, query=query)))

    for n in (1, 2):
        folder = undisturbed.workdir / f"iteration_{n}"
        sampled = read_jsonl(folder / "responses.jsonl")
        total += sum(prompt(row["constitution"], queries[row["id"]]) + row["tokens"] for row in sampled)
        whole = own = 0
        for pair in read_jsonl(folder / "pairs.jsonl"):
            prompts = [prompt(constitution, queries[pair["id"]]) for constitution in pair["constitutions"]]
            ended = [reason == "stop" for reason in pair["finish_reasons"]]  # by a token that is not scored
            responses = [len(ids) - end for ids, end in zip(pair["token_ids"], ended, strict=True)]
            whole += sum(prompts) + 2 * sum(responses)
            own += sum(prompts) + sum(responses)
        total += whole + base_reads(whole, own)
    return total


@pytest.mark.parametrize(
    ("changes", "base_reads"),
    [
        ({}, lambda whole, own: own),
        ({"kl_weight": 0.0}, lambda whole, own: 0),
        ({"over_base": True}, lambda whole, own: whole),
    ],
)
def test_tokens(changes, base_reads, inputs, undisturbed):
    config = short_config()
    config.objective.update(changes)
    assert forward_tokens(config, inputs, undisturbed.workdir) == count(inputs, undisturbed, base_reads)


def test_seconds_leave_out_what_a_stop_lost(monkeypatch, tmp_path):
    happened = [("begun", 0), ("evaluated", 10), ("sampled", 14), ("continued", 60), ("trained", 63), ("evaluated", 70)]
    events = [{"event": event, "time": f"2026-11-24T10:{at // 60:02}:{at % 60:02}+00:00"} for event, at in happened]
    monkeypatch.setattr(cost, "read_audit", lambda file: events)
    assert cost.seconds(tmp_path) == 4 + 3
