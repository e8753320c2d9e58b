"""What a study prints, and its page."""

from pathlib import Path

from rich import box
from rich.table import Table

from sami_jax.data.jsonl import write_text
from sami_jax.evaluation.study import settings_of
from sami_jax.ground.terminal import cell, show, show_table
from sami_jax.report.summary import SET_TITLES, percent
from sami_jax.report.write import page

PAGE = "study.html"
COLUMNS = (
    "following",
    "wins over base",
    "at equal length",
    "strength",
    "well-formed",
    "distinct-2",
    "entropy",
    "perplexity",
    "kept, nats",
    "MI, nats",
    "tokens a reply",
    "tokens to make",
    "seconds",
    "by seed",
)


def print_study(found: dict) -> None:
    """A table an evaluation set, and the settings that were chosen."""
    for name, rows in found["sets"].items():
        table = Table(title=_title(name, rows), title_justify="left", box=box.SIMPLE_HEAD)
        table.add_column("method", no_wrap=True)
        for column in COLUMNS:
            table.add_column(column, justify="right", no_wrap=True)
        for method, row in rows.items():
            table.add_row(cell(method), *cells(row))
        show_table(table)
    for method, one in found["chosen"].items():
        show(f"{method}: {settings_of(one)}; the best of {len(one['grid'])} on validation queries")


def write_page(found: dict, workdir: Path) -> Path:
    """Writes study.html into the study's folder: the tables, what was chosen and from what; without scripts."""
    here = Path(__file__).parent
    tables = [
        {"title": _title(name, rows), "rows": [(method, cells(row)) for method, row in rows.items()]}
        for name, rows in found["sets"].items()
    ]
    style = "".join((here / name).read_text(encoding="utf-8") for name in ("colours.css", "style.css"))
    shown = {
        "style": style,
        "columns": COLUMNS,
        "tables": tables,
        "chosen": found["chosen"],
        "percent": percent,
        "settings_of": settings_of,
    }
    write_text(workdir / PAGE, page(PAGE, figures=(), **shown))
    return workdir / PAGE


def _title(name: str, rows: dict) -> str:
    return f"Held-out queries, {SET_TITLES[name]}: {next(iter(rows.values()))['responses']} responses each"


def cells(row: dict) -> list[str]:
    """Of one method, in the order of COLUMNS; "-" for what was not measured."""
    equal, strength = row.get("win_rate_at_equal_length"), row.get("strength")
    seeds = ", ".join(f"{100 * share:.1f}" for share in row.get("following_by_seed", {}).values())
    stopped = f" ({len(row['stopped_by_canaries'])} stopped)" if row["stopped_by_canaries"] else ""
    return [
        percent(row, "following", "following_interval"),
        percent(row, "win_rate", "win_rate_interval"),
        "-" if equal is None else f"{100 * equal:.1f} %",
        "-" if strength is None else f"{strength:+.2f}",
        percent(row, "well_formed"),
        f"{row['distinct_2_of_a_prompt']:.3f}",
        f"{row['entropy_2']:.2f}",
        f"{row['perplexity']:.2f}" if "perplexity" in row else "-",
        f"{row['kept_logprob_change']:+.2f}" if "kept_logprob_change" in row else "-",
        f"{row['mi_posterior_bound']:.3f}",
        f"{row['mean_tokens']:.1f}",
        _taken(row, "forward_tokens", "{:.2f} M", 1e6),
        _taken(row, "seconds", "{:.0f}"),
        (seeds or "-") + stopped,
    ]


def _taken(row: dict, key: str, shown: str, unit: float = 1) -> str:
    """What it took to make a model, "-" where nothing was made."""
    return shown.format(row[key] / unit) if row.get(key) else "-"
