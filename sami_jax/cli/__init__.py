"""The `sami` command: parses, validates, calls.

Exit status, each but 0 said in one line on stderr:
    0  done                                         4  another process of the run was lost
    1  `sami doctor`: something is missing          5  weights, losses or log-likelihoods are no numbers
    2  bad input, or a disk that cannot hold it     130, 143, 129  stopped by SIGINT, SIGTERM, SIGHUP
    3  stopped by its canaries
"""

import argparse
import gc
import hashlib
import logging
import os
import platform
import sys
import traceback
from importlib.machinery import PathFinder
from pathlib import Path
from types import TracebackType

from sami_jax.cli.options import hushed, join, nearest
from sami_jax.cli.parser import new_parser
from sami_jax.errors import NotFinite, Stopped, StoppedByCanary, UserError
from sami_jax.ground import hosts
from sami_jax.ground.disk import disk_fault
from sami_jax.ground.redaction import redact
from sami_jax.ground.stopping import at_once


def main(argv: list[str] | None = None) -> int:
    """Returns the exit status. Where `argv` is None, the process is ours, and a bad end ends it here and now: after a write that
    failed, threads of Orbax wait for one another for minutes."""
    status = _call(argv)
    if argv is None and status:
        hosts.exit_now(status)
    return status


def _call(argv: list[str] | None) -> int:
    # Quiet libraries before any of them is imported: their news would stand between the user and ours.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    for name in ("absl", "asyncio"):  # where Orbax logs an error, with a traceback, before or after it raises it
        logging.getLogger(name).setLevel(logging.CRITICAL)
    if argv is None:
        _hurry()
        sys.excepthook = _show_crash
    _keep_compiled_programs()
    arguments, rest = new_parser().parse_known_args(argv)
    overrides = [argument for argument in rest if argument.startswith("--config.")]
    verb = " ".join(filter(None, (arguments.verb, getattr(arguments, "subverb", None))))
    if unknown := [argument for argument in rest if argument not in overrides]:
        option = unknown[0].partition("=")[0]
        hint = nearest(option, arguments.options) if option.startswith("-") else ""
        return _complain(f"{unknown[0]}: not an option of `sami {verb}`{hint}; see `sami {verb} --help`")
    if overrides and "config" not in arguments:
        return _complain(f"{overrides[0]}: `sami {verb}` takes no config; see `sami {verb} --help`")
    arguments.overrides = overrides
    try:
        if "distributed" in arguments:
            join(arguments)
        with at_once(), hushed(arguments):
            status = arguments.call(arguments)
            hosts.leave()
            return status or 0
    except UserError as error:
        return _complain(str(error))
    except StoppedByCanary as stop:
        return _complain(str(stop), status=3)
    except NotFinite as error:
        return _complain(str(error), status=5)
    except Stopped as stop:
        return _complain(str(stop), status=stop.status)
    except BrokenPipeError:  # the reader of our output has gone, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Exception as error:
        if fault := disk_fault(error, _output(arguments)):
            return _complain(fault)
        if isinstance(error, ModuleNotFoundError) and not (error.name or "sami_jax").startswith("sami_jax"):
            return _complain(f"{error.name} is not installed; `sami doctor` says what is missing and how to install it")
        if isinstance(error, OSError):  # a place that cannot be read or written
            where = error.filename2 or error.filename or "a file"
            return _complain(f"{where}: {error.strerror or error}; give another place, or mend this one")
        hosts.crash()
        raise
    return 0


def _output(arguments: argparse.Namespace) -> Path:
    """Where a command writes."""
    given = (getattr(arguments, name, None) for name in ("workdir", "output", "folder"))
    return next(filter(None, given), Path.cwd())


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


def _keep_compiled_programs() -> None:
    """A second start finds its programs compiled, unless JAX_COMPILATION_CACHE_DIR (or an empty one) says otherwise.

    Programs for CPU hold whatever instructions the CPU has, so each kind of CPU has a folder of its own.
    """
    cpu = Path("/proc/cpuinfo")
    flags = [line for line in cpu.read_text().splitlines() if line.startswith("flags")][:1] if cpu.exists() else []
    kind = hashlib.sha256("".join([platform.machine(), *flags]).encode()).hexdigest()[:8]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sami_jax" / f"compiled-{kind}"
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")


def _show_crash(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """A fault of ours, as Python shows it, but for the secrets that a library's message may hold."""
    print(redact("".join(traceback.format_exception(kind, error, trace))), file=sys.stderr, end="")


def _complain(message: str, status: int = 2) -> int:
    if hosts.says(message):
        from sami_jax.ground.terminal import visible

        print(f"sami: {visible(redact(' '.join(message.split())))}", file=sys.stderr)
    hosts.end(status)
    return status
