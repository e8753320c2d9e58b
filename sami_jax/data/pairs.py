"""Pairs to train on, a query with its constitutions and responses: cleaned, read from a file, encoded."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from ml_collections import ConfigDict

from sami_jax.data.batches import ContrastExample
from sami_jax.data.dialogue import of_row
from sami_jax.data.fields import BadRow, absent, list_in
from sami_jax.data.replies import Replies, sampled_lists
from sami_jax.data.rows import Skipped, read_rows
from sami_jax.data.templates import encode_prompt


def clean(response: str, config: ConfigDict) -> str:
    """Cuts a response at the first of `config.cut_at` and puts the primed words back in front."""
    cut = _cut(response, config)
    return config.prefix + (response if cut == len(response) else response[:cut].rstrip())


def set_apart(text: str, config: ConfigDict) -> tuple[str, str]:
    """A sampled text in two: what it thinks aloud, and the response, which follows the last `config.keep_after`.

    The two together are the text, letter by letter. Where nothing follows, or `keep_after` is missing, the response is "".
    What stands behind a cut does not count.
    """
    thinking, mark, said = text[: _cut(text, config)].rpartition(config.keep_after)
    if not mark or not said.strip():
        return text, ""
    response = text[len(thinking + mark) :].lstrip()
    return text[: len(text) - len(response)], response


def _cut(text: str, config: ConfigDict) -> int:
    """Where the first of `config.cut_at` begins, or the text's length."""
    return min((text.find(cut) for cut in config.cut_at if cut in text), default=len(text))


def read_pairs(file: Path, count: int, skipped: Skipped | None = None) -> list[dict]:
    """Reads and checks a file of pairs: {"query", "constitutions": [C], "responses": [C]} and, if there, "finish_reasons", "token_ids" and
    "turns".

    Args:
      skipped: takes bad lines; None refuses them.
    Raises:
      UserError: a line that lacks a key, has another C than `count`, or an empty text; names file and line.
    """

    def pair(row: dict) -> dict:
        if not isinstance(row["query"], str) or not row["query"].strip():
            raise BadRow("'query' holds no text", "; remove the line or give the text")
        ended = {} if absent(row.get("finish_reasons")) else {"finish_reasons": row["finish_reasons"]}
        listed = {key: row[key] for key in ("constitutions", "responses")} | ended
        for key, texts in listed.items():
            texts = list_in(texts)
            if not isinstance(texts, list) or len(texts) != count:
                raise BadRow(f"{key!r} must list {count} texts", " (config.constitutions.count); mend the line")
            if not all(isinstance(text, str) and text.strip() for text in texts):
                raise BadRow(f"{key!r} holds an empty text or none", "; remove the line or give the text")
            listed[key] = texts
        turns = [dataclasses.asdict(turn) for turn in of_row(row)]
        token_ids = sampled_lists(row.get("token_ids"), count)
        ended = {"finish_reasons": ["stop"] * count}
        return {"query": str(row["query"]), **ended, **listed, "turns": turns, "token_ids": token_ids}

    required = ("query", "constitutions", "responses")
    return [
        row for _, row in read_rows(file, (*required, "finish_reasons", "turns", "token_ids"), required, pair, skipped)
    ]


@dataclasses.dataclass(frozen=True)
class Encoded:
    """Pairs as token ids."""

    examples: list[ContrastExample]
    cut: int  # prompts whose query was cut to fit
    anew: int  # responses whose ids as sampled are not those of their text, which was encoded instead


def encode_pairs(rows: Sequence[dict], replies: Replies, template: str, max_tokens: int) -> Encoded:
    """Tokenises pairs, in a chat as its turns.

    Args:
      rows: {"query", "constitutions", "responses", "finish_reasons"}; "token_ids" of the responses, where they are known; and, of a
        dialogue, "turns".
      template: of the prompt, a run's `prompt.training` or `prompt.bare`; in a chat, of the user's last message.
      max_tokens: of a prompt.
    """
    examples, cut, anew = [], 0, 0
    for row in rows:
        prompts = []
        for constitution in row["constitutions"]:
            asked = (template, constitution, row["query"], max_tokens)
            ids, missing = encode_prompt(replies.tokenizer, *asked, replies.chat, of_row(row))
            prompts.append(tuple(ids))
            cut += missing > 0
        responses = []
        token_ids = row.get("token_ids") or [()] * len(row["responses"])
        for text, reason, sampled in zip(row["responses"], row["finish_reasons"], token_ids, strict=True):
            responses.append(tuple(replies.ids(text, reason, sampled)))
            anew += bool(sampled) and replies.spelling(text, sampled) is None
        examples.append(ContrastExample(tuple(prompts), tuple(responses)))
    return Encoded(examples, cut, anew)
