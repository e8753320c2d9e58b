"""`sami watch`: its options, and what they lead to."""

import argparse
import contextlib
import dataclasses
import tempfile
from pathlib import Path

from sami_jax.cli.options import add_verb, any_path, new_folder, tell_programs, with_endpoint, with_results
from sami_jax.errors import Alarmed, UserError
from sami_jax.ground.stopping import gracefully

PAGE_EVERY = 60.0  # seconds between two pages while a log is followed


def add_verbs(verbs) -> None:
    watch = add_verb(
        verbs,
        "watch",
        _watch,
        "has a served model changed? its logs, window by window, against limits",
        "sami watch logs/*.jsonl* --run runs/demo --output watch --window 1d",
    )
    watch.add_argument(
        "logs",
        nargs="+",
        metavar="FILE",
        help='JSONL of {"time", "query", "response"}, with "model", "constitution" and "tags" where there are any, or of requests and '
        "replies of the OpenAI protocol; .gz too, rotated ones in any order; - for standard input",
    )
    watch.add_argument(
        "--output", type=new_folder, required=True, help="folder for watch.jsonl and the page; goes on where it was"
    )
    watch.add_argument("--run", type=any_path, help="the run's folder: its principles, judge and evaluation")
    watch.add_argument(
        "--window",
        default="2000",
        metavar="N|TIME",
        help="answers of a window, or its time: 30m, 6h, 1d, 1w; default 2000",
    )
    watch.add_argument(
        "--first", type=int, default=30, help="windows that the later ones are compared with; default 30"
    )
    watch.add_argument(
        "--sample", type=int, default=100, help="answers of a window that are drawn for what takes longer; default 100"
    )
    watch.add_argument("--seed", type=int, default=0, help="of the drawing")
    watch.add_argument("--principles", type=any_path, help="folder of principle files; default: those of the run")
    watch.add_argument(
        "--judge",
        metavar="DIR|NAME|checks|miniature|none",
        help="who says what is followed: the principles' files, the miniature's exact judge, a model folder, a model at --endpoint; "
        "default: the run's, where it is exact, else none",
    )
    watch.add_argument(
        "--judged", type=int, default=50, help="answers of a window that a judge who is asked decides on; default 50"
    )
    with_endpoint(watch, "400")
    watch.add_argument("--concurrency", type=int, default=8, help="requests at a time")
    watch.add_argument("--batch_size", type=int, default=8, help="questions a model folder computes together")
    watch.add_argument(
        "--follow", action="store_true", help="go on as the last file is written, also through its rotation"
    )
    watch.add_argument("--webhook", metavar="URL", help="send each alarm there, by POST as JSON")
    watch.add_argument(
        "--redact",
        action="append",
        default=[],
        metavar="PATTERN",
        help="mask what it finds in texts that are kept, shown or sent (RE2); may be repeated",
    )
    watch.add_argument("--numbers_only", action="store_true", help="keep, show and send no text of an answer")
    watch.add_argument("--language", choices=("en", "ja"), default="en", help="of the page")
    with_results(watch)


def _watch(arguments: argparse.Namespace) -> int | None:
    import time

    from sami_jax.ground.lock import lock_folder
    from sami_jax.ground.terminal import say, show
    from sami_jax.watch.logs import check_files, in_order, lines
    from sami_jax.watch.page import write_page
    from sami_jax.watch.webhook import Webhook

    _check(arguments)
    check_files(arguments.logs, arguments.follow)
    webhook = Webhook(arguments.webhook) if arguments.webhook else None
    with contextlib.ExitStack() as held:
        held.enter_context(lock_folder(arguments.output))
        watch, principles = _made(arguments, held)

        def page() -> Path:
            return write_page(arguments.output, watch, principles, arguments.language, arguments.numbers_only)

        file, told = None, 0.0
        with gracefully():
            for alarms in watch.watch(lines(in_order(arguments.logs), arguments.follow)):
                for alarm in alarms:
                    if webhook:
                        webhook.send(alarm)
                    if arguments.follow:
                        say(f"alarm: {alarm.line}")
                if arguments.follow and (alarms or time.monotonic() > told + PAGE_EVERY):
                    file, told = page(), time.monotonic()
        file = page() if watch.windows else file
    if watch.passed.counts:
        say(f"passed over: {watch.passed.told()}")
    if watch.noted:
        say(f"used: {', '.join(f'{count} {reason}' for reason, count in watch.noted.items())}")
    if not watch.windows:
        raise UserError(
            f"{arguments.logs[0]}: {watch.unfinished} answers, not one whole window of {arguments.window}; give a smaller --window, or more"
        )
    alarms = [alarm.record() for alarm in watch.alarms]
    counted = {
        "windows": watch.windows,
        "answers": watch.answers,
        "unfinished": watch.unfinished,
        "ready": watch.control.ready,
    }
    tell_programs(
        arguments,
        {
            **counted,
            "page": str(file),
            "alarms": alarms,
            "passed_over": dict(watch.passed.counts),
            "noted": dict(watch.noted),
        },
    )
    show(
        f"{watch.windows} windows, {watch.answers} answers, {watch.unfinished} in one that has not ended; page: {file}"
    )
    if not watch.control.ready:
        show(f"no alarm can be given yet: {watch.windows} of the first {arguments.first} windows are there")
    if watch.alarms:
        more = f"; {len(watch.alarms) - 1} more in {arguments.output / 'watch.jsonl'}" if len(watch.alarms) > 1 else ""
        raise Alarmed(f"alarm: {watch.alarms[0].line}{more}")


def _check(arguments: argparse.Namespace) -> None:
    from sami_jax.principles.checks.patterns import size

    for name, least in (
        ("first", 10),
        ("sample", 1),
        ("judged", 1),
        ("timeout", 1e-9),
        ("concurrency", 1),
        ("batch_size", 1),
    ):
        if getattr(arguments, name) < least:
            raise UserError(
                f"--{name} {getattr(arguments, name)}: must be {'above 0' if least < 1 else f'at least {least}'}"
            )
    for name, most in (("sample", 100_000), ("first", 100_000)):
        if getattr(arguments, name) > most:
            raise UserError(f"--{name} {getattr(arguments, name)}: at most {most}")
    for pattern in arguments.redact:
        size(pattern)


def _made(arguments: argparse.Namespace, held: contextlib.ExitStack):
    """The watch that the options describe, and the principles that it looks at."""
    from sami_jax.evaluation.judges import CACHE
    from sami_jax.report.data import gather
    from sami_jax.watch.alarm import Examples
    from sami_jax.watch.evaluated import evaluated
    from sami_jax.watch.journal import Made
    from sami_jax.watch.measuring import Measuring
    from sami_jax.watch.settings import Judged, settings
    from sami_jax.watch.watching import Span, Watch

    span = Span.read(arguments.window)
    run = gather(arguments.run) if arguments.run else None
    examples = Examples(arguments.redact, arguments.numbers_only)
    cache = Path(held.enter_context(tempfile.TemporaryDirectory()))
    wanted = Judged(**{field.name: getattr(arguments, field.name) for field in dataclasses.fields(Judged)})
    chosen = settings(run, arguments.principles, wanted, cache)
    measuring = Measuring(chosen.principles, chosen.judge, arguments.judged, examples.masked, cache / CACHE)
    measured = evaluated(run.trained, measuring, chosen.refusals) if run and run.trained else {}
    made = Made(str(span), arguments.sample, arguments.first, chosen.name, arguments.seed)
    return Watch(arguments.output, span, made, measuring, examples, measured, chosen.refusals), chosen.principles
