"""The other processes of a run, on this host or others: the only place that knows of them.

Every process runs the same program over the same inputs and so takes the same decisions; the devices of all of them make
one mesh. Files are shared: what must happen once goes through `once`. Where nothing was joined, this process is the first of
one, and nothing here imports jax.

A process that is lost takes the others with it: each says so in one line and ends with status 4. jax notices it (its heartbeats
stop, or the first process, which counts them, is gone), but offers no callback: its native code prints a page and aborts. So
native output is kept apart, and the abort is caught.
"""

import contextlib
import ctypes
import dataclasses
import itertools
import json
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from sami_jax.errors import LOST as LOST_STATUS
from sami_jax.errors import TRY_AGAIN, TryAgain, UserError
from sami_jax.ground.gathering import watched, what_is_missing

T = TypeVar("T")
# Seconds without a sign of life after which a process is taken for lost. A large compilation starves the signs: Google's tests of
# several slices saw 327 s (ml-auto-solutions#1166).
LOST_AFTER = 600
LOST = "another process of this run was lost; start the same command again on all hosts, it continues"
# Seconds in which all processes must have come: hosts get ready one by one, and import from cold disks (marin#7232).
START_WITHIN = 1800
SHUTDOWN = 300  # seconds that the processes may come apart at the good end
PATIENCE = 3600  # seconds, at least, that the others wait while the first reads or writes ...
SLOWEST = 50e6  # ... and bytes/s of the slowest disk whose work they wait for
# Codes that an error of the runtime begins with (absl/status/status.h), those that a lost process can lead to.
_RUNTIME = ("ABORTED: ", "CANCELLED: ", "DATA_LOSS: ", "DEADLINE_EXCEEDED: ", "FAILED_PRECONDITION: ", "INTERNAL: ", "UNAVAILABLE: ", "UNKNOWN: ")  # fmt: skip
_END = 2**20  # bytes of native output that are looked at
TOGETHER = 10  # seconds in which processes that end by the same error come to it


@dataclasses.dataclass(frozen=True)
class _World:
    index: int = 0
    count: int = 1
    client: Any = None  # jax's, of the service that the first process runs
    lost_after: int = LOST_AFTER


_ALONE = _World()
_world = _ALONE  # of the program, which is alone within `once`
_joined = _ALONE  # of the process
_numbers = itertools.count()  # of meetings: the same in all processes
_patience = float(PATIENCE)
_apart: Callable[[], str] | None = None  # while processes come together: says that they did not
_native: Any = None  # file that holds what native code has printed
_handler = None  # must live as long as the process


def join(
    coordinator: str | None = None,
    processes: int | None = None,
    process: int | None = None,
    lost_after: int = LOST_AFTER,
    start_within: int = START_WITHIN,
) -> None:
    """Joins the other processes, before any device is touched. Without arguments, TPU metadata, Slurm, Open MPI 4 or Kubernetes
    tell who they are; the variable JAX_COORDINATOR_PORT then chooses the port.

    Args:
      coordinator: HOST:PORT where the first process listens.
      lost_after: seconds without a sign of life after which a process is taken for lost.
      start_within: seconds in which all must have come.
    Raises:
      UserError: nobody tells who the others are.
      TryAgain: they did not come.
    """
    global _world, _joined, _apart
    import jax
    from jax._src.distributed import global_state

    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    # With it, SIGTERM would not end a process.
    jax.config.update("jax_enable_preemption_service", False)
    _keep_native_output_apart()

    def missing() -> str:
        where, count = global_state.coordinator_address, global_state.num_processes
        return what_is_missing(where, global_state.process_id == 0, count if count > 1 else processes)

    def apart(why: str) -> str:
        return f"the processes of this run did not come together within {start_within} s: {why}; the same command, on all hosts, tries again"

    _apart = lambda: apart(missing())  # noqa: E731 (of the wait below alone)
    try:
        with watched(missing), contextlib.nullcontext() if process else _waiting():
            jax.distributed.initialize(
                coordinator,
                processes,
                process,
                initialization_timeout=start_within,
                heartbeat_timeout_seconds=lost_after,
                shutdown_timeout_seconds=SHUTDOWN,
            )
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"--distributed: nothing here tells which processes there are ({error}); give --coordinator, --processes and --process"
        ) from None
    except OSError as error:  # of the machine's metadata
        raise TryAgain(apart(f"metadata: {_first_line(error)}")) from None
    except RuntimeError as error:
        if "requires" in str(error):  # a package, for a scheduler that has been found
            raise UserError(f"--distributed: {_first_line(error)}; install it") from None
        raise TryAgain(apart(_first_line(error))) from None
    _apart = None
    _world = _joined = _World(global_state.process_id, global_state.num_processes, global_state.client, lost_after)


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0][:200]


