"""The check of a principle: how a response shows that it follows the principle, and how that it follows the antithesis.

check:
  principle:
    sentences: {at_most: 2}
  antithesis:
    - sentences: {at_least: 5}
    - contains_none: [in short, to sum up]
"""

import dataclasses
import functools
import json

from sami_jax.errors import UserError
from sami_jax.ground.digests import json_digest
from sami_jax.principles.checks.conditions import Node, canonical, read_side
from sami_jax.principles.checks.reply import Reply

SIDES = ("principle", "antithesis")


@dataclasses.dataclass(frozen=True)
class Checks:
    """Both sides of one principle's check."""

    content: str  # as canonical JSON

    @classmethod
    def parse(cls, content, where: str) -> "Checks":
        """
        Args:
          content: of `check:` in a principle's file.
          where: the file; begins each message.
        Raises:
          UserError: it is no check; names where in it, and what to write.
        """
        if not isinstance(content, dict) or not content:
            raise UserError(f"{where}: check: needs the sides principle and antithesis, not {content!r:.40}")
        if unknown := [key for key in content if key not in SIDES]:
            raise UserError(f"{where}: check: unknown side {unknown[0]!r:.40}; known: {', '.join(SIDES)}")
        if missing := [side for side in SIDES if side not in content]:
            raise UserError(f"{where}: check: the side {missing[0]} is missing; say how a response shows it")
        for side in SIDES:
            read_side(content[side], f"{where}: check.{side}")
        return cls(canonical({side: content[side] for side in SIDES}))

    @property
    def sides(self) -> dict:
        """As they stand in the file."""
        content = json.loads(self.content)
        return {side: content[side] for side in SIDES}

    @property
    def digest(self) -> str:
        """SHA-256 of what is asked of both sides: another digest is another measurement."""
        return "sha256:" + json_digest(self.sides)

    def follows(self, response: str, side: bool, prompt: str = "") -> bool:
        """Whether a response follows the principle (True) or the antithesis (False); one without letters or digits follows neither.

        Args:
          prompt: what was asked, for conditions on that.
        Raises:
          UserError: the response is longer than `reply.LONGEST`.
        """
        reply = _reply(response, prompt)
        return bool(reply.words) and self.node(side).holds(reply)

    def node(self, side: bool) -> Node:
        return _nodes(self.content)[0 if side else 1]


@functools.lru_cache(maxsize=256)
def _nodes(content: str) -> tuple[Node, Node]:
    sides = json.loads(content)
    return read_side(sides["principle"], "check.principle"), read_side(sides["antithesis"], "check.antithesis")


@functools.lru_cache(maxsize=8)
def _reply(response: str, prompt: str) -> Reply:
    """A response is taken apart once, however many principles it is held against."""
    return Reply(response, prompt)
