"""What intervals and decisions are worth: `python -m benchmarks.intervals --output benchmarks/results/intervals.json`.

- Coverage: how often a 95 % interval of a share holds the true one, by number of queries, true share, and what is alike among
  the values; of independent wins and losses exactly, else by simulation. Beside it that of the rule before: Wilson's interval for
  independent wins and losses, the clustered t interval for all others, which is of width zero where all values are equal.
- Power: what `compare.decide` says where the true gain is twice the margin, or none, at the number of queries that it names.

The tables, with seeds and spread, are written beside the JSON file, as .md. About ten minutes on one core.
"""

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import scipy.special
from scipy.stats import binom

from sami_jax.evaluation.compare import SHIP, STAY, decide, shows
from sami_jax.evaluation.statistics import mean_interval
from sami_jax.evaluation.verdicts import Verdict

SIZES = (8, 16, 64, 256)  # queries
SHARES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98)
WANTED = (0.93, 0.97)  # coverage
LOOKS = 128  # queries at a first look

Values = tuple[np.ndarray, np.ndarray]  # values from 0 to 1, and the query of each


def alike(rng: np.random.Generator, share: float, queries: int, sizes: np.ndarray, icc: float) -> Values:
    """Wins and losses, `sizes` a query, whose intraclass correlation is `icc`."""
    if icc == 1:
        rates = (rng.random(queries) < share).astype(float)
    else:
        spread = (1 - icc) / icc
        rates = rng.beta(share * spread, (1 - share) * spread, queries)
    clusters = np.repeat(np.arange(queries), sizes)
    return (rng.random(len(clusters)) < rates[clusters]).astype(float), clusters


def tied(rng: np.random.Generator, share: float, queries: int, ties: float) -> Values:
    losses = max(0.0, 1 - share - ties / 2)
    return rng.choice([1.0, 0.5, 0.0], queries, p=[share - ties / 2, ties, losses]), np.arange(queries)


def followed(rng: np.random.Generator, share: float, queries: int) -> Values:
    """Two responses a query, of each the share of three statements that it follows."""
    values, clusters = alike(rng, share, queries, np.full(queries, 6), 0.2)
    return values.reshape(-1, 3).mean(axis=1), clusters[::3]


# By name: a draw of values, and the highest share it is made for.
KINDS: dict[str, Callable[[np.random.Generator, float, int], Values]] = {
    "a fifth are ties": lambda rng, share, n: tied(rng, share, n, 0.2),
    "half are ties": lambda rng, share, n: tied(rng, share, n, 0.5),
    "2 a query, correlation .3": lambda rng, share, n: alike(rng, share, n, np.full(n, 2), 0.3),
    "2 a query, always alike": lambda rng, share, n: alike(rng, share, n, np.full(n, 2), 1.0),
    "1 to 5 a query, correlation .3": lambda rng, share, n: alike(rng, share, n, rng.integers(1, 6, n), 0.3),
    "20 a query, correlation .3": lambda rng, share, n: alike(rng, share, n, np.full(n, 20), 0.3),
    "shares of 3 statements, 2 a query": followed,
}
HIGHEST = {"a fifth are ties": 0.9, "half are ties": 0.75}  # share that so many ties leave
ONE = "1 a query"


def earlier(values: np.ndarray, clusters: np.ndarray) -> tuple[float, float, float]:
    """The rule before."""
    mean, count, z = float(values.mean()), int(clusters.max()) + 1, float(scipy.special.ndtri(0.975))
    if count == len(values) and set(values) <= {0.0, 1.0}:
        middle, half = mean + z * z / (2 * count), z * math.sqrt(mean * (1 - mean) / count + z * z / (4 * count**2))
        return mean, (middle - half) / (1 + z * z / count), (middle + half) / (1 + z * z / count)
    residuals = np.bincount(clusters, weights=values - mean)
    error = math.sqrt(count / (count - 1) * float(residuals @ residuals)) / len(values)
    half = float(scipy.special.stdtrit(count - 1, 0.975)) * error
    return mean, max(0.0, mean - half), min(1.0, mean + half)


RULES = {"before": earlier, "now": mean_interval}


