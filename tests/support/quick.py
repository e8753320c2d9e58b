"""Of cases that show the same thing, which run in `make test`."""

from collections.abc import Iterable

import pytest


def others_slow(cases: Iterable, *quick) -> list:
    """The cases, a tuple being the values of several arguments; those that are not named are left to `make slow`."""
    cases = list(cases)
    assert all(case in cases for case in quick), quick
    return [
        case if case in quick else pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.slow)
        for case in cases
    ]
