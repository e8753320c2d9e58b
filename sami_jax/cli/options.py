"""What the verbs share: how one is added, options that several take, and what these lead to."""

import argparse
import contextlib
import difflib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from sami_jax.errors import TryAgain, UserError
from sami_jax.ground import hosts
from sami_jax.ground.disk import disk_fault
from sami_jax.ground.paths import path_of


class Parser(argparse.ArgumentParser):
    """Errors in one line, without the usage text; of a word that is not known, the nearest that is."""

    def _check_value(self, action: argparse.Action, value) -> None:
        if action.choices is not None and value not in action.choices:
            hint = nearest(value, action.choices) or f"; choose from {', '.join(map(str, action.choices))}"
            raise argparse.ArgumentError(action, f"{value!r} is not known{hint}")

    def error(self, message: str):
        from sami_jax.ground.redaction import redact
        from sami_jax.ground.terminal import visible

        self.exit(2, f"sami: {visible(redact(' '.join(message.split())))}; see `{self.prog} --help`\n")


def nearest(word: str, known: Iterable[str]) -> str:
    """ "; did you mean ...?", or nothing where no known word is near."""
    close = difflib.get_close_matches(str(word), map(str, known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else ""


def add_verb(sub, name: str, call: Callable | None, summary: str, example: str) -> Parser:
    """Adds a verb whose help ends in an example.

    Args:
      call: takes the parsed arguments, may return an exit status; None for a verb that has verbs of its own.
    """
    parser = sub.add_parser(
        name,
        help=summary,
        description=summary,
        epilog=f"example: {example}",
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(call=call, options=parser._option_string_actions)
    if call:
        parser.add_argument("--quiet", action="store_true", help="no progress and no news: the results and errors only")
    return parser


def with_results(sub: argparse.ArgumentParser) -> None:
    """Lets a verb give its results to programs; see `tell_programs`."""
    sub.add_argument("--json", action="store_true", help="the results as JSON, for programs")


@contextlib.contextmanager
def hushed(arguments: argparse.Namespace) -> Iterator[None]:
    """Within, nothing is said that --quiet or --json keep out."""
    from sami_jax.ground import terminal

    kept = terminal.console.quiet, terminal.results.quiet
    terminal.console.quiet |= arguments.quiet
    terminal.results.quiet |= getattr(arguments, "json", False)
    try:
        yield
    finally:
        terminal.console.quiet, terminal.results.quiet = kept


def tell_programs(arguments: argparse.Namespace, content) -> None:
    """Where --json is given, prints the results, which then are all there is on stdout. Text is in ASCII: none of it can steer a
    terminal."""
    from sami_jax.ground.redaction import redacted

    if arguments.json and hosts.first():
        print(json.dumps(redacted(content), indent=2))


def any_path(text: str) -> Path:
    """An option's path of what is there."""
    try:
        return path_of(text)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def new_file(text: str) -> Path:
    """An option's path of a file to be written: told before anything costly is done that it cannot be."""
    path = any_path(text)
    if not path.name or os.path.isdir(path):
        raise argparse.ArgumentTypeError(f"{text or 'an empty path'} is a folder; name a file")
    _check_place(path, path.parent)
    return path


def new_folder(text: str) -> Path:
    """An option's path of a folder to write into, which need not be there yet."""
    path = any_path(text)
    _check_place(path, path)
    return path


def _check_place(path: Path, folder: Path) -> None:
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        if isinstance(disk_fault(error, folder), TryAgain):  # it is the place, which does not answer
            raise
        raise argparse.ArgumentTypeError(f"{path!s:.80}: {error.strerror}; give another place") from None
    there = next(one for one in (folder, *folder.absolute().parents) if os.path.exists(one))
    if not os.path.isdir(there):
        raise argparse.ArgumentTypeError(f"{there} is no folder; give another place")
    if not os.access(there, os.W_OK):
        raise argparse.ArgumentTypeError(f"{there} may not be written to; give another place")


def with_config(sub: argparse.ArgumentParser) -> None:
    """Lets a verb take --config and its overrides."""
    sub.add_argument(
        "--config",
        default="tiny",
        metavar="NAME|FILE[:ARG]",
        help="a config by name or file; change fields with --config.FIELD=VALUE",
    )


def with_endpoint(sub: argparse.ArgumentParser, max_tokens: str) -> None:
    """Lets a verb ask a model behind a server.

    Args:
      max_tokens: the default of --max_tokens, in words.
    """
    sub.add_argument("--endpoint", metavar="URL", help="base URL of a server that speaks the OpenAI protocol")
    sub.add_argument(
        "--api",
        choices=("chat", "completions"),
        default="chat",
        help="of the endpoint, or of a model folder with a chat template; completions for base models",
    )
    sub.add_argument(
        "--key_variable", default="OPENAI_API_KEY", metavar="NAME", help="environment variable that holds the key"
    )
    sub.add_argument("--timeout", type=float, default=120.0, help="seconds a request may take")
    sub.add_argument(
        "--max_tokens",
        type=int,
        metavar="N",
        help=f"tokens that a reply may take, thoughts included; default {max_tokens}",
    )


def with_hosts(sub: argparse.ArgumentParser) -> None:
    """Lets a verb run as one of many processes; see `join`."""
    group = sub.add_argument_group("many hosts", "the same command on each, in a folder that all share")
    group.add_argument(
        "--distributed",
        action="store_true",
        help="TPU metadata, Slurm, Open MPI 4 or Kubernetes (extra k8s) tell which processes there are",
    )
    group.add_argument("--coordinator", metavar="HOST:PORT", help="or say it: where the first process listens,")
    group.add_argument("--processes", type=int, metavar="N", help="how many there are,")
    group.add_argument("--process", type=int, metavar="I", help="and which this one is, from 0")
    group.add_argument(
        "--lost_after",
        type=int,
        metavar="SECONDS",
        help=f"without a sign of life after which a process is taken for lost; default {hosts.LOST_AFTER}",
    )
    group.add_argument(
        "--start_within",
        type=int,
        metavar="SECONDS",
        help=f"in which all processes must have come; default {hosts.START_WITHIN}",
    )


def with_skipping(sub: argparse.ArgumentParser) -> None:
    """Lets a verb pass over rows that it cannot use; see `skipped_by`."""
    sub.add_argument(
        "--skip_bad_rows",
        action="store_true",
        help="pass over input rows that cannot be used, and count them by reason",
    )


def skipped_by(arguments: argparse.Namespace):
    """What takes the bad rows, a `rows.Skipped`, where the user wants them passed over; else None."""
    from sami_jax.data.rows import Skipped

    return Skipped() if arguments.skip_bad_rows else None


def join(arguments: argparse.Namespace) -> None:
    """Joins the other processes, if there are any.

    Raises:
      UserError: options that do not go together, or what `hosts.join` raises.
    """
    told = {name: getattr(arguments, name) for name in ("coordinator", "processes", "process")}
    given = [name for name, value in told.items() if value is not None]
    limits = {name: getattr(arguments, name) for name in ("lost_after", "start_within")}
    limits = {name: seconds for name, seconds in limits.items() if seconds is not None}
    if not given and not arguments.distributed:
        for name in limits:
            raise UserError(f"--{name}: there are no other processes; add --distributed, or leave it out")
        return
    if given and arguments.distributed:
        raise UserError(f"--distributed finds out --{given[0]} by itself; leave one of them out")
    if given and (missing := [name for name in told if name not in given]):
        raise UserError(f"--{given[0]}: --{missing[0]} is missing; give --coordinator, --processes and --process")
    if given:
        _, _, port = arguments.coordinator.rpartition(":")
        if not (port.isdigit() and 0 < int(port) < 2**16 and len(arguments.coordinator) > len(port) + 1):
            raise UserError(f"--coordinator {arguments.coordinator}: must be HOST:PORT")
        if not 0 <= arguments.process < arguments.processes:
            raise UserError(
                f"--process {arguments.process}: must be from 0 to one less than --processes {arguments.processes}"
            )
    for name, seconds in limits.items():
        if seconds < 5:
            raise UserError(f"--{name} {seconds}: must be at least 5 seconds")
    hosts.join(**told, **limits)
    if not hosts.first():
        from sami_jax.ground import terminal

        terminal.console.quiet = terminal.results.quiet = True
