"""The `sami` command: parses, validates, calls.

Exit status, each but 0 said in one line on stderr:
    0  done                                         4  another process of the run was lost
    1  `sami doctor`: something is missing          5  weights, losses or log-likelihoods are no numbers
    2  bad input, or a disk that cannot hold it     75  network, names or storage did not answer: try again
    3  stopped by its canaries; `watch`: an alarm   130, 143, 129  stopped by SIGINT, SIGTERM, SIGHUP
"""

import argparse
import contextlib
import logging
import os
import sys
from pathlib import Path

from sami_jax.cli.options import hushed, join, nearest
from sami_jax.cli.parser import new_parser
from sami_jax.cli.start import keep_compiled_programs, set_up
from sami_jax.errors import (
    BAD_INPUT,
    NOT_FINITE,
    STOPPED_BY_CANARIES,
    Alarmed,
    NotFinite,
    Stopped,
    StoppedByCanary,
    TryAgain,
    UserError,
)
from sami_jax.ground import hosts
from sami_jax.ground.disk import disk_fault
from sami_jax.ground.redaction import redact
from sami_jax.ground.stopping import at_once


def main(argv: list[str] | None = None) -> int:
    """Returns the exit status. Where `argv` is None, the process is ours, and a bad end ends it here and now: after a write that
    failed, threads of Orbax wait for one another for minutes."""
    if argv is not None:
        return _call(argv)
    if status := _call(set_up()):
        hosts.exit_now(status)
    return 0


def _call(argv: list[str]) -> int:
    # Quiet libraries before any of them is imported: their news would stand between the user and ours.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    for name in ("absl", "asyncio"):  # where Orbax logs an error, with a traceback, before or after it raises it
        logging.getLogger(name).setLevel(logging.CRITICAL)
    arguments = argparse.Namespace()
    try:
        try:
            return _answer(argv, arguments)
        finally:
            sys.stdout.flush()  # what cannot be written is told here, not by Python on its way out
    except UserError as error:
        return _complain(str(error), error.status)
    except (StoppedByCanary, Alarmed) as stop:
        return _complain(str(stop), STOPPED_BY_CANARIES)
    except NotFinite as error:
        return _complain(str(error), NOT_FINITE)
    except Stopped as stop:
        return _complain(str(stop), stop.status)
    except BrokenPipeError:  # the reader of our output has gone, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except UnicodeEncodeError as error:
        return _complain(f"{error.object}: cannot be spelled in this locale ({error.encoding}); set LC_ALL=C.UTF-8")
    except Exception as error:
        if fault := disk_fault(error, _output(arguments)):
            if isinstance(fault, TryAgain):
                hosts.lost_or_network()
            return _complain(str(fault), fault.status)
        if isinstance(error, ModuleNotFoundError) and not (error.name or "sami_jax").startswith("sami_jax"):
            return _complain(f"{error.name} is not installed; `sami doctor` says what is missing and how to install it")
        if isinstance(error, OSError):  # a place that cannot be read or written
            unnamed = "the folder we are in" if isinstance(error, FileNotFoundError) else "a file"
            where = error.filename2 or error.filename or unnamed
            return _complain(f"{where}: {error.strerror or error}; give another place, or mend this one")
        hosts.crash()
        raise


def _answer(argv: list[str], arguments: argparse.Namespace) -> int:
    """Parses into `arguments`, validates, calls."""
    not_kept = keep_compiled_programs()
    _, rest = new_parser().parse_known_args(argv, arguments)
    overrides = [argument for argument in rest if argument.startswith("--config.")]
    verb = " ".join(filter(None, (arguments.verb, getattr(arguments, "subverb", None))))
    if unknown := [argument for argument in rest if argument not in overrides]:
        option = unknown[0].partition("=")[0]
        hint = nearest(option, arguments.options) if option.startswith("-") else ""
        raise UserError(f"{unknown[0]}: not an option of `sami {verb}`{hint}; see `sami {verb} --help`")
    if overrides and "config" not in arguments:
        raise UserError(f"{overrides[0]}: `sami {verb}` takes no config; see `sami {verb} --help`")
    arguments.overrides, arguments.not_kept = overrides, not_kept
    if "distributed" in arguments:
        join(arguments)
    with at_once(), hushed(arguments):
        if not_kept and "compiles" in arguments:
            from sami_jax.ground.terminal import say

            say(not_kept)
        status = arguments.call(arguments)
        hosts.leave()
        return status or 0


def _output(arguments: argparse.Namespace) -> Path:
    """Where a command writes."""
    given = (getattr(arguments, name, None) for name in ("workdir", "output", "folder"))
    with contextlib.suppress(OSError):  # the folder we are in is gone
        return next(filter(None, given), None) or Path.cwd()
    return Path()


def _complain(message: str, status: int = BAD_INPUT) -> int:
    if hosts.says(message):
        from sami_jax.ground.terminal import visible

        print(f"sami: {visible(redact(' '.join(message.split())))}", file=sys.stderr)
    hosts.end(status)
    return status
