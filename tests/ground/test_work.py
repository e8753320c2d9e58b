"""How far work is, by a clock that tests move."""

import pytest

from sami_jax.ground import compilation, work
from sami_jax.ground.display import FIRST, HEARTBEAT, Beats
from sami_jax.ground.work import Work


class Clock:
    def __init__(self):
        self.now = 1000.0
        self.compiled = 0.0

    def __call__(self) -> float:
        return self.now

    def pass_by(self, seconds: float, compiling: bool = False) -> None:
        self.now += seconds
        self.compiled += seconds * compiling


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(work, "clock", clock)
    monkeypatch.setattr(compilation, "seconds", lambda: clock.compiled)
    return clock


def test_durations_read_as_people_say_them():
    assert [work.duration(s) for s in (0.4, 59, 61, 3725)] == ["0 s", "59 s", "1 min 1 s", "1 h 2 min"]


def test_the_time_left_leaves_out_what_compiling_took(clock):
    one = Work("updates", 10)
    clock.pass_by(300, compiling=True)
    assert one.line() == "updates: 0 of 10 after 5 min 0 s"
    clock.pass_by(20)
    one.count(2, 0.2, 4000)
    assert (
        one.line()
        == "updates: 2 of 10 after 5 min 20 s, 20% of the work, 4,000 tokens, 200 tokens/s, about 1 min 20 s left"
    )


def test_items_count_by_their_work_and_what_was_done_before_is_no_news(clock):
    one = Work("updates", 12, before=2)
    assert not one.moves and one.left == ""
    clock.pass_by(30)
    one.count(1, 0.5, 0)  # the first is as much work as the nine that follow
    assert one.done == 3 and one.left == "about 30 s left" and one.share == pytest.approx((2 + 5) / 12)


def test_an_item_moves_while_it_is_worked_at(clock):
    one = Work("updates", 4)
    clock.pass_by(10)
    one.tell_within(0.5)
    assert one.moves and one.share == pytest.approx(1 / 8) and one.left == "about 1 min 10 s left"
    clock.pass_by(10)
    one.count(1, 0.25, 0)
    assert one.share == pytest.approx(1 / 4) and one.left == "about 1 min 0 s left"


def test_what_the_worker_tells_prevails_and_its_time_runs_down(clock):
    one = Work("sampling", 8)
    clock.pass_by(5)
    one.tell(3, 0.1, 200, 60.0, True)
    one.count(1, 0.125, 0)
    clock.pass_by(15)
    assert one.line() == "sampling: 3 of 8 after 20 s, 10% of the work, 200 tokens, 10 tokens/s, at most 45 s left"
    one.moment = "reading prompts 5 to 8"
    assert one.line().endswith("at most 45 s left, reading prompts 5 to 8")


def beats_in(clock, one: Work, seconds: int, compiling: bool = False) -> list[float]:
    """When lines are written, in seconds since the work began."""
    beats = Beats(one)
    found = []
    for _ in range(seconds):
        clock.pass_by(1, compiling)
        if beats.due():
            found.append(one.elapsed)
    return found


def test_the_first_line_comes_soon_and_others_now_and_then(clock):
    assert beats_in(clock, Work("sampling", 8), 100) == [FIRST, FIRST + HEARTBEAT, FIRST + 2 * HEARTBEAT, 98]


def test_what_was_compiled_first_is_told_of_soon_after(clock):
    one, found = Work("sampling", 8), []
    beats = Beats(one)
    for second in range(1, 61):
        clock.pass_by(1, compiling=second <= 20)
        if second > 22:
            one.tell(0, 0.01, 64, 100.0, True)
        if beats.due():
            found.append(second)
    assert found == [FIRST, 20 + FIRST, 20 + FIRST + HEARTBEAT]
