"""Judging pairs: every pair in both orders, every verdict kept as it comes. What gave none is counted by its reason, and asked again
when the same judging is started again."""

import concurrent.futures
import hashlib
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from sami_jax.data.jsonl import read_appended, write_jsonl
from sami_jax.errors import UserError
from sami_jax.evaluation.judges import Judge
from sami_jax.evaluation.pairs import Pair, Question, orders, read_choice, why_invalid, win_of
from sami_jax.evaluation.verdicts import Verdict, read_verdicts
from sami_jax.ground.endpoint import Endpoint, Unusable
from sami_jax.ground.progress import track
from sami_jax.ground.redaction import redact
from sami_jax.ground.terminal import say
from sami_jax.principles.constitutions import read_stated
from sami_jax.principles.principle import Principle

MAX_TOKENS = 400  # of a judge's reply
Answer = str | Unusable  # a reply, or why there is none


class PairJudge(Protocol):
    """Whoever decides between two responses."""

    name: str  # tells judges apart that may answer differently; part of what a cached reply is kept under

    def replies(self, questions: Sequence[Question]) -> Iterator[tuple[int, Answer]]:
        """Yields (place, reply) for every question, in any order; a reply ends as `pairs.read_choice` reads it."""
        ...


class EndpointJudge:
    """A model behind an OpenAI-compatible server, asked by several threads at once."""

    def __init__(self, endpoint: Endpoint, concurrency: int, max_tokens: int = MAX_TOKENS):
        self.name = endpoint.where
        self._endpoint, self._concurrency, self._max_tokens = endpoint, concurrency, max_tokens

    def replies(self, questions: Sequence[Question]) -> Iterator[tuple[int, Answer]]:
        """
        Raises:
          UserError: the server failed for good; replies that came before were yielded.
        """
        failed, answered, first = threading.Event(), threading.Event(), threading.Lock()

        def ask(prompt: str) -> Answer:
            with (
                first
            ):  # the first goes alone: an option that the server does not know is refused once, not once a thread
                if not answered.is_set():
                    return asked(prompt)
            return asked(prompt)

        def asked(prompt: str) -> Answer:
            if failed.is_set():
                return ""
            try:
                return self._endpoint.complete(prompt, temperature=0.0, max_tokens=self._max_tokens, seed=0)
            except Unusable as none:
                none.__traceback__ = none.__context__ = None  # there may be thousands
                return none
            except BaseException:
                failed.set()
                raise
            finally:
                answered.set()

        with concurrent.futures.ThreadPoolExecutor(self._concurrency) as pool:
            places = {pool.submit(ask, question.prompt): place for place, question in enumerate(questions)}
            try:
                error = None
                for done in concurrent.futures.as_completed(places):
                    if done.cancelled():
                        continue
                    if done.exception():
                        error = error or done.exception()
                        for waiting in places:
                            waiting.cancel()
                    elif not (failed.is_set() and done.result() == ""):
                        yield places[done], done.result()
                if error:
                    raise error
            finally:
                failed.set()  # whoever stops listening need not be told more
                pool.shutdown(wait=True, cancel_futures=True)


def judge_pairs(pairs: Sequence[Pair], judge: PairJudge, output: Path, both_orders: bool) -> list[Verdict]:
    """Writes a verdict a pair to `output`, in order; continues where a stopped run was.

    A pair's verdict is the mean over its orders; one that has an invalid reply in any order is invalid.

    Raises:
      UserError: the judge failed, or not one of its answers was a reply that can be used; says why, by number.
    """
    questions = [Question(pair, first) for pair in pairs for first in orders(pair, both_orders)]
    replies = _cached_replies(questions, judge, output.with_name(output.name + ".replies"))
    if replies and all(isinstance(reply, Unusable) for reply in replies):
        raise UserError(_none_usable(judge.name, [reply for reply in replies if isinstance(reply, Unusable)]))
    answered = [(question.baseline_first, reply) for question, reply in zip(questions, replies, strict=True)]
    each = 2 if both_orders else 1
    write_jsonl(output, [_verdict_row(pair, answered[i * each : (i + 1) * each]) for i, pair in enumerate(pairs)])
    return read_verdicts(output)


