"""What a finished run prints: one table, and three queries before and after."""

from collections.abc import Sequence
from pathlib import Path
from textwrap import shorten

from rich import box
from rich.table import Table

from sami_jax.data.jsonl import parse_measured, read_json, read_jsonl
from sami_jax.terminal import results, show

EXAMPLES = 3
EXAMPLE_WIDTH = 400  # characters shown of a text; the files hold it whole
SET_TITLES = {
    "trained": "trained principles",
    "held_out_principles": "held-out principles",
    "held_out_phrasings": "trained principles, held-out wordings",
}


def print_summary(folders: Sequence[Path]) -> None:
    """Reads everything from the iterations' folders, the base's first."""
    measured = [read_json(folder / "evaluation.json", "restore it", parse_measured) for folder in folders]
    results.print()
    for name in measured[0]:
        results.print(_table(name, [one[name] for one in measured]))
    if len(folders) > 1:
        _print_examples(next(iter(measured[0])), folders[0], folders[-1])
        show(f"Model: {folders[-1] / 'model'}")


def _table(name: str, rows: list[dict]) -> Table:
    title = f"Held-out queries, {SET_TITLES[name]}: {rows[0]['responses']} responses each"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("model", no_wrap=True)
    # Intervals are 95 %.
    for column in ("following", "wins over base", "well-formed", "MI, nats", "tokens"):
        table.add_column(column, justify="right", no_wrap=True)
    for number, row in enumerate(rows):
        table.add_row(
            f"iteration {number}" if number else "base",
            percent(row, "following"),
            percent(row, "win_rate", "win_rate_interval"),
            percent(row, "well_formed"),
            f"{row['mi_posterior_bound']:.3f}",
            f"{row['mean_tokens']:.1f}",
        )
    return table


def percent(row: dict, key: str, interval: str | None = None) -> str:
    """A share as "88.3 %", with its interval if one is named; "-" where it was not measured."""
    if key not in row:
        return "-"
    text = f"{100 * row[key]:.1f} %"
    return f"{text} ({100 * row[interval][0]:.0f}-{100 * row[interval][1]:.0f})" if interval else text


def _print_examples(name: str, before: Path, after: Path) -> None:
    pairs = list(zip(*(read_jsonl(folder / "evaluation" / f"{name}.jsonl") for folder in (before, after)), strict=True))
    for base, trained in pairs[:: max(1, len(pairs) // EXAMPLES)][:EXAMPLES]:
        rows = (
            ("query", base["query"]),
            ("constitution", base["constitution"]),
            ("base", base["response"]),
            ("trained", trained["response"]),
        )
        for label, text in rows:
            line = " / ".join(filter(None, text.strip().split("\n")))
            show(f"{label:>12}  {shorten(line, EXAMPLE_WIDTH)}")
        results.print()
