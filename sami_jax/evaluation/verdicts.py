"""Verdicts on pairs of responses, and what they add up to.

A row of a verdict file is at least {"win": 1 | 0.5 | 0 | null}: of the tested model, null where the judge gave no valid
verdict; then "replies" may tell why, by "invalid" in each. With "baseline_tokens" and "test_tokens" come the rates that take
length into account; with "id", intervals that know which verdicts share a query; with "flipped", the share of pairs on which the judge changed its mind with the order.
"""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sami_jax.data.fields import EXACT, BadRow, absent, id_of, number_in, tags_of, truth_in
from sami_jax.data.rows import read_rows
from sami_jax.evaluation import statistics

COLUMNS = ("win", "id", "constitution", "baseline_tokens", "test_tokens", "flipped", "tags", "replies")


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What a judge said of one pair."""

    win: float | None  # 1, 0.5 or 0 for the tested model; None: invalid
    id: str | None = None  # of the query
    constitution: str | None = None
    baseline_tokens: float | None = None
    test_tokens: float | None = None
    flipped: bool | None = None  # the two orders gave opposite winners
    tags: tuple[str, ...] = ()  # slices it belongs to
    invalid: tuple[str, ...] = ()  # why replies gave no verdict


def read_verdicts(file: Path) -> list[Verdict]:
    """Reads a file of verdicts.

    Raises:
      UserError: a row that is no verdict; names file and row.
    """
    return [verdict for _, verdict in read_rows(file, COLUMNS, (), _verdict)]


def _verdict(row: dict) -> Verdict:
    if "win" not in row:  # null is a verdict too: an invalid one
        raise BadRow("key 'win' is missing", "; add it to the line")
    win, *lengths = (number_in(row.get(key)) for key in ("win", "baseline_tokens", "test_tokens"))
    if win not in (1, 0.5, 0, None) or isinstance(win, bool):
        raise BadRow("win is none of 1, 0.5, 0 and null", f" but {win!r:.60}; null stands for an invalid verdict")
    for length in lengths:
        if length is not None and not (
            isinstance(length, int | float) and not isinstance(length, bool) and 0 <= length < EXACT
        ):
            raise BadRow("a length is no number of tokens", f" but {length!r:.60}; mend the line")
    row = row | {"flipped": truth_in(row.get("flipped"))}
    for key, kind in (("constitution", str), ("flipped", bool)):
        if not isinstance(row.get(key), kind | None):
            raise BadRow(f"{key} is of another type", f": {row[key]!r:.60}; mend the line")
    return Verdict(
        win=None if win is None else float(win),
        id=None if absent(row.get("id")) else id_of(row),
        constitution=None if absent(row.get("constitution")) else str(row["constitution"]),
        baseline_tokens=lengths[0],
        test_tokens=lengths[1],
        flipped=row["flipped"],
        tags=tags_of(row),
        invalid=_reasons(row.get("replies")),
    )


def _reasons(replies) -> tuple[str, ...]:
    """Of replies that are there for people, and may be of any shape."""
    found = [reply.get("invalid") for reply in replies if isinstance(reply, dict)] if isinstance(replies, list) else []
    return tuple(reason for reason in found if isinstance(reason, str))


def summarize(verdicts: Sequence[Verdict], ties: str) -> dict[str, Any]:
    """Counts, the win rate under a rule for ties with its 95 % interval, and the rates that take length into account.

    Args:
      ties: one of statistics.TIES.
    Returns:
      by name; None where it cannot be told. wins + ties + losses + invalid = n.
    """
    valid = [verdict for verdict in verdicts if verdict.win is not None]
    given = np.array([verdict.win for verdict in valid], float)
    outcomes, kept = statistics.apply_ties(given, ties)
    counted = [valid[i] for i in kept]
    clusters = None if any(v.id is None for v in counted) else [v.id for v in counted]
    rate, low, high = statistics.mean_interval(outcomes, clusters) if len(outcomes) else (None, None, None)
    judged_twice = [v.flipped for v in valid if v.flipped is not None]
    return {
        "n": len(verdicts),
        "wins": int((given == 1).sum()),
        "ties": int((given == 0.5).sum()),
        "losses": int((given == 0).sum()),
        "invalid": len(verdicts) - len(valid),
        "invalid_replies": dict(Counter(reason for verdict in verdicts for reason in verdict.invalid).most_common()),
        "win_rate": rate,
        "ci_low": low,
        "ci_high": high,
        "sign_test_p": statistics.sign_test(outcomes, clusters) if len(outcomes) else None,
        "flip_rate": float(np.mean(judged_twice)) if judged_twice else None,
        **_by_length(outcomes, counted),
    }


def _by_length(outcomes: np.ndarray, verdicts: Sequence[Verdict]) -> dict[str, float | None]:
    names = ("length_balanced", "length_controlled", "mean_baseline_tokens", "mean_test_tokens")
    if not len(verdicts) or any(v.baseline_tokens is None or v.test_tokens is None for v in verdicts):
        return dict.fromkeys(names)
    baseline, test = (
        np.array([getattr(v, side) for v in verdicts], float) for side in ("baseline_tokens", "test_tokens")
    )
    rates = (f(outcomes, test - baseline) for f in (statistics.length_balanced, statistics.length_controlled))
    return dict(zip(names, (*rates, float(baseline.mean()), float(test.mean())), strict=True))


def by_tag(verdicts: Sequence[Verdict], ties: str) -> dict[str, dict]:
    """The summary of each slice: of all verdicts that carry a tag."""
    tags = sorted({tag for verdict in verdicts for tag in verdict.tags})
    return {tag: summarize([v for v in verdicts if tag in v.tags], ties) for tag in tags}


def rank(matches: Sequence[tuple[str, str, Sequence[Verdict]]]) -> list[tuple[str, float]]:
    """Models by Bradley-Terry strength, the strongest first.

    Args:
      matches: (baseline, tested model, verdicts on them); a tie is half a win for either, invalid verdicts count for neither.
    """
    wins: dict[tuple[str, str], float] = {}
    for baseline, test, verdicts in matches:
        outcomes = [verdict.win for verdict in verdicts if verdict.win is not None]
        for pair, count in (((test, baseline), sum(outcomes)), ((baseline, test), len(outcomes) - sum(outcomes))):
            wins[pair] = wins.get(pair, 0.0) + count
    return sorted(statistics.bradley_terry(wins).items(), key=lambda item: -item[1])
