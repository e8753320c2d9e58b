"""What a study prints, and its page."""

from collections.abc import Callable, Mapping
from pathlib import Path

from rich import box
from rich.table import Table

from sami_jax.data.jsonl import write_text
from sami_jax.evaluation.study import settings_of
from sami_jax.ground.terminal import cell, show, show_table
from sami_jax.report.summary import SET_TITLES, percent
from sami_jax.report.write import page

PAGE = "study.html"
Columns = Mapping[
    str, Callable[[dict], str]
]  # what stands in a column of a method's row, "-" for what was not measured


def _number(key: str, shown: str, unit: float = 1) -> Callable[[dict], str]:
    return lambda row: "-" if row.get(key) is None else shown.format(row[key] / unit)


def _taken(key: str, shown: str, unit: float = 1) -> Callable[[dict], str]:
    """Of what it took to make a model; nothing where nothing was made."""
    return lambda row: _number(key, shown, unit)(row) if row.get(key) else "-"


def _by_seed(row: dict) -> str:
    seeds = ", ".join(f"{100 * share:.1f}" for share in row.get("following_by_seed", {}).values())
    stopped = f" ({len(row['stopped_by_canaries'])} stopped)" if row["stopped_by_canaries"] else ""
    return (seeds or "-") + stopped


# Of an evaluation set; a terminal has room for these ...
MAIN: Columns = {
    "following": lambda row: percent(row, "following", "following_interval"),
    "wins over base": lambda row: percent(row, "win_rate", "win_rate_interval"),
    "strength": _number("strength", "{:+.2f}"),
    "well-formed": lambda row: percent(row, "well_formed"),
    "MI, nats": _number("mi_posterior_bound", "{:.3f}"),
    "tokens": _number("mean_tokens", "{:.1f}"),
}
# ... and the page for these too.
OF_SET: Columns = MAIN | {"at equal length": _number("win_rate_at_equal_length", "{:.1f} %", 0.01), "by seed": _by_seed}
# Of a method, whatever the set.
OF_METHOD: Columns = {
    "distinct-2": _number("distinct_2_of_a_prompt", "{:.3f}"),
    "entropy": _number("entropy_2", "{:.2f}"),
    "perplexity": _number("perplexity", "{:.2f}"),
    "kept, nats": _number("kept_logprob_change", "{:+.2f}"),
    "tokens to make": _taken("forward_tokens", "{:.2f} M", 1e6),
    "seconds": _taken("seconds", "{:.0f}"),
}


def print_study(found: dict) -> None:
    """A table an evaluation set, one of the methods, and the settings that were chosen."""
    for name, rows in found["sets"].items():
        _print_table(_title(name, rows), rows, MAIN)
    _print_table("Of each method", next(iter(found["sets"].values())), OF_METHOD)
    for method, one in found["chosen"].items():
        choice = f"the best of {len(one['grid'])} on validation queries" if one["grid"] else "given, not chosen"
        show(f"{method}: {settings_of(one)}; {choice}")


def _print_table(title: str, rows: dict, columns: Columns) -> None:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("method", no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    for method, row in rows.items():
        table.add_row(cell(method), *cells(row, columns))
    show_table(table)


def write_page(found: dict, workdir: Path) -> Path:
    """Writes study.html into the study's folder: the tables, what was chosen and from what; without scripts."""
    here = Path(__file__).parent
    tables = [_shown(_title(name, rows), rows, OF_SET) for name, rows in found["sets"].items()]
    tables.append(_shown("Of each method, whatever the set", next(iter(found["sets"].values())), OF_METHOD))
    style = "".join((here / name).read_text(encoding="utf-8") for name in ("colours.css", "style.css"))
    shown = {"style": style, "tables": tables, "chosen": found["chosen"], "percent": percent}
    write_text(workdir / PAGE, page(PAGE, figures=(), settings_of=settings_of, **shown))
    return workdir / PAGE


def _shown(title: str, rows: dict, columns: Columns) -> dict:
    """A table for the page."""
    return {
        "title": title,
        "columns": [*columns],
        "rows": [(method, cells(row, columns)) for method, row in rows.items()],
    }


def _title(name: str, rows: dict) -> str:
    return f"Held-out queries, {SET_TITLES[name]}: {next(iter(rows.values()))['responses']} responses each"


def cells(row: dict, columns: Columns) -> list[str]:
    """Of one method, in the order of the columns."""
    return [shown(row) for shown in columns.values()]
