"""What a process that is ours sets up before anything else is imported. Whatever the environment lacks, the work goes on."""

import gc
import hashlib
import os
import platform
import sys
import traceback
import warnings
from importlib.machinery import PathFinder
from pathlib import Path
from types import TracebackType

from sami_jax.errors import UserError
from sami_jax.ground.accelerators import pass_over_cuda, pass_over_libtpu
from sami_jax.ground.paths import may_be_written, path_of
from sami_jax.ground.redaction import redact
from sami_jax.ground.streams import take_streams

_CACHE = "JAX_COMPILATION_CACHE_DIR"
_NOT_KEPT = f"compiled programs are not kept, and the next start takes longer; set {_CACHE} to a folder"


def set_up() -> list[str]:
    """Sets the process up; its arguments."""
    take_streams()
    _hurry()
    sys.excepthook = _show_crash
    pass_over_cuda()
    pass_over_libtpu()
    for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
        if name in os.environ and not os.path.isabs(
            os.environ[name]
        ):  # is to be passed over, which not every library does
            del os.environ[name]
    # Of a library's warning, what it says: where its code stands is no news to a user.
    warnings.formatwarning = lambda message, *_, **__: f"WARNING: {' '.join(str(message).split())}\n"
    # Once for each program that is compiled; `sami doctor` tells it once.
    warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache entry")
    return [_as_text(argument) for argument in sys.argv[1:]]


def _hurry() -> None:
    """Spares the start what no verb needs."""
    # transformers and tensorboardX import torch where it is installed, which takes two seconds; nothing here computes with it.
    sys.meta_path[:] = [_WithoutTorch if finder is PathFinder else finder for finder in sys.meta_path]
    gc.set_threshold(100_000)  # what imports and tracing make stays, and need not be gone through again and again


class _WithoutTorch(PathFinder):
    """Finds modules as ever, but for torch, which it calls not installed."""

    @classmethod
    def find_spec(cls, name: str, path=None, target=None):
        return None if name == "torch" else super().find_spec(name, path, target)


def _show_crash(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """A fault of ours, as Python shows it, but for the secrets that a library's message may hold."""
    print(redact("".join(traceback.format_exception(kind, error, trace))), file=sys.stderr, end="")


def _as_text(argument: str) -> str:
    """An argument in UTF-8 where the locale could not read it: halves of characters are no text."""
    try:
        argument.encode()
    except UnicodeEncodeError:
        return os.fsencode(argument).decode("utf-8", "surrogateescape")
    return argument


def keep_compiled_programs() -> str | None:
    """A second start finds its programs compiled, unless JAX_COMPILATION_CACHE_DIR (or an empty one) says otherwise.

    Returns:
      what to tell of them, where they cannot be kept.
    """
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    if os.environ.get(_CACHE) == "":
        return None
    try:
        place = path_of(os.environ[_CACHE]) if _CACHE in os.environ else _caches() / "sami_jax" / f"compiled-{_cpu()}"
    except UserError:
        os.environ.pop(_CACHE, None)
        return f"no home folder is known: {_NOT_KEPT}"
    os.environ[_CACHE] = str(place)
    if may_be_written(place):
        return None
    if not place.is_dir():  # else there may be some to read
        del os.environ[_CACHE]
    return f"{place} may not be written to: {_NOT_KEPT}"


def _caches() -> Path:
    """Where programs of this user keep what they can make again."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    return Path(given) if os.path.isabs(given) else path_of("~/.cache")


def _cpu() -> str:
    """Programs for CPU hold whatever instructions the CPU has, so each kind of CPU has a folder of its own."""
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text(encoding="utf-8", errors="replace").splitlines() if cpu.exists() else []
    flags = [line for line in lines if line.startswith("flags")][:1]
    return hashlib.sha256("".join([platform.machine(), *flags]).encode()).hexdigest()[:8]
