"""Prompt templates with the fields {constitution} and {query}, and prompts of bounded length. In a chat, the template is of the
user's message."""

import bisect
from collections.abc import Sequence

from ml_collections import ConfigDict

from sami_jax.data.chat import Chat
from sami_jax.data.dialogue import Message, transcript
from sami_jax.errors import UserError
from sami_jax.ground.terminal import say

FIELDS = ("{constitution}", "{query}")


def check_template(template: str, where: str, system: str = "") -> None:
    """Raises UserError unless the template has both fields; where the system's message of a chat states the constitution, only the
    query."""
    if "{constitution}" in system and "{constitution}" in template:
        raise UserError(
            f"{where}: the system's message states the constitution already; take {{constitution}} out of one of them, for example {where}='{{query}}'"
        )
    if missing := [field for field in FIELDS if field not in template and not (field == FIELDS[0] and field in system)]:
        raise UserError(f"{where}: the template lacks {missing[0]}; add the field where its text belongs")


def render(template: str, constitution: str, query: str) -> str:
    """Fills the fields. Braces in the texts themselves mean nothing."""
    before, after = template.split("{query}", 1)
    return before.replace("{constitution}", constitution) + query + after.replace("{constitution}", constitution)


def user_template(prompt: ConfigDict, use: str) -> str:
    """The template of the user's message in a chat: the run's own for `use`, "generation" or "training", or the bare query where the
    run's templates are whole prompts."""
    return prompt[use] if prompt.chat else "{query}"


def say_cut(prompt: ConfigDict, cut: int, of: str) -> None:
    """Says in how many prompts the query was cut, if in any."""
    if cut:
        say(f"  the query was cut to fit config.prompt.max_tokens={prompt.max_tokens} in {cut} of {of}")


def encode_prompt(
    tokenizer,
    template: str,
    constitution: str,
    query: str,
    max_tokens: int,
    chat: Chat | None = None,
    turns: Sequence[Message] = (),
) -> tuple[list[int], int]:
    """Tokenises a prompt. Where the whole would be too long, a dialogue loses its oldest turns; then the *query*, or the last turn,
    its end.

    Args:
      template: of the prompt; in a chat, of the user's last message.
      chat: of an instruct model; None where the prompt is a plain text.
      turns: of a query that is a dialogue, the last of them the user's; its text is then taken from them.
    Returns:
      ids, at most `max_tokens`, and how many tokens the prompt lost.
    Raises:
      UserError: the template and constitution alone are too long.
    """
    *before, last = turns or [Message("user", query)]
    query = last.content

    def encoded(characters: int) -> list[int]:
        asked = query[:characters]
        if chat:
            return chat.prompt(constitution, render(template, constitution, asked), before)
        text = transcript([*before, Message("user", asked)])
        return tokenizer.encode(render(template, constitution, text))

    whole = ids = encoded(len(query))
    while len(ids) > max_tokens and any(turn.role == "user" for turn in before):
        before = _without_oldest(before)
        ids = encoded(len(query))
    if len(ids) <= max_tokens:
        return ids, len(whole) - len(ids)
    if (least := len(encoded(0))) > max_tokens:
        raise UserError(
            f"config.prompt: template and constitution alone take {least} tokens of {max_tokens}; "
            "raise config.prompt.max_tokens or shorten them"
        )
    # The longest beginning of the query that fits, in characters: cutting ids would re-tokenise decoded text.
    kept = bisect.bisect_right(range(len(query)), max_tokens, key=lambda characters: len(encoded(characters))) - 1
    ids = encoded(kept)
    return ids, len(whole) - len(ids)


def _without_oldest(turns: Sequence[Message]) -> list[Message]:
    """Without the user's first turn and the replies to it; the system's stays."""
    users = [place for place, turn in enumerate(turns) if turn.role == "user"]
    rest = turns[users[1] :] if len(users) > 1 else ()
    return [*(turn for turn in turns[: users[0]] if turn.role == "system"), *rest]
