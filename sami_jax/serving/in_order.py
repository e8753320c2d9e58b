"""Many questions at a time, and their answers in order."""

import collections
import itertools
import queue
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

AHEAD = 4  # questions that wait, for each that is under way


def in_order(ask: Callable[[T], R], items: Sequence[T], concurrency: int) -> Generator[R, None, None]:
    """What `ask` returns for each item, so many under way at a time. After one has failed, no other is begun.

    Its threads are daemons, other than those of a pool: who is interrupted does not wait for answers that nobody will read.
    """
    jobs: queue.SimpleQueue[tuple[Future, T] | None] = queue.SimpleQueue()
    failures: list[BaseException] = []

    def work() -> None:
        while job := jobs.get():
            answer, item = job
            try:
                if failures:
                    raise failures[0]
                answer.set_result(ask(item))
            except BaseException as error:
                failures.append(error)
                answer.set_exception(error)

    def begin(item: T) -> Future:
        answer: Future = Future()
        jobs.put((answer, item))
        return answer

    threads = min(concurrency, len(items))
    for _ in range(threads):
        threading.Thread(target=work, name="asking", daemon=True).start()
    to_come = iter(items)
    waiting = collections.deque(map(begin, itertools.islice(to_come, (1 + AHEAD) * concurrency)))
    try:
        while waiting:
            yield waiting.popleft().result()
            waiting.extend(map(begin, itertools.islice(to_come, 1)))
    finally:
        failures.append(GeneratorExit())
        for _ in range(threads):
            jobs.put(None)
