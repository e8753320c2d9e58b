"""What is measured of the answers that were drawn from a window."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

from sami_jax.errors import UserError
from sami_jax.evaluation.echo import echoes
from sami_jax.evaluation.judge import Judge, Reply
from sami_jax.evaluation.measure import share_followed
from sami_jax.evaluation.signs import repetition
from sami_jax.evaluation.well_formed import well_formed
from sami_jax.ground.terminal import say
from sami_jax.principles import constitutions as composing
from sami_jax.principles.checks.languages import language_of
from sami_jax.principles.checks.reply import LONGEST, words_of
from sami_jax.principles.constitutions import Constitution, Statement
from sami_jax.principles.principle import Principle
from sami_jax.watch.lines import Answer
from sami_jax.watch.tally import PRINCIPLE

Values = dict[str, float]  # by measure


class Measuring:
    """Of each answer its values; `Cell.measure` names them."""

    def __init__(
        self,
        principles: Sequence[Principle],
        judge: Judge | None,
        judged: int,
        masked: Callable[[str], str],
        cache: Path,
    ):
        """
        Args:
          judge: who decides what is followed; None: nobody.
          judged: answers of a window that a judge is asked about who has to be asked; others decide on all.
          masked: what such a judge is shown of a text.
          cache: where it keeps its replies, which nobody wants again: a window is judged once.
        """
        self._masked, self._cache = masked, cache
        self._principles, self._judge = principles, judge
        self._most = judged if judge and judge.most is not None else None
        self._sides = {
            words: (p.id, side == 0) for p in principles for pair in p.phrasings for side, words in enumerate(pair)
        }
        self.stated = functools.lru_cache(maxsize=1_000)(self._stated)

    def _stated(self, constitution: str) -> Constitution:
        """The statements of known principles that a constitution, or a system's turn around one, has; where it has none, every
        principle is held to be meant."""
        lines = [
            *composing.statements(constitution),
            *(line.lstrip("0123456789. -*") for line in constitution.splitlines()),
        ]
        found = {}
        for line in map(str.strip, lines):
            if side := self._sides.get(line):
                found.setdefault(side[0], Statement(*side, line))
        return tuple(found.values()) or tuple(Statement(p.id, True, p.phrasings[0][0]) for p in self._principles)

    def values(self, answers: Sequence[Answer]) -> list[Values]:
        """Of each answer; a measure that says nothing of it is absent."""
        found = [self.own(answer) for answer in answers]
        if self._judge:
            asked = [n for n, answer in enumerate(answers) if len(answer.response) <= LONGEST][: self._most]
            for place, verdict in zip(
                asked, self._verdicts([answers[n] for n in asked], [found[n] for n in asked]), strict=True
            ):
                found[place] |= {PRINCIPLE + id: float(follows) for id, follows in verdict.items()}
                if verdict:
                    found[place]["following"] = share_followed(verdict)
        return found

    def own(self, answer: Answer) -> Values:
        """What needs no judge."""
        text, query = answer.response[:LONGEST], answer.query[:LONGEST]
        found = {"repetition": repetition([word.casefold() for word in words_of(text)])}
        if answer.constitution:
            found["echo"] = float(echoes(text, answer.constitution))
        if (asked := language_of(query)) and (said := language_of(text)):
            found["language"] = float(asked == said)
        if self._judge:
            whole = self._judge.well_formed(
                Reply(query, self.stated(answer.constitution), text, answer.ended is not False)
            )
        else:
            whole = well_formed(query, text, answer.ended, answer.constitution)
        return found | {"well_formed": float(whole and not found.get("echo"))}

    def _verdicts(self, answers: Sequence[Answer], values: Sequence[Values]) -> list[dict[str, bool]]:
        """As of `Judge.followed`; an echo follows nothing. A judge that fails costs the window its verdicts, not the watch its life."""
        if not self._judge:
            return []
        shown = self._masked if self._judge.most is not None else str
        replies = [
            Reply(shown(one.query), self.stated(one.constitution), shown(one.response), one.ended is not False)
            for one in answers
        ]
        found = [
            {s.id: False for s in reply.constitution if self._judge.knows(s.id)} if own.get("echo") else None
            for reply, own in zip(replies, values, strict=True)
        ]
        asked = [reply for reply, echo in zip(replies, found, strict=True) if echo is None]
        try:
            told = iter(self._judge.followed(asked))
        except UserError as error:
            say(f"a window without verdicts: {error}")
            return [{} for _ in replies]
        finally:
            self._cache.unlink(missing_ok=True)
        return [next(told) if verdict is None else verdict for verdict in found]
