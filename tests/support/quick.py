"""Of cases that show the same thing, which run in `make test`, or in `make slow`."""

from collections.abc import Iterable

import pytest


def others_slow(cases: Iterable, *quick) -> list:
    """The cases, a tuple being the values of several arguments; those that are not named are left to `make slow`."""
    return _others(pytest.mark.slow, cases, quick)


def others_in_faults(cases: Iterable, *kept) -> list:
    """Likewise; those that are not named are left to `make faults`."""
    return _others(pytest.mark.faults, cases, kept)


def _others(mark: pytest.MarkDecorator, cases: Iterable, kept: tuple) -> list:
    cases = list(cases)
    assert all(case in cases for case in kept), kept
    return [
        case if case in kept else pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=mark)
        for case in cases
    ]
