"""Prompt templates with the fields {constitution} and {query}, and prompts of bounded length."""

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
      ids, at most `max_tokens`, and how many of the query's tokens were cut.
    Raises:
      UserError: the template and constitution alone are too long.
    """
    ids = tokenizer.encode(render(template, constitution, query))
    if len(ids) <= max_tokens:
        return ids, 0
    query_ids = tokenizer.encode(query, add_special_tokens=False)
    kept = len(query_ids)
    while len(ids) > max_tokens:
        if kept == 0:
            raise UserError(
                f"config.prompt: template and constitution alone take {len(ids)} tokens of {max_tokens}; raise config.prompt.max_tokens or shorten them"
            )
        kept = max(0, kept - (len(ids) - max_tokens))
        ids = tokenizer.encode(render(template, constitution, tokenizer.decode(query_ids[:kept])))
    return ids, len(query_ids) - kept