def _cached_replies(questions: Sequence[Question], judge: PairJudge, cache: Path) -> list[Answer]:
    """A reply to every question, from the cache where it was asked before and gave a verdict."""
    keys = [hashlib.sha256(f"{judge.name}\n{question.prompt}".encode()).hexdigest() for question in questions]
    known: dict[str, Answer] = {row["key"]: row["reply"] for row in read_appended(cache) if _is_kept(row["reply"])}
    place_of: dict[str, int] = {}  # equal questions, as about equal responses, are asked once
    for place, key in enumerate(keys):
        place_of.setdefault(key, place)
    waiting = [place for key, place in place_of.items() if key not in known]
    cache.parent.mkdir(parents=True, exist_ok=True)
    write_jsonl(cache, [{"key": key, "reply": reply} for key, reply in known.items()])
    told: set[str] = set()
    with open(cache, "a", encoding="utf-8") as stream:
        found = judge.replies([questions[place] for place in waiting])
        for number, reply in track(found, "judging", len(waiting)):
            key = keys[waiting[number]]
            known[key] = reply
            if _is_kept(reply):
                stream.write(json.dumps({"key": key, "reply": reply}, ensure_ascii=False) + "\n")
                stream.flush()
            elif isinstance(reply, Unusable) and reply.reason not in told:
                told.add(reply.reason)  # the first of its kind, as it happens; all are counted at the end
                say(f"no reply: {reply.told}")
    return [known[key] for key in keys]


def _is_kept(reply) -> bool:
    """A verdict is; nothing that asking again could mend, nor what could not be read back as it was for a secret in it."""
    return isinstance(reply, str) and read_choice(reply) is not None and redact(reply) == reply


def _none_usable(judge: str, unusable: Sequence[Unusable]) -> str:
    first = {none.reason: none for none in reversed(unusable)}
    reasons = Counter(none.reason for none in unusable)
    listed = "; ".join(f"{count}: {first[reason].told}" for reason, count in reasons.most_common())
    return f"{judge}: none of {len(unusable)} replies can be used; {listed}"


def _verdict_row(pair: Pair, replies: Sequence[tuple[bool, Answer]]) -> dict:
    texts = ["" if isinstance(reply, Unusable) else reply for _, reply in replies]
    choices = [(baseline_first, read_choice(text)) for (baseline_first, _), text in zip(replies, texts, strict=True)]
    wins = [win_of(choice, baseline_first) for baseline_first, choice in choices if choice is not None]
    reasons = [_reason(reply) for _, reply in replies]
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


def _reason(reply: Answer) -> str | None:
    """Why a reply gives no verdict, in words under which such replies are counted."""
    if isinstance(reply, Unusable):
        return reply.reason
    return why_invalid(reply) if read_choice(reply) is None else None


def _half_steps(mean: float) -> float:
    """A win and a tie are a win; a loss and a tie a loss."""
    return 1.0 if mean > 0.5 else 0.0 if mean < 0.5 else 0.5


class LikelihoodJudge:
    """A local model that compares the likelihood of the answers A and B instead of writing one."""

    def __init__(self, name: str, scores: Callable[[Sequence[str]], Iterator[tuple[int, tuple[float, float]]]]):
        """
        Args:
          scores: for prompts, yields (place, (log p(A), log p(B))).
        """
        self.name, self._scores = name, scores

    def replies(self, questions: Sequence[Question]) -> Iterator[tuple[int, str]]:
        for place, (first, second) in self._scores([question.prompt for question in questions]):
            choice = "tie" if first == second else "A" if first > second else "B"
            yield place, f"log p(A) = {first:.4f}, log p(B) = {second:.4f}\nFinal Response: {choice}"


class ExactJudge:
    """Checkers that know which stated principles a response follows: the one that follows more wins."""

    def __init__(self, name: str, judge: Judge, principles: Sequence[Principle]):
        self.name, self._judge, self._principles = name, judge, principles

    def replies(self, questions: Sequence[Question]) -> Iterator[tuple[int, str]]:
        for place, question in enumerate(questions):
            pair = question.pair
            stated = read_stated(pair.constitution, self._principles)
            baseline, test = (
                sum(self._judge.followed(pair.query, text, stated).values()) for text in (pair.baseline, pair.test)
            )
            first, second = (baseline, test) if question.baseline_first else (test, baseline)
            choice = "tie" if first == second else "A" if first > second else "B"
            yield place, f"A follows {first} of {len(stated)} principles, B {second}.\nFinal Response: {choice}"
