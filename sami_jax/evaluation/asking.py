"""Putting questions to a judge: a model behind a server, or one on this machine. Every reply that gives a verdict is kept as it comes.
What gave none is counted by its reason, and asked again when the same judging is started again."""

import concurrent.futures
import hashlib
import json
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from sami_jax.data.jsonl import read_appended, write_jsonl
from sami_jax.errors import UserError
from sami_jax.evaluation.pairs import read_choice, why_invalid
from sami_jax.ground import hosts
from sami_jax.ground.endpoint import Endpoint, Unusable
from sami_jax.ground.progress import track
from sami_jax.ground.redaction import redact
from sami_jax.ground.terminal import say

MAX_TOKENS = 400  # of a judge's reply
Answer = str | Unusable  # a reply, or why there is none


class Question(Protocol):
    """Whatever ends in a choice between A and B, or a tie."""

    @property
    def prompt(self) -> str:
        """What a judge is asked."""
        ...


Q = TypeVar("Q", bound=Question)
Q_contra = TypeVar("Q_contra", bound=Question, contravariant=True)


class Asked(Protocol[Q_contra]):
    """A judge that answers questions."""

    name: str  # tells judges apart that may answer differently; part of what a cached reply is kept under

    def replies(self, questions: Sequence[Q_contra]) -> Iterator[tuple[int, Answer]]:
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


class LikelihoodJudge:
    """A local model that compares the likelihood of the answers A and B instead of writing one."""

    def __init__(
        self, name: str, scores: Callable[[Sequence[str]], Iterator[tuple[int, tuple[float, float] | Unusable]]]
    ):
        """
        Args:
          scores: for prompts, yields (place, (log p(A), log p(B))), or why there are none.
        """
        self.name, self._scores = name, scores

    def replies(self, questions: Sequence[Question]) -> Iterator[tuple[int, Answer]]:
        for place, found in self._scores([question.prompt for question in questions]):
            if isinstance(found, Unusable):
                yield place, found
                continue
            first, second = found
            choice = "tie" if first == second else "A" if first > second else "B"
            yield place, f"log p(A) = {first:.4f}, log p(B) = {second:.4f}\nFinal Response: {choice}"


def cached_replies(questions: Sequence[Q], judge: Asked[Q], cache: Path) -> list[Answer]:
    """A reply to every question, from the cache where it was asked before and gave a verdict.

    Raises:
      UserError: the judge failed, or not one of its answers was a reply that can be used; says why, by number.
    """
    keys = [hashlib.sha256(f"{judge.name}\n{question.prompt}".encode()).hexdigest() for question in questions]
    kept = hosts.once(lambda: [row for row in read_appended(cache) if _is_kept(row["reply"])])
    known: dict[str, Answer] = {row["key"]: row["reply"] for row in kept}
    place_of: dict[str, int] = {}  # equal questions, as about equal responses, are asked once
    for place, key in enumerate(keys):
        place_of.setdefault(key, place)
    waiting = [place for key, place in place_of.items() if key not in known]
    hosts.once(lambda: cache.parent.mkdir(parents=True, exist_ok=True))
    write_jsonl(cache, [{"key": key, "reply": reply} for key, reply in known.items()])
    told: set[str] = set()
    with open(cache if hosts.first() else os.devnull, "a", encoding="utf-8") as stream:
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
    replies = [known[key] for key in keys]
    if replies and all(isinstance(reply, Unusable) for reply in replies):
        raise UserError(_none_usable(judge.name, [reply for reply in replies if isinstance(reply, Unusable)]))
    return replies


def _is_kept(reply) -> bool:
    """A verdict is; nothing that asking again could mend, nor what could not be read back as it was for a secret in it."""
    return isinstance(reply, str) and read_choice(reply) is not None and redact(reply) == reply


def _none_usable(judge: str, unusable: Sequence[Unusable]) -> str:
    first = {none.reason: none for none in reversed(unusable)}
    reasons = Counter(none.reason for none in unusable)
    listed = "; ".join(f"{count}: {first[reason].told}" for reason, count in reasons.most_common())
    return f"{judge}: none of {len(unusable)} replies can be used; {listed}"


def reason_of(reply: Answer) -> str | None:
    """Why a reply gives no verdict, in words under which such replies are counted."""
    if isinstance(reply, Unusable):
        return reply.reason
    return why_invalid(reply) if read_choice(reply) is None else None