def index() -> int:
    return _world.index


def count() -> int:
    return _world.count


def first() -> bool:
    """Whether this is the process that speaks and writes."""
    return _world.index == 0


def expect(size: int) -> None:
    """From here on, waits as long as a slow disk takes for so many bytes, written and read back. All processes call this."""
    global _patience
    _patience = max(_patience, PATIENCE + 2 * size / SLOWEST)


def patience() -> int:
    """Milliseconds that a process waits for another."""
    return int(_patience * 1000)


def meet() -> None:
    """Waits until all processes are here."""
    if _world.count > 1:
        with _waiting():
            _world.client.wait_at_barrier(f"sami/{next(_numbers)}", patience())


def _waiting() -> contextlib.AbstractContextManager[None]:
    """Says so, while it lasts."""
    from sami_jax.ground.display import doing  # heavy; without others, nobody waits

    return doing("waiting for the other processes")


def once(action: Callable[[], T]) -> T:
    """What `action` returns (content for JSON) or the UserError that it raises, in all processes; only the first runs it, as if it
    were alone, once all are here: so none still looks for a file that it makes, and all may read it afterwards."""
    global _world
    if _world.count == 1:
        return action()
    meet()
    world, key = _world, f"sami/{next(_numbers)}"
    if world.index == 0:
        _world = _ALONE
        try:
            told = {"value": action()}
        except UserError as error:
            told = {"error": str(error), "again": isinstance(error, TryAgain)}
        finally:
            _world = world
        world.client.key_value_set(key, json.dumps(told))
    told = json.loads(world.client.blocking_key_value_get(key, patience()))
    if "error" in told:
        raise (TryAgain if told["again"] else UserError)(told["error"])
    return told["value"]


def shared(
    items: Callable[[], list[str]], action: Callable[[Sequence[str]], dict[str, T]], meeting: str | None = None
) -> dict[str, T]:
    """What `action` makes of items (content for JSON), by item and in their order, in all processes; each does its share.

    Args:
      items: called in the first process, whose list all go by.
      meeting: a name that all give and nobody gave before, from a thread beside the program, which has no number among the others.
    """
    world = _joined if meeting else _world
    if world.count == 1:
        return action(items())
    if meeting is None:
        meet()
    key = f"sami/{meeting or next(_numbers)}"
    if world.index == 0:
        world.client.key_value_set(f"{key}/items", json.dumps(items()))
    everything = json.loads(world.client.blocking_key_value_get(f"{key}/items", patience()))
    world.client.key_value_set(f"{key}/{world.index}", json.dumps(action(everything[world.index :: world.count])))
    found: dict[str, T] = {}
    for index in range(world.count):
        found |= json.loads(world.client.blocking_key_value_get(f"{key}/{index}", patience()))
    return {item: found[item] for item in everything}


def anywhere(here: bool) -> bool:
    """Whether it holds in any process; all get the same answer, and must call this."""
    if _world.count == 1:
        return here
    key = f"sami/{next(_numbers)}"
    if here:
        _world.client.key_value_set(f"{key}/{_world.index}", "yes")
    meet()
    return bool(_world.client.key_value_dir_get(key))


def check_shared(folder: Path) -> None:
    """Makes the folder where there are others, and checks that they see it.

    Raises:
      UserError: some do not; names them.
    """
    if _world.count == 1:
        return
    token = folder / f".seen-{once(time.time_ns)}"

    def make() -> None:
        folder.mkdir(parents=True, exist_ok=True)
        token.touch()

    once(make)
    _world.client.key_value_set(f"sami/{token.name}/{_world.index}", str(token.exists()))
    meet()
    seen = [_world.client.key_value_try_get(f"sami/{token.name}/{i}") == "True" for i in range(_world.count)]
    once(token.unlink)
    if not all(seen):
        blind = ", ".join(str(i) for i, sees in enumerate(seen) if not sees)
        raise UserError(
            f"{folder}: process {blind} does not see what process 0 writes here; use a folder that all share"
        )