def coverage(draws: int, seed: int) -> list[dict]:
    """A row a kind and number of queries: coverage by share, before and now."""
    rows = []
    for n in SIZES:
        rows.append({"kind": ONE, "queries": n, "possible": {share: possible(n, share) for share in SHARES}})
        for name, rule in RULES.items():
            outcomes = [np.repeat([1.0, 0.0], [wins, n - wins]) for wins in range(n + 1)]
            ends = [rule(values, np.arange(n)) for values in outcomes]
            rows[-1][name] = {
                share: sum(binom.pmf(k, n, share) for k, end in enumerate(ends) if holds(end, share))
                for share in SHARES
            }
    for place, (kind, draw) in enumerate(KINDS.items()):
        for n in SIZES:
            row = {"kind": kind, "queries": n} | {name: {} for name in RULES}
            for share in [share for share in SHARES if share <= HIGHEST.get(kind, 1.0)]:
                rng = np.random.default_rng([seed, place, n, round(100 * share)])
                held = dict.fromkeys(RULES, 0)
                for _ in range(draws):
                    values, clusters = draw(rng, share, n)
                    for name, rule in RULES.items():
                        held[name] += holds(rule(values, clusters), share)
                for name in RULES:
                    row[name][share] = held[name] / draws
            rows.append(row)
            print(row, flush=True)
    return rows


def holds(interval: tuple[float, float, float], share: float) -> bool:
    _, low, high = interval
    return low - 1e-9 <= share <= high + 1e-9


def possible(n: int, share: float) -> bool:
    """Whether any rule that treats wins and losses alike can cover in WANTED: a rule holds a share for an unbroken run of numbers
    of wins, and steps from one to the next are large where n is small."""
    until = np.concatenate([[0.0], np.cumsum(binom.pmf(np.arange(n + 1), n, share))])
    runs = [(a, b) for a in range(n + 1) for b in range(a, n + 1) if share != 0.5 or a + b == n]
    return any(WANTED[0] <= until[b + 1] - until[a] <= WANTED[1] for a, b in runs)


VERDICTS: dict[str, Callable[[np.random.Generator, float, int], Values]] = {
    "no ties": lambda rng, rate, n: tied(rng, rate, n, 0.0),
    "a fifth are ties": lambda rng, rate, n: tied(rng, rate, n, 0.2),
    "half are ties": lambda rng, rate, n: tied(rng, rate, n, 0.5),
    "2 a query, correlation .3": lambda rng, rate, n: alike(rng, rate, n, np.full(n, 2), 0.3),
    "1 to 5 a query, correlation .3": lambda rng, rate, n: alike(rng, rate, n, rng.integers(1, 6, n), 0.3),
}
TIES = {"a fifth are ties": 0.2, "half are ties": 0.5}
MARGINS = (0.02, 0.05, 0.1)


def verdicts(values: np.ndarray, clusters: np.ndarray) -> list[Verdict]:
    return [Verdict(float(win), id=str(query)) for win, query in zip(values, clusters, strict=True)]


def earlier_number(margin: float, ties: float) -> int:
    """The number of queries that was named before: where the interval excludes one half in 4 of 5 cases, at a gain of the margin."""
    rate = 0.5 + margin
    quantiles = float(scipy.special.ndtri(0.975) + scipy.special.ndtri(0.8))
    return math.ceil(quantiles**2 * (rate * (1 - rate) - ties / 4) / margin**2)


def ships_earlier(values: np.ndarray, clusters: np.ndarray, margin: float) -> bool:
    """The rule before."""
    rate, low, _ = earlier(values, clusters)
    return low > 0.5 and rate >= 0.5 + margin


def power(draws: int, seed: int) -> list[dict]:
    """Shares of comparisons that ship or stay, at a gain of twice the margin, of the margin, and none; and of the rule before."""
    rows = []
    for margin in MARGINS:
        for place, (kind, draw) in enumerate(VERDICTS.items()):
            gain, n = shows(margin, TIES.get(kind, 0.0))
            before = earlier_number(margin, TIES.get(kind, 0.0))
            rng = np.random.default_rng([seed, place, round(1000 * margin), 1])
            shipped = [ships_earlier(*draw(rng, 0.5 + margin, before), margin) for _ in range(draws)]
            row = {
                "margin": margin,
                "kind": kind,
                "queries": n,
                "before": {"queries": before, "ship": np.mean(shipped)},
            }
            for name, true in (("twice", gain), ("once", margin), ("none", 0.0)):
                rng = np.random.default_rng([seed, place, round(1000 * margin), round(1000 * true)])
                found = [decide(verdicts(*draw(rng, 0.5 + true, n)), margin)["decision"] for _ in range(draws)]
                row[name] = {"ship": found.count(SHIP) / draws, "stay": found.count(STAY) / draws}
            rows.append(row)
            print(row, flush=True)
    return rows


