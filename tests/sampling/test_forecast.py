"""The time that sampling will still take, against simulated sampling whose end is known."""

from collections.abc import Iterator

import numpy as np
import pytest

from sami_jax.sampling.decoding import REFILL
from sami_jax.sampling.forecast import Forecast, Outlook

LONGEST, PROMPT = 350, 120  # tokens
A_STEP, A_READ = 0.1, 0.002  # seconds
draw = np.random.default_rng(0)
LENGTHS = {
    "alike": draw.normal(200, 30, 400),
    "of any length": draw.uniform(1, LONGEST, 400),
    "a few long": draw.lognormal(4.2, 0.7, 400),
    "memoryless": draw.geometric(1 / 90, 400),
    "short": draw.normal(40, 10, 400),
    "of two kinds": np.where(draw.random(400) < 0.5, 20, 300),
    "all cut": np.full(400, LONGEST + 1),
}


def simulated(lengths: list[int], rows: int, look: int = 10) -> Iterator[tuple[float, Outlook]]:
    """Samples responses of these lengths as `generate` does; yields the seconds so far and the outlook, at each look."""
    forecast, waiting, group = Forecast(rows, LONGEST), list(lengths), rows // REFILL
    at_work: list[tuple[int, int]] = []  # length, steps so far
    ended, cut, seconds = [], 0, 0.0
    while waiting or at_work:
        while waiting and rows - len(at_work) >= group:
            entering = [waiting.pop(0) for _ in range(min(group, len(waiting)))]
            at_work += [(length, 0) for length in entering]
            forecast.read(A_READ * PROMPT * len(entering), PROMPT * len(entering))
            seconds += A_READ * PROMPT * len(entering)
        forecast.decoded(A_STEP * look, look)
        seconds += A_STEP * look
        at_work = [(length, steps + look) for length, steps in at_work]
        for length, steps in at_work:
            if length <= min(steps, LONGEST):
                ended.append(length)
            elif steps >= LONGEST:
                cut += 1
        at_work = [(length, steps) for length, steps in at_work if steps < min(length, LONGEST)]
        running = [steps for _, steps in at_work]
        yield seconds, forecast.outlook(ended, cut, running, len(waiting), PROMPT * len(waiting))


@pytest.mark.parametrize("kind", LENGTHS)
@pytest.mark.parametrize(("prompts", "rows"), [(400, 64), (256, 16), (64, 64)])
def test_the_time_left_is_right_within_a_factor_of_two(kind, prompts, rows):
    lengths = np.maximum(LENGTHS[kind][:prompts].astype(int), 1).tolist()
    looks = list(simulated(lengths, rows))
    end = looks[-1][0]
    # When the very last ends, which may take as long as any, nobody can know.
    soon = max(0.05 * end, 0.2 * LONGEST * A_STEP)
    whole = [(end - seconds, outlook) for seconds, outlook in looks if end - seconds > soon]
    for left, outlook in whole:
        factor = outlook.seconds / left
        assert factor >= 0.75 if outlook.at_most else 0.5 <= factor <= 2
    if prompts > rows:  # it is soon known
        assert not any(outlook.at_most for _, outlook in whole[len(whole) // 2 :])
    shares = [outlook.share for _, outlook in looks]
    assert 0 < shares[0] < 0.5 and shares[-1] == 1.0


def test_before_any_response_has_ended_the_most_that_can_come_is_told():
    forecast = Forecast(8, LONGEST)
    forecast.read(4.0, 800)
    forecast.decoded(10.0, 100)
    outlook = forecast.outlook([], 0, [100] * 8, 8, 800)
    assert outlook.at_most
    waves = (250 + 350) * 0.1 + 4.0
    assert waves <= outlook.seconds <= waves + 350 * 0.1
