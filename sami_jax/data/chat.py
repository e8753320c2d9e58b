"""Chats: how an instruct model is asked, by its tokenizer's own chat template, as token ids.

Prompt and reply are told apart in ids: the reply is what the template puts behind the ids of the prompt for one. Templates
are rendered by transformers, in Jinja's sandbox. Control tokens that stand in a query or a reply as text stay text: nobody
forges a turn.
"""

import dataclasses
import itertools
from collections.abc import Sequence

from sami_jax.data.dialogue import Message
from sami_jax.errors import UserError


class Chat:
    """One tokenizer's chat template.

    Attributes:
      end_of_turn: id of the token that ends a reply; None where no reply can be told from its prompt.
    """

    def __init__(self, tokenizer, where: str, system: str = ""):
        """
        Args:
          tokenizer: transformers' PreTrainedTokenizerBase.
          where: its folder, for errors.
          system: the system's message, with the field {constitution}; "" sends none. Where the template has no such role,
            its text begins the user's message.
        Raises:
          UserError: no chat template, or one that cannot be rendered.
        """
        if not getattr(tokenizer, "chat_template", None):
            raise UserError(
                f"{where}: its tokenizer has no chat template; take an instruct model, or ask it without chat"
            )
        self.tokenizer, self.system, self._where = tokenizer, system, where
        self._asked = [Message("user", "a")]
        self._before = self._render(self._asked, reply=True)
        self._has_system = self._heeds_system()
        self.end_of_turn, self._behind = self._find_end()

    def prompt(self, constitution: str, asked: str, before: Sequence[Message] = ()) -> list[int]:
        """The ids of a conversation in which the user asks for a reply.

        Args:
          constitution: for the system's message.
          asked: the user's message.
          before: the turns before it. What the system says in them stands behind what it says of ours; neighbours of one role, which
            most templates refuse, are one turn.
        """
        system = [Message("system", self.system.replace("{constitution}", constitution))] if self.system else []
        turns = [*system, *before, Message("user", asked)]
        return self.encode(
            [
                Message(role, "\n\n".join(turn.content for turn in neighbours))
                for role, neighbours in itertools.groupby(turns, key=lambda turn: turn.role)
            ]
        )

    def encode(self, messages: Sequence[Message]) -> list[int]:
        """The ids of a conversation up to where the next reply begins.

        Raises:
          UserError: the template refuses the conversation, as most do where user and assistant do not take turns.
        """
        first, *others = messages
        if first.role == "system" and others and not self._has_system:
            messages = [Message(others[0].role, f"{first.content}\n\n{others[0].content}"), *others[1:]]
        return self._render(messages, reply=True)

    def reply(self, text: str) -> list[int]:
        """The ids of a reply as the template renders it, without its end of turn, whatever it replies to.

        White space around it is left out, as most templates do by themselves: one that puts a space before a reply would put it before
        the space that was sampled. A reply that begins with what would join the prompt's last token is tokenised apart.

        Raises:
          UserError: the template tells no reply from its prompt.
        """
        self.check_replies()
        if not (text := text.strip()):
            return []
        ids = self._render([*self._asked, Message("assistant", text)], reply=False)
        end = len(ids) - self._behind - 1
        if ids[: len(self._before)] != self._before or ids[end] != self.end_of_turn:
            return self.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
        return ids[len(self._before) : end]

    def check_replies(self) -> None:
        """Raises UserError where replies cannot be trained on: the template renders them otherwise than behind a prompt."""
        if self.end_of_turn is None:
            raise UserError(
                f"{self._where}: its chat template does not put a reply, closed by a token of its own, behind the prompt for one; "
                "mend chat_template.jinja, or train without chat"
            )

    def _render(self, messages: Sequence[Message], reply: bool) -> list[int]:
        """
        Args:
          reply: end with what asks for a reply.
        """
        try:
            return list(
                self.tokenizer.apply_chat_template(
                    list(map(dataclasses.asdict, messages)),
                    add_generation_prompt=reply,
                    sanitize_control_tokens=True,
                    return_dict=False,
                )
            )
        except Exception as error:  # a foreign template: it raises what it likes
            reason = " ".join(str(error).split())[:160]
            raise UserError(
                f"{self._where}: its chat template refuses a conversation ({reason}); mend the conversation or the template"
            ) from None

    def _heeds_system(self) -> bool:
        """Whether what the system says reaches the model: some templates refuse it, some leave it out."""
        try:
            one, other = (self._render([Message("system", text), *self._asked], reply=True) for text in ("a", "a a"))
        except UserError:
            return False
        return one != other

    def _find_end(self) -> tuple[int | None, int]:
        """The id that ends a reply, and how many ids the template puts behind it."""
        try:
            one, other = (
                self._render([*self._asked, Message("assistant", text)], reply=False) for text in ("a", "a a")
            )
        except UserError:
            return None, 0
        length = len(self._before)
        if not one[:length] == other[:length] == self._before:
            return None, 0
        pairs = zip(reversed(one[length:]), reversed(other[length:]), strict=False)
        common = [id for id, _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs)][::-1]
        special = {id for id, token in self.tokenizer.added_tokens_decoder.items() if token.special}
        special.discard(self.tokenizer.unk_token_id)
        place = next((place for place, id in enumerate(common) if id in special), None)
        return (None, 0) if place is None else (common[place], len(common) - place - 1)
