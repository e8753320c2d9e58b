"""Whether jax compiles, and how long it has: by its own monitoring, for a call looks the same from outside whether it compiles
first or not."""

import sys
import time
from collections.abc import Callable

# Named when they begin, as scalars, and when they end, as durations. Tracing goes on within tracing.
_EVENTS = tuple(
    f"/jax/core/compile/{name}_duration" for name in ("jaxpr_trace", "jaxpr_to_mlir_module", "backend_compile")
)

_listening = False
_going_on = 0  # events that have begun and not ended
_since = 0.0
_seconds = 0.0  # of those that have ended


def listen() -> None:
    """From here on, compilation is counted; before jax is imported there is none, and nothing here imports it."""
    global _listening
    if _listening or "jax" not in sys.modules:
        return
    import jax.monitoring

    jax.monitoring.register_scalar_listener(_began)
    jax.monitoring.register_event_duration_secs_listener(_ended)
    _listening = True


def going_on() -> bool:
    return _going_on > 0


def seconds() -> float:
    """Spent with it so far, in all."""
    return _seconds + (time.monotonic() - _since if _going_on else 0.0)


def stopwatch(clock: Callable[[], float] = time.monotonic) -> Callable[[], float]:
    """Begins to count seconds, those of compilation left out; returns what tells them."""
    begun, compiled = clock(), seconds()
    return lambda: max(clock() - begun - (seconds() - compiled), 0.0)


def _began(event: str, *_, **__) -> None:
    global _going_on, _since
    if event in _EVENTS:
        _since = _since if _going_on else time.monotonic()
        _going_on += 1


def _ended(event: str, *_, **__) -> None:
    global _going_on, _seconds
    if event in _EVENTS and _going_on:
        _going_on -= 1
        if not _going_on:
            _seconds += time.monotonic() - _since