def looks(draws: int, seed: int) -> dict[str, float]:
    """Equal models, a quarter of the verdicts ties: shipped after LOOKS queries, and after a second look at twice as many."""
    rng, found = np.random.default_rng(seed), []
    for _ in range(draws):
        values, clusters = tied(rng, 0.5, 2 * LOOKS, 0.25)
        first, second = (decide(verdicts(values[:n], clusters[:n]), 0.05)["decision"] for n in (LOOKS, 2 * LOOKS))
        found.append((first == SHIP, first == SHIP or (first != STAY and second == SHIP)))
    once, twice = np.mean(found, axis=0)
    return {"once": float(once), "twice": float(twice)}


def markdown(report: dict) -> str:
    """Tables of a report."""
    draws, spread = report["draws"], 100 * math.sqrt(0.95 * 0.05 / report["draws"])
    lines = [
        f"Coverage of 95 % intervals, in %, before and now; seed {report['seed']}, {draws} draws a cell (a standard error of {spread:.1f}), "
        f'"{ONE}" exactly. Not in 93 to 97: bold; no rule could be: in brackets.',
        "",
        "| values | queries | " + " | ".join(f"{share:g}" for share in SHARES) + " |",
        "|---" * (2 + len(SHARES)) + "|",
    ]
    inside, count = dict.fromkeys(RULES, 0), 0
    for row in report["coverage"]:
        cells = []
        for share in map(str, SHARES):
            if share not in row["now"]:
                cells.append("-")
                continue
            shown = []
            for name in RULES:
                good = WANTED[0] <= row[name][share] <= WANTED[1]
                inside[name] += good
                shown.append(f"{100 * row[name][share]:.1f}" if good else f"**{100 * row[name][share]:.1f}**")
            count += 1
            text = " / ".join(shown)
            cells.append(text if row.get("possible", {}).get(share, True) else f"({text})")
        lines.append(f"| {row['kind']} | {row['queries']} | " + " | ".join(cells) + " |")
    worst = {name: min(min(row[name].values()) for row in report["coverage"]) for name in RULES}
    lines += [
        "",
        f"In 93 to 97: {inside['before']} of {count} cells before, {inside['now']} now. "
        f"Lowest: {100 * worst['before']:.1f} before, {100 * worst['now']:.1f} now.",
        "",
        f"Decisions at the number of queries that is named, in % of {report['comparisons']} comparisons, seed {report['seed']}:",
        "",
        "| margin | verdicts | before: queries, for a gain of the margin | ship | now: queries, for twice the margin | ship | of the margin: ship / do "
        "not ship | none: ship |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in report["power"]:
        before, twice, once, none = row["before"], row["twice"], row["once"], row["none"]
        lines.append(
            f"| {row['margin']:g} | {row['kind']} | {before['queries']} | {100 * before['ship']:.1f} | {row['queries']} | "
            f"{100 * twice['ship']:.1f} | "
            f"{100 * once['ship']:.1f} / {100 * once['stay']:.1f} | {100 * none['ship']:.1f} |"
        )
    seen = report["looks"]
    lines += [
        "",
        f"Equal models, shipped after {LOOKS} queries: {100 * seen['once']:.1f} %; with a second look at twice as many where the first says "
        f"too little: {100 * seen['twice']:.1f} %.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--output", type=Path, required=True, help="JSON file; the tables are written beside it, as .md"
    )
    parser.add_argument("--draws", type=int, default=4000, help="of a cell of the coverage table")
    parser.add_argument("--comparisons", type=int, default=1000, help="of a cell of the power table")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    report = {
        "seed": arguments.seed,
        "draws": arguments.draws,
        "comparisons": arguments.comparisons,
        "coverage": coverage(arguments.draws, arguments.seed),
        "power": power(arguments.comparisons, arguments.seed),
        "looks": looks(arguments.comparisons * 4, arguments.seed),
    }
    text = json.dumps(report, indent=1)
    arguments.output.write_text(text + "\n", encoding="utf-8")
    arguments.output.with_suffix(".md").write_text(markdown(json.loads(text)), encoding="utf-8")


if __name__ == "__main__":
    main()
