"""A/B proof: two models answer the same held-out queries under the same principles, a judge decides, a plan made beforehand rules.

The plan (models, queries, principles, judge, margin, invalid verdicts, number) is hashed into the manifest before the first response is sampled.
"""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

from ml_collections import ConfigDict

from sami_jax.data.fields import BadRow
from sami_jax.data.pairs import clean
from sami_jax.data.queries import Query
from sami_jax.data.rows import read_rows
from sami_jax.data.templates import encode_prompt, render, user_template
from sami_jax.errors import UserError
from sami_jax.evaluation.pairs import Pair
from sami_jax.evaluation.statistics import CONFIDENCE, mean_interval, required_queries
from sami_jax.evaluation.verdicts import Verdict, by_tag, summarize
from sami_jax.models.pretrained import ModelFolder
from sami_jax.principles import constitutions as composing
from sami_jax.principles.constitutions import Constitution
from sami_jax.principles.principle import Principle
from sami_jax.sampling.drawing import SamplingOptions
from sami_jax.sampling.rollout import seeds, write_responses
from sami_jax.sampling.samplers import Prompt, Sampler

SHIP, STAY, MORE = "ship", "do not ship", "not enough data"
LEAST = 0.01  # margin that a number of queries is told for, at least


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
    sampler: Sampler,
    file: Path,
) -> tuple[list[dict], int]:
    """The contestant's responses as sampled, kept in `file`, and in how many prompts the query was cut to fit.

    Each contestant draws by itself, so that a model against itself is a fair test.

    Args:
      sampler: of the contestant's model.
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
    title = f"answering: {contestant.role}"
    return write_responses(file, sampler, prompts, options, title, contestant.filters(config)), cut


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


def decide(verdicts: Sequence[Verdict], margin: float, most_invalid: float = 0.05) -> dict:
    """The verdict by the plan's rule, with what it rests on.

    Ship: the win rate's 95 % interval lies above one half, the exact sign test is below 5 %, and the rate reaches one half + margin.
    Do not ship: the interval lies below one half + margin, so whatever gain there is, is not worth it. Else, and where more
    verdicts are invalid than the plan allows, there is not enough data: replies that no judge can read are not missing by chance.

    Args:
      margin: the gain in win rate worth shipping for.
      most_invalid: share of the verdicts that may be invalid.
    Returns:
      {"decision", "reason", "win_rate": summary, "slices": {tag: summary}}.
    """
    found = summarize(verdicts, "half")
    decision, reason = _decide(verdicts, found, margin, most_invalid)
    return {"decision": decision, "reason": reason, "win_rate": found, "slices": by_tag(verdicts, "half")}


def _decide(verdicts: Sequence[Verdict], found: dict, margin: float, most_invalid: float) -> tuple[str, str]:
    rate, low, high = found["win_rate"], found["ci_low"], found["ci_high"]
    invalid, count = found["invalid"], found["n"]
    if rate is None:
        return MORE, "the judge gave no valid verdict"
    difference = "no difference shown" if low <= 0.5 <= high else "better" if low > 0.5 else "worse"
    shown = f"{difference}: wins {100 * rate:.1f} % (95 %: {100 * low:.1f} to {100 * high:.1f}) of {count - invalid}"
    if invalid > most_invalid * count:
        return MORE, (
            f"{shown}; but {invalid} of {count} verdicts are invalid, and the plan allows {100 * most_invalid:.3g} %: see the judge's "
            "replies in verdicts.jsonl, and mend the judge or take another"
        )
    if low > 0.5 and found["sign_test_p"] < 1 - CONFIDENCE and rate >= 0.5 + margin:
        return SHIP, shown
    if high < 0.5 + margin:
        return STAY, f"{shown}, a gain of {100 * margin:.3g} points is excluded"
    # As few ties as can be: with fewer of them, more queries are needed.
    ties = mean_interval([verdict.win == 0.5 for verdict in verdicts if verdict.win is not None])[1]
    gain, needed = shows(margin, ties)
    needed = math.ceil(needed / (1 - invalid / count))
    asked = len({verdict.id for verdict in verdicts} - {None}) or count
    claim = f"{needed} queries show a true gain of {100 * gain:.3g} points in 4 of 5 comparisons"
    return MORE, f"{shown}; {claim}" + (", so what gain there is is likely smaller" if asked >= needed else "")


def shows(margin: float, ties: float = 0.0) -> tuple[float, int]:
    """A gain in win rate, and after how many queries `decide` ships a model that has it in 4 of 5 comparisons.

    The gain is twice the margin, where there are that many wins: at a true gain of the margin itself, half of all comparisons
    find less, however many queries they ask.

    Args:
      ties: share of verdicts that are ties; none where nothing is known of them, which asks for the most queries.
    """
    gain = min(2 * max(margin, LEAST), (margin + 0.5) / 2)
    return gain, required_queries(gain, margin, min(ties, 1 - 2 * gain))
