"""A/B proof: two models answer the same held-out queries under the same principles, a judge decides, a plan made beforehand rules.

The plan (models, queries, principles, judge, margin, number) is hashed into the manifest before the first response is sampled.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import jax
from ml_collections import ConfigDict

from sami_jax.data.fields import BadRow
from sami_jax.data.pairs import clean
from sami_jax.data.queries import Query
from sami_jax.data.rows import read_rows
from sami_jax.data.templates import encode_prompt, render, user_template
from sami_jax.errors import UserError
from sami_jax.evaluation import statistics
from sami_jax.evaluation.pairs import Pair
from sami_jax.evaluation.verdicts import Verdict, by_tag, summarize
from sami_jax.models.pretrained import ModelFolder
from sami_jax.principles import constitutions as composing
from sami_jax.principles.constitutions import Constitution
from sami_jax.principles.principle import Principle
from sami_jax.sampling.decoding import SamplingOptions
from sami_jax.sampling.rollout import Prompt, seeds, write_responses

SHIP, STAY, MORE = "ship", "do not ship", "not enough data"


@dataclasses.dataclass(frozen=True)
class Contestant:
    """A model, and how it is asked: in a chat, where it chats."""

    role: str  # baseline | test
    model: ModelFolder
    examples: tuple[dict, ...] = ()  # {"query", "constitution", "response"} shown before each query

    def prompt(self, config: ConfigDict, constitution: str, query: Query) -> tuple[list[int], int]:
        """Token ids, and how many tokens of the query were cut to fit.

        Raises:
          UserError: a prompt longer than the model's context.
        """
        chat = self.model.chat
        template = user_template(config.prompt, "generation") if chat else config.prompt.generation
        if self.examples:
            shown = [render(template, one["constitution"], one["query"]) + one["response"] for one in self.examples]
            ids, cut = self.model.tokenizer.encode("\n\n".join([*shown, render(template, constitution, query.text)])), 0
        else:
            asked = (template, constitution, query.text, config.prompt.max_tokens)
            ids, cut = encode_prompt(self.model.tokenizer, *asked, chat, query.turns)
        if len(ids) + config.sampling.max_new_tokens > self.model.config.max_positions:
            raise UserError(
                f"{self.model.folder}: a prompt of {len(ids)} tokens and {config.sampling.max_new_tokens} new ones exceed its context of "
                f"{self.model.config.max_positions}; show fewer examples, or lower config.sampling.max_new_tokens"
            )
        return list(ids), cut

    def filters(self, config: ConfigDict) -> ConfigDict | None:
        """How its responses are cleaned: by the run's rule; None for a chat in a comparison of base models.

        That rule is of prompts that prime words, and whose responses run on; a chat's reply neither lacks words nor runs on.
        """
        return None if self.model.chat and not config.prompt.chat else config.filter


def read_examples(file: Path) -> tuple[dict, ...]:
    """In-context examples: {"query", "constitution", "response"} a row.

    Raises:
      UserError: a row that lacks one of these texts; names file and row.
    """
    keys = ("query", "constitution", "response")

    def example(row: dict) -> dict:
        if wrong := next((key for key in keys if not isinstance(row[key], str)), None):
            raise BadRow(f"{wrong!r} must be a text", "; mend the row")
        return row

    return tuple(row for _, row in read_rows(file, keys, keys, example))


def compose(config: ConfigDict, principles: Sequence[Principle], count: int) -> list[Constitution]:
    """For each of `count` queries, principles as they stand: a user of the model states no antithesis."""
    k = min(config.constitutions.principles, len(principles))
    root = f"{config.seed}/compare"
    return [composing.compose(principles, "positive_vs_rest", k, 1, root, i)[0] for i in range(count)]


def answer(
    config: ConfigDict,
    contestant: Contestant,
    queries: Sequence[Query],
    constitutions: Sequence[Constitution],
    mesh: jax.sharding.Mesh,
    file: Path,
) -> tuple[list[dict], int]:
    """The contestant's responses as sampled, kept in `file`, and in how many prompts the query was cut to fit.

    Each contestant draws by itself, so that a model against itself is a fair test.
    """
    texts = [composing.text(constitution) for constitution in constitutions]
    drawn = seeds(f"{config.seed}/compare/{contestant.role}", len(queries))
    prompts, cut = [], 0
    for query, text, seed in zip(queries, texts, drawn, strict=True):
        ids, missing = contestant.prompt(config, text, query)
        prompts.append(Prompt({"id": query.id, **query.row, "constitution": text}, ids, seed))
        cut += missing > 0
    e, s = config.evaluation, config.sampling
    options = SamplingOptions(e.temperature, e.top_p, s.top_k, s.max_new_tokens, tuple(s.stop))
    params = contestant.model.load(mesh, config.train.compute_dtype)
    sampling = (prompts, options, mesh, s.batch_size, f"answering: {contestant.role}")
    return write_responses(file, contestant.model, params, *sampling, contestant.filters(config)), cut


def judged_rows(config: ConfigDict, contestant: Contestant, sampled: Sequence[dict], unit: ModelFolder) -> list[dict]:
    """A contestant's responses as they are judged: cleaned by its own rule, "tokens" counted after that.

    Args:
      unit: the model whose tokens are counted; one for both contestants, or lengths could not be compared.
    """
    filters, rows = contestant.filters(config), []
    for row in sampled:
        text = clean(row["response"], filters) if filters else row["response"]
        given = {key: row[key] for key in ("id", "query", "turns", "constitution") if key in row}
        rows.append(given | {"response": text, "tokens": len(unit.tokenizer.encode(text, add_special_tokens=False))})
    return rows


def pair_up(
    queries: Sequence[Query],
    constitutions: Sequence[Constitution],
    baseline: Sequence[dict],
    test: Sequence[dict],
) -> list[Pair]:
    """What is judged, tagged with the principles stated and the query's own tags.

    Args:
      baseline, test: by `judged_rows`.
    """
    return [
        Pair(
            query.id,
            query.text,
            composing.text(constitution),
            one["response"],
            other["response"],
            (one["tokens"], other["tokens"]),
            (*(f"principle {statement.id}" for statement in constitution), *(f"query {tag}" for tag in query.tags)),
        )
        for query, constitution, one, other in zip(queries, constitutions, baseline, test, strict=True)
    ]


def decide(verdicts: Sequence[Verdict], margin: float) -> dict:
    """The verdict by the plan's rule, with what it rests on.

    Ship: the win rate's 95 % interval lies above one half, and the rate reaches one half + margin. Do not ship: the interval lies
    below one half + margin, so whatever gain there is, is not worth it. Else there is not enough data, and the number of queries
    that would show a gain of `margin` with 80 % probability is given.

    Returns:
      {"decision", "reason", "win_rate": summary, "slices": {tag: summary}}.
    """
    found = summarize(verdicts, "half")
    rate, low, high = found["win_rate"], found["ci_low"], found["ci_high"]
    if rate is None:
        return {"decision": MORE, "reason": "the judge gave no valid verdict", "win_rate": found, "slices": {}}
    shown = f"wins {100 * rate:.1f} % (95 %: {100 * low:.1f} to {100 * high:.1f}) of {found['n'] - found['invalid']}"
    difference = "no difference shown" if low <= 0.5 <= high else "better" if low > 0.5 else "worse"
    if low > 0.5 and rate >= 0.5 + margin:
        decision, reason = SHIP, f"{difference}: {shown}"
    elif high < 0.5 + margin:
        decision, reason = STAY, f"{difference}: {shown}, a gain of {100 * margin:.0f} points is excluded"
    else:
        ties = found["ties"] / max(found["n"] - found["invalid"], 1)
        needed = statistics.required_queries(0.5 + max(margin, 0.01), ties=min(ties, 0.9 - 2 * margin))
        decision, reason = (
            MORE,
            f"{difference}: {shown}; about {needed} queries would show a gain of {100 * margin:.0f} points",
        )
    return {"decision": decision, "reason": reason, "win_rate": found, "slices": by_tag(verdicts, "half")}
