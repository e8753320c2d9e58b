"""Prompt templates with the fields {constitution} and {query}, and prompts of bounded length."""

import bisect

from sami_jax.errors import UserError

FIELDS = ("{constitution}", "{query}")


def check_template(template: str, where: str) -> None:
    """Raises UserError unless the template has both fields."""
    if missing := [field for field in FIELDS if field not in template]:
        raise UserError(f"{where}: the template lacks {missing[0]}; add the field where its text belongs")


def render(template: str, constitution: str, query: str) -> str:
    """Fills the fields. Braces in the texts themselves mean nothing."""
    before, after = template.split("{query}", 1)
    return before.replace("{constitution}", constitution) + query + after.replace("{constitution}", constitution)


def encode_prompt(tokenizer, template: str, constitution: str, query: str, max_tokens: int) -> tuple[list[int], int]:
    """Tokenises a prompt, cutting the end of the *query* where the whole would be too long.

    Returns:
      ids, at most `max_tokens`, and how many tokens the prompt lost.
    Raises:
      UserError: the template and constitution alone are too long.
    """

    def encoded(characters: int) -> list[int]:
        return tokenizer.encode(render(template, constitution, query[:characters]))

    whole = encoded(len(query))
    if len(whole) <= max_tokens:
        return whole, 0
    if (least := len(encoded(0))) > max_tokens:
        raise UserError(
            f"config.prompt: template and constitution alone take {least} tokens of {max_tokens}; "
            "raise config.prompt.max_tokens or shorten them"
        )
    # The longest beginning of the query that fits, in characters: cutting ids would re-tokenise decoded text.
    kept = bisect.bisect_right(range(len(query)), max_tokens, key=lambda characters: len(encoded(characters))) - 1
    ids = encoded(kept)
    return ids, len(whole) - len(ids)
