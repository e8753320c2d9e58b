"""The checks that the functions share, and the token ids of what they are given."""

import sys
from collections.abc import Sequence

from sami_jax.api.model import Model
from sami_jax.data.batches import ContrastExample
from sami_jax.data.pairs import encode_pairs
from sami_jax.data.replies import Reply
from sami_jax.data.templates import check_template
from sami_jax.errors import UserError
from sami_jax.miniature.world import PROMPT

UNCUT = sys.maxsize  # tokens of a prompt; what is too long is refused here

Texts = Sequence[Sequence[str]]  # [B][C]


def encode_examples(
    model: Model,
    queries: Sequence[str],
    constitutions: Texts,
    responses: Texts,
    template: str | None,
    end_token: int | None = None,
) -> list[ContrastExample]:
    """The token ids of B queries with C prompts and C responses each, checked."""
    check_rows(len(queries), constitutions=constitutions, responses=responses)
    counts = {len(own) for own in (*constitutions, *responses)}
    if len(counts) != 1:
        raise UserError(f"each query needs the same number of constitutions and responses, not {sorted(counts)}")
    rows = [
        {
            "query": query,
            "constitutions": own,
            "responses": said,
            "finish_reasons": [text.finish_reason if isinstance(text, Reply) else "stop" for text in said],
            "token_ids": list(map(sampled, said)),
        }
        for query, own, said in zip(queries, constitutions, responses, strict=True)
    ]
    examples = encode_pairs(rows, model.files.replies(end_token), checked_template(model, template), UNCUT).examples
    for b, example in enumerate(examples):
        if not all(text.strip() for text in responses[b]):
            raise UserError(f"responses[{b}]: one is empty; leave the query out, or give the text")
        check_length(model, example.longest_text, f"queries[{b}]: prompt and response")
    return examples


def sampled(text: str) -> tuple[int, ...]:
    """The ids of a response of `sample`; () of any other text."""
    return text.token_ids if isinstance(text, Reply) else ()


def checked_template(model: Model, template: str | None) -> str:
    if template is None:
        return "{query}" if model.files.chat else PROMPT
    check_template(template, "template", model.files.chat.system if model.files.chat else "")
    return template


def check_rows(queries: int, **lists: Texts) -> None:
    if not queries:
        raise UserError("queries: there are none; give one at least")
    for name, rows in lists.items():
        if isinstance(rows, str) or any(isinstance(row, str) for row in rows):
            raise UserError(f"{name}: must be a list for each query, [B][C] texts")
        if len(rows) != queries:
            raise UserError(f"{name}: {len(rows)} lists for {queries} queries; give one for each query")


def check_length(model: Model, tokens: int, what: str) -> None:
    limit = model.files.config.max_positions
    if tokens > limit:
        raise UserError(f"{what} take {tokens} tokens, the model's context has {limit}; shorten them")


def check_batch_size(batch_size: int) -> None:
    if batch_size < 1:
        raise UserError(f"batch_size={batch_size}: must be at least 1")
