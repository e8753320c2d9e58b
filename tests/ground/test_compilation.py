"""Compilation is seen while it goes on, and its time is known apart."""

import jax
import jax.numpy as jnp
import pytest

from sami_jax.ground import compilation


def test_it_is_seen_while_it_goes_on_and_counted():
    compilation.listen()
    compilation.listen()  # again: nothing is counted twice
    seen = []

    def traced(x):
        seen.append(compilation.going_on())
        return jax.jit(lambda y: y * 3)(x) + 1

    program = jax.jit(traced)
    x = jnp.ones(3)
    before = compilation.seconds()
    assert not compilation.going_on()
    program(x)
    after = compilation.seconds()
    assert seen == [True] and after > before and not compilation.going_on()
    program(x)
    assert compilation.seconds() == after


def test_a_program_that_cannot_be_compiled_leaves_nothing_behind():
    compilation.listen()

    def broken(x):
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        jax.jit(broken)(jnp.ones(3))
    assert not compilation.going_on()


def test_a_stopwatch_leaves_it_out(monkeypatch):
    compiled, now = [7.0], [100.0]
    monkeypatch.setattr(compilation, "seconds", lambda: compiled[0])
    watch = compilation.stopwatch(lambda: now[0])
    now[0], compiled[0] = 160.0, 17.0
    assert watch() == 50.0
