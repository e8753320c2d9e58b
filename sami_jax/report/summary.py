"""What a finished run prints: one table, and three queries before and after. What programs are told of it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import shorten

from rich import box
from rich.table import Table

from sami_jax.data.jsonl import parse_measured, read_appended, read_json, read_jsonl
from sami_jax.ground.redaction import redact
from sami_jax.ground.terminal import cell, show, show_table
from sami_jax.provenance.manifest import read_statement
from sami_jax.report.data import LEAST_EFFECTIVE, effective_update

EXAMPLES = 3
EXAMPLE_WIDTH = 400  # characters shown of a text; the files hold it whole
HELD_OUT = "held_out_principles"
SET_TITLES = {
    "trained": "trained principles",
    HELD_OUT: "held-out principles",
    "held_out_phrasings": "trained principles, held-out wordings",
    "bare": "trained principles, not stated in the prompt",
}


def print_summary(folders: Sequence[Path]) -> None:
    """Reads everything from the iterations' folders, the base's first."""
    measured = [read_json(folder / "evaluation.json", "restore it", parse_measured) for folder in folders]
    show()
    labels = ["base", *(f"iteration {number}" for number in range(1, len(measured)))]
    for name in measured[0]:
        show_table(_table(name, dict(zip(labels, (one[name] for one in measured), strict=True))))
        if name == HELD_OUT:
            _show_principles(labels[-1], measured[-1][name], measured[0][name])
    for label, folder in zip(labels, folders, strict=True):
        if (share := _effective(folder)) is not None and share < LEAST_EFFECTIVE:
            show(
                f"WARNING: {label}: {share:.0%} of its updates reached the weights computed with: config.train.param_dtype",
                "bold",
            )
    if len(folders) > 1:
        _print_examples(next(iter(measured[0])), folders[0], folders[-1])
        show(f"Model: {folders[-1] / 'model'}")


def print_evaluation(label: str, measured: Mapping[str, dict]) -> None:
    """One model's evaluation.json."""
    for name, row in measured.items():
        show_table(_table(name, {label: row}))
        if name == HELD_OUT:
            _show_principles(label, row)


def as_json(workdir: Path) -> dict:
    """How a run ended: its status, and the evaluation and the model folder of each iteration, the base's first."""
    folders = {f.name.removeprefix("iteration_"): f for f in workdir.glob("iteration_*")}
    measured = sorted(int(n) for n, f in folders.items() if n.isdecimal() and (f / "evaluation.json").is_file())
    return {
        "workdir": str(workdir),
        "status": read_statement(workdir)["predicate"]["status"],
        "iterations": [
            {
                "iteration": n,
                "model": str(folders[str(n)] / "model") if (folders[str(n)] / "model").is_dir() else None,
                "effective_update": _effective(folders[str(n)]),
                "evaluation": read_json(folders[str(n)] / "evaluation.json", "restore it", parse_measured),
            }
            for n in measured
        ],
        "report": str(workdir / "report.html"),
    }


def _effective(folder: Path) -> float | None:
    """Of an iteration's updates, as `metrics.jsonl` has it."""
    return effective_update(read_appended(folder / "metrics.jsonl"))


def _table(name: str, rows: Mapping[str, dict]) -> Table:
    """Of an evaluation set: a row a model."""
    title = f"Held-out queries, {SET_TITLES[name]}: {next(iter(rows.values()))['responses']} responses each"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("model", no_wrap=True)
    # Intervals are 95 %.
    for column in ("following", "wins over base", "well-formed", "MI, nats", "tokens"):
        table.add_column(column, justify="right", no_wrap=True)
    for label, row in rows.items():
        table.add_row(
            cell(label),
            percent(row, "following"),
            percent(row, "win_rate", "win_rate_interval"),
            percent(row, "well_formed"),
            f"{row['mi_posterior_bound']:.3f}",
            f"{row['mean_tokens']:.1f}",
        )
    return table


def _show_principles(label: str, row: dict, base: dict | None = None) -> None:
    """Each principle of a set, of a model that `label` names, beside the base where there is one."""
    principles = row.get("principles", {})  # none where nobody judges, or in a run of an earlier version
    if not principles:
        return
    title = cell(f"Each of them, {label}; intervals are for these {len(principles)}, not for others")
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("principle", no_wrap=True)
    for column in ("responses", "base", "following", "wins over base"):
        table.add_column(column, justify="right", no_wrap=True)
    for id, found in principles.items():
        table.add_row(
            cell(id),
            str(found["responses"]),
            percent((base or {}).get("principles", {}).get(id, {}), "following"),
            percent(found, "following", "following_interval"),
            percent(found, "win_rate", "win_rate_interval"),
        )
    show_table(table)


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
        table = Table.grid(padding=(0, 2))  # breaks lines between words
        table.add_column(justify="right", no_wrap=True)
        table.add_column()
        for label, text in rows:
            line = " / ".join(filter(None, text.strip().split("\n")))
            table.add_row(label, cell(shorten(redact(line), EXAMPLE_WIDTH)))
        show_table(table)
        show()