def leave() -> None:
    """The good end: waits for the others, for jax would take a process that is gone for lost."""
    if _world.client:
        import jax

        jax.distributed.shutdown()


def says(message: str) -> bool:
    """Whether this process is to say how it ends: the first is, and one that ends otherwise than the first."""
    if _world.count == 1:
        return True
    _world.client.key_value_set(f"sami/end/{_world.index}", message)
    try:
        return first() or _world.client.blocking_key_value_get("sami/end/0", TOGETHER * 1000) != message
    except RuntimeError:  # the first is still at work
        return True


def end(status: int) -> None:
    """The bad end: once the others have come to theirs, or without them."""
    if _world.count == 1:
        return
    try:
        _world.client.wait_at_barrier("sami/end", TOGETHER * 1000)
    except RuntimeError:
        pass
    else:
        leave()
    exit_now(status)


def crash() -> None:
    """An error that nobody expected, in an except block. It may come of a lost process, which can show as any error of the
    runtime but a lack of memory: then this process is ended while it waits."""
    if _world.count == 1:
        return
    _wait_for_loss(_of_runtime)
    traceback.print_exc()
    sys.stderr.write(_native_output())
    exit_now(1)


def lost_or_network() -> None:
    """A connection that broke, in an except block. Between processes that compute together it broke because one is lost: then this one is
    ended while it waits."""
    if _world.count > 1:
        _wait_for_loss(_of_computation)


def _wait_for_loss(shows: Callable[[BaseException], bool]) -> None:
    """Where the error that is handled, or one behind it, shows that there may be one."""
    error = sys.exception()
    while error is not None:
        if shows(error):
            return time.sleep(_world.lost_after + TOGETHER)
        error = error.__cause__ or error.__context__


def _of_computation(error: BaseException) -> bool:
    import jax

    return isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" not in str(error)


def _of_runtime(error: BaseException) -> bool:
    """Whether an error may be what a lost process looks like: jax gives some of its runtime's as ValueError, with the runtime's words."""
    return _of_computation(error) or (isinstance(error, ValueError) and str(error).startswith(_RUNTIME))


def exit_now(status: int) -> None:
    """Without jax's own end, which would wait for other processes, and without waiting for threads."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):  # its reader has gone
            stream.flush()
    os._exit(status)


def _keep_native_output_apart() -> None:
    """From here on, Python alone writes to the terminal. An abort because of a lost process is said in one line."""
    global _native, _handler
    _native = tempfile.TemporaryFile()  # noqa: SIM115 (open as long as the process)
    sys.stdout.flush()
    sys.stderr.flush()
    terminals = [os.dup(1), os.dup(2)]
    sys.stdout, sys.stderr = (open(fd, "w", buffering=1, encoding="utf-8", errors="replace") for fd in terminals)  # noqa: SIM115
    for fd in (1, 2):
        os.dup2(_native.fileno(), fd)
    # Python's own handlers run only when the main thread gets to them; an abort does not wait. This one runs in its midst.
    _handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(lambda _: _aborted(terminals[1]))
    ctypes.CDLL(None).signal(int(signal.SIGABRT), _handler)


def _aborted(terminal: int) -> None:
    output = _native_output()
    if "distributed service detected fatal errors" in output:
        line, status = (_apart(), TRY_AGAIN) if _apart else (LOST, LOST_STATUS)
        os.write(terminal, f"sami: {line}\n".encode())
        os._exit(status)
    os.write(terminal, output.encode())  # for another reason; the abort goes on


def _native_output() -> str:
    """Its end: what native code says last is why it aborts, and NCCL or libtpu may have said much before."""
    size = os.fstat(_native.fileno()).st_size
    return os.pread(_native.fileno(), _END, max(0, size - _END)).decode("utf-8", "replace")
