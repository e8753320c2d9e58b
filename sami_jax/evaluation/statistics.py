"""Win rates and their intervals."""

import math
from collections.abc import Sequence


def mean_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean and its normal 95 % interval (mean -/+ 1.96 standard errors), for example of wins as 1, ties as 0.5, losses as 0.

    Raises:
      ValueError: no values.
    """
    n = len(values)
    mean = math.fsum(values) / n
    variance = math.fsum((value - mean) ** 2 for value in values) / max(n - 1, 1)
    half = 1.96 * math.sqrt(variance / n)
    return mean, mean - half, mean + half
