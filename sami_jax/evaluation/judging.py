"""Judging pairs: every pair in both orders, every verdict kept as it comes."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from sami_jax.data.jsonl import write_jsonl
from sami_jax.evaluation.asking import Answer, Asked, cached_replies, reason_of
from sami_jax.evaluation.echo import echoes
from sami_jax.evaluation.judge import Judge, Reply
from sami_jax.evaluation.pairs import Pair, Question, orders, read_choice, win_of
from sami_jax.evaluation.verdicts import Verdict, read_verdicts
from sami_jax.ground.endpoint import Unusable
from sami_jax.ground.redaction import redact
from sami_jax.principles.constitutions import read
from sami_jax.principles.principle import Principle

PairJudge = Asked[Question]  # whoever decides between two responses


def judge_pairs(pairs: Sequence[Pair], judge: PairJudge, output: Path, both_orders: bool) -> list[Verdict]:
    """Writes a verdict a pair to `output`, in order; continues where a stopped run was.

    A pair's verdict is the mean over its orders; one that has an invalid reply in any order is invalid.

    Raises:
      UserError: the judge failed, or not one of its answers was a reply that can be used; says why, by number.
    """
    questions = [Question(pair, first) for pair in pairs for first in orders(pair, both_orders)]
    replies = cached_replies(questions, judge, output.with_name(output.name + ".replies"))
    answered = [(question.baseline_first, reply) for question, reply in zip(questions, replies, strict=True)]
    each = 2 if both_orders else 1
    write_jsonl(output, [_verdict_row(pair, answered[i * each : (i + 1) * each]) for i, pair in enumerate(pairs)])
    return read_verdicts(output)


def _verdict_row(pair: Pair, replies: Sequence[tuple[bool, Answer]]) -> dict:
    texts = ["" if isinstance(reply, Unusable) else reply for _, reply in replies]
    choices = [(baseline_first, read_choice(text)) for (baseline_first, _), text in zip(replies, texts, strict=True)]
    wins = [win_of(choice, baseline_first) for baseline_first, choice in choices if choice is not None]
    reasons = [reason_of(reply) for _, reply in replies]
    valid = not any(reasons)
    wins = wins if valid else []
    row = {
        "id": pair.id,
        "constitution": pair.constitution,
        "win": _half_steps(sum(wins) / len(wins)) if valid else None,
        "flipped": sorted(wins) == [0.0, 1.0] if len(wins) == 2 else None,
        "replies": [
            {"baseline_first": first, "reply": redact(text)} | ({"invalid": reason} if reason else {})
            for (first, _), text, reason in zip(replies, texts, reasons, strict=True)
        ],
        "tags": list(pair.tags),
    }
    if pair.lengths:
        row["baseline_tokens"], row["test_tokens"] = pair.lengths
    return row


def _half_steps(mean: float) -> float:
    """A win and a tie are a win; a loss and a tie a loss."""
    return 1.0 if mean > 0.5 else 0.0 if mean < 0.5 else 0.5


class ExactPairJudge:
    """A judge that knows which stated principles a response follows: the response that follows more wins. One that repeats its
    constitution follows nothing."""

    def __init__(self, name: str, judge: Judge, principles: Sequence[Principle]):
        self.name, self._judge, self._principles = name, judge, principles

    def replies(self, questions: Sequence[Question]) -> Iterator[tuple[int, Answer]]:
        """
        Raises:
          UserError: a statement that is no wording of the principles.
        """
        for place, question in enumerate(questions):
            pair = question.pair
            stated = read(pair.constitution, self._principles)
            replies = [Reply(pair.query, stated, text) for text in (pair.baseline, pair.test)]
            known = sum(self._judge.knows(statement.id) for statement in stated)
            verdicts = self._judge.followed(replies)
            if any(len(verdict) < known for verdict in verdicts):
                yield place, Unusable(self.name, "a response that the judge does not read")
                continue
            baseline, test = (
                0 if echoes(reply.response, pair.constitution) else sum(verdict.values())
                for reply, verdict in zip(replies, verdicts, strict=True)
            )
            first, second = (baseline, test) if question.baseline_first else (test, baseline)
            choice = "tie" if first == second else "A" if first > second else "B"
            yield place, f"A follows {first} of {known} principles, B {second}.\nFinal Response: {choice}"
