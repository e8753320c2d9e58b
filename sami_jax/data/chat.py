"""Chats: how an instruct model is asked, by its tokenizer's own chat template, as token ids.

Prompts are what transformers renders, in Jinja's sandbox; a reply is its text behind them, as a model samples it, into which the
template puts nothing. Special tokens that stand in a query or a reply as text stay text: nobody forges a turn. A template that asks for
the day is told one that the caller gives, so that a prompt is the same whenever and wherever it is rendered.
"""

import calendar
import dataclasses
import datetime
import itertools
import re
import string
from collections.abc import Sequence

from sami_jax.data.dialogue import Message
from sami_jax.errors import UserError

DATE = "2024-07-26"  # the one that Llama 3's templates state where nobody tells them the day
# Takes the place of the clock that transformers gives to templates, and which it lets nobody set. The end of its line is Jinja's.
CLOCK = """\
{% macro strftime_now(format) %}{% set said = namespace(text=format) %}{% for code, value in clock_codes.items() %}\
{% set said.text = said.text.replace(code, value) %}{% endfor %}{{ said.text }}{% endmacro %}
"""
RANDOM = re.compile(r"\|\s*random\b|\blipsum\b")  # what Jinja has that is never the same


class Chat:
    """One tokenizer's chat template.

    Attributes:
      end_of_turn: id of the token that ends a reply; None where the template closes none.
      date: what the template states, YYYY-MM-DD; None where it asks for no date.
    """

    def __init__(self, tokenizer, where: str, system: str = "", date: str = DATE):
        """
        Args:
          tokenizer: transformers' PreTrainedTokenizerBase.
          where: its folder, for errors.
          system: the system's message, with the field {constitution}; "" sends none. Where the template has no such role,
            its text begins the user's message.
          date: what the template is told where it asks for the day, YYYY-MM-DD.
        Raises:
          UserError: no chat template, one that cannot be rendered, or one that draws at random.
        """
        if not getattr(tokenizer, "chat_template", None):
            raise UserError(
                f"{where}: its tokenizer has no chat template; take an instruct model, or ask it without chat"
            )
        self.tokenizer, self.system, self._where = tokenizer, system, where
        self._template = self._read_template()
        if not is_date(date):
            raise UserError(f"date {date!r:.40}: must be a date, YYYY-MM-DD")
        self.date = date if "strftime_now" in self._template else None
        self._clock = {}
        if self.date:
            self._clock = {"clock_codes": _clock_codes(datetime.date.fromisoformat(self.date), self._template)}
            self._template = CLOCK + self._template
        self._asked = [Message("user", "a")]
        self._before = self._render(self._asked, reply=True)
        self._has_system = self._heeds_system()
        self.end_of_turn, self._lead = self._find_reply()

    def prompt(self, constitution: str, asked: str, before: Sequence[Message] = ()) -> list[int]:
        """The ids of a conversation in which the user asks for a reply.

        Args:
          constitution: for the system's message; "" states none.
          asked: the user's message.
          before: the turns before it. What the system says in them stands behind what it says of ours; neighbours of one role, which
            most templates refuse, are one turn.
        """
        said = self.system.replace("{constitution}", constitution)
        said = said if constitution else said.strip()
        system = [Message("system", said)] if said else []
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
        """The ids of a reply behind a prompt, whatever it replies to, without an end of turn: those a model samples that writes the text.

        The text stays as it is. Added tokens that are not special, as marks of thoughts and tool calls often are, are tokens.

        Raises:
          UserError: the template closes no reply.
        """
        self.check_replies()
        return self._behind_prompt(text if text[:1].isspace() else self._lead + text) if text else []

    def check_replies(self) -> None:
        """Raises UserError where replies cannot be trained on: nothing tells where they end."""
        if self.end_of_turn is None:
            raise UserError(
                f"{self._where}: its chat template does not put a reply, closed by a token of its own, behind what it replies to; "
                "mend chat_template.jinja, or train without chat"
            )

    def _read_template(self) -> str:
        try:
            template = self.tokenizer.get_chat_template()
        except ValueError as error:  # several, and none of them called "default"
            reason = " ".join(str(error).split())[:160]
            raise UserError(f"{self._where}: no chat template to ask by ({reason}); leave one of them") from None
        if found := RANDOM.search(template):
            raise UserError(
                f"{self._where}: its chat template draws at random ({found[0]}), no two prompts would be equal; mend chat_template.jinja"
            )
        return template

    def _render(self, messages: Sequence[Message], reply: bool) -> list[int]:
        """
        Args:
          reply: end with what asks for a reply.
        """
        try:
            return list(
                self.tokenizer.apply_chat_template(
                    list(map(dataclasses.asdict, messages)),
                    chat_template=self._template,
                    add_generation_prompt=reply,
                    sanitize_control_tokens=True,
                    return_dict=False,
                    **self._clock,
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

    def _find_reply(self) -> tuple[int | None, str]:
        """The id that ends a reply, and the space that the template puts before one, "" or " ".

        Both are told from how it renders "a". What else it puts there, as an empty thought, nobody sampled.
        """
        try:
            one, other = (
                self._render([*self._asked, Message("assistant", text)], reply=False) for text in ("a", "a a")
            )
        except UserError:
            return None, ""
        if one == other:  # replies are left out
            return None, ""
        pairs = zip(reversed(one), reversed(other), strict=False)
        common = [id for id, _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs)][::-1]
        special = {id for id, token in self.tokenizer.added_tokens_decoder.items() if token.special}
        special.discard(self.tokenizer.unk_token_id)
        place = next((place for place, id in enumerate(common) if id in special), None)
        if place is None:
            return None, ""
        length, end = len(self._before), len(one) - len(common) + place
        rendered = one[length:end] if one[:length] == self._before else []
        return one[end], next((lead for lead in ("", " ") if self._behind_prompt(f"{lead}a") == rendered), "")

    def _behind_prompt(self, text: str) -> list[int]:
        """The ids of a text that does not begin a document: some tokenizers put a space before what does."""
        options = {"add_special_tokens": False, "split_special_tokens": True}
        end_of_line = self.tokenizer.encode("\n", **options)
        ids = self.tokenizer.encode(f"\n{text}", **options)
        if ids[: len(end_of_line)] == end_of_line:
            return ids[len(end_of_line) :]
        return self.tokenizer.encode(text, **options)  # the ends of lines have joined


def is_date(text: str) -> bool:
    """Whether it is a date, YYYY-MM-DD."""
    try:
        return datetime.date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def _clock_codes(day: datetime.date, template: str) -> dict[str, str]:
    """What stands for each code of strftime that the template names, at midnight, in no time zone."""
    moment = datetime.datetime.combine(day, datetime.time())
    codes = [f"%{flag}{letter}" for flag in ("", *"-_^#0") for letter in string.ascii_letters]
    known = {code: moment.strftime(code) for code in codes if code in template}
    if "%s" in known:
        known["%s"] = str(calendar.timegm(day.timetuple()))  # strftime's depends on the time zone
    return {"%%": "\0", **known, "\0": "%"}
