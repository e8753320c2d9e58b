"""Answers in order, some questions at a time."""

import threading
import time

import pytest

from sami_jax.serving.in_order import in_order


def test_in_order_and_no_more_than_allowed_at_a_time():
    now, most, lock = [0], [0], threading.Lock()

    def ask(item: int) -> int:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.001 * (item % 3))
        with lock:
            now[0] -= 1
        return item * item

    assert [*in_order(ask, range(50), 4)] == [item * item for item in range(50)]
    assert 1 < most[0] <= 4 and [*in_order(ask, [], 4)] == []


def test_after_a_failure_none_is_begun():
    begun = []

    def ask(item: int) -> int:
        begun.append(item)
        if item == 3:
            raise ValueError("no")
        return item

    answers = in_order(ask, range(100), 1)
    assert [next(answers) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="no"):
        next(answers)
    assert begun == [0, 1, 2, 3]


def test_who_leaves_does_not_wait():
    over = threading.Event()

    def ask(item: int) -> int:
        if item:
            over.wait(60)
        return item

    answers, began = in_order(ask, range(9), 2), time.monotonic()
    assert next(answers) == 0
    answers.close()
    assert time.monotonic() - began < 30
    over.set()
