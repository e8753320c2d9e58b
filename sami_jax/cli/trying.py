"""What `sami principles check --responses` does: tries the checks, shows a table and examples."""

import argparse
from collections.abc import Sequence

from rich import box
from rich.table import Table

from sami_jax.cli.options import skipped_by, tell_programs
from sami_jax.errors import UserError
from sami_jax.evaluation.trial import Trial, Tried, try_checks
from sami_jax.ground.terminal import cell, show, show_table
from sami_jax.principles.files import read_principles

NUMBERS = ("responses", "followed", "share (95 %)", "both sides", "neither", "echoes")


def try_on_responses(arguments: argparse.Namespace) -> None:
    if arguments.show < 0:
        raise UserError(f"--show {arguments.show}: must be 0 or more")
    trials = try_checks(arguments.responses, read_principles(arguments.folder), skipped_by(arguments))
    tell_programs(arguments, [trial.record() for trial in trials])
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("principle", no_wrap=True)
    table.add_column("side", no_wrap=True)
    for column in NUMBERS:
        table.add_column(column, justify="right", no_wrap=True)
    for trial in trials:
        low, high = (f"{100 * end:.0f}" for end in trial.interval)
        share = f"{100 * trial.followed / trial.responses:.1f} % ({low}-{high})"
        numbers = (trial.responses, trial.followed, share, trial.both, trial.neither, trial.echoes)
        table.add_row(cell(trial.name), trial.side, *map(str, numbers))
    show_table(table)
    for trial in trials if arguments.show else ():
        _show_examples(trial, arguments.show)


def _show_examples(trial: Trial, most: int) -> None:
    """Of each outcome the first few responses."""
    mine = trial.side == "principle"
    for words, chosen in (
        ("followed", lambda one: (one.principle if mine else one.antithesis) and one.principle != one.antithesis),
        ("both sides", lambda one: one.principle and one.antithesis),
        ("the other side", lambda one: (one.antithesis if mine else one.principle) and one.principle != one.antithesis),
        ("neither", lambda one: not one.principle and not one.antithesis and not one.echo),
        ("echo", lambda one: one.echo),
    ):
        examples: Sequence[Tried] = [one for one in trial.examples if chosen(one)]
        for one in examples[:most]:
            show(f"{trial.name}, {trial.side}: {words}: {one.id}: {' '.join(one.response.split())[:300]}")
