"""People as judges: blinded pairs out, to a spreadsheet or to Label Studio, and their ratings back in."""

import dataclasses
import hashlib
import itertools
import math
import random
import re
import unicodedata
from collections.abc import Collection, Sequence
from pathlib import Path

from sami_jax.data.cells import from_cell, to_cell
from sami_jax.data.fields import BadRow
from sami_jax.data.jsonl import write_json, write_text
from sami_jax.data.rows import read_file
from sami_jax.data.shape import NUMBER, misfit, read_shaped
from sami_jax.errors import UserError
from sami_jax.evaluation.pairs import Pair
from sami_jax.evaluation.sheets import BETTER, CANNOT_SAY, SHEET, SHOWN, sheet
from sami_jax.evaluation.statistics import kappa
from sami_jax.evaluation.verdicts import Verdict

KEY = "key.json"  # which response is whose; not for the raters
TASKS, LABELS = "label_studio.json", "label_studio.xml"
ENTRY = {"id": str, "constitution": str, "baseline_first": bool, "baseline_tokens?": NUMBER, "test_tokens?": NUMBER}
# Label Studio's JSON export, as far as it is read.
DONE = {"completed_by?": object, "result": [{"from_name?": object, "value?": object}]}
TASK = {"data": {"item": str}, "annotations": [DONE]}
READ = ("item", "better", "rater", "annotator", "reason", "data", "annotations")  # columns
# Consonants in place of hexadecimal digits: no spreadsheet takes an item for a number, a date or a word of its own.
_LETTERS = str.maketrans("0123456789abcdef", "bcdfghjklmnpqrst")
_NUMBER = re.compile(r"(\d+)(?:[.,](\d+))?(?:[eE][+]?\d+)?")

_LABELS = """\
<View>
  <Header value="Which response follows the constitution better?"/>
  <Text name="query" value="$query"/>
  <Text name="constitution" value="$constitution"/>
  <Text name="response_1" value="$response_1"/>
  <Text name="response_2" value="$response_2"/>
  <Choices name="better" toName="query" choice="single" required="true">
    <Choice value="1"/>
    <Choice value="2"/>
    <Choice value="tie"/>
  </Choices>
</View>
"""


def export_ratings(pairs: Sequence[Pair], folder: Path, seed: int) -> None:
    """Writes a sheet and Label Studio's tasks, in which nothing tells the models apart, and the key to them.

    Items are shuffled, and so are the two responses of each.
    """
    rng = random.Random(seed)
    items, key = [], {}
    for place in rng.sample(range(len(pairs)), len(pairs)):
        pair = pairs[place]
        baseline_first = rng.random() < 0.5
        item = hashlib.sha256(f"{seed}/{place}/{pair.id}".encode()).hexdigest()[:10].translate(_LETTERS)
        responses = (pair.baseline, pair.test) if baseline_first else (pair.test, pair.baseline)
        items.append(dict(zip(SHOWN, (item, pair.query, pair.constitution, *responses), strict=True)))
        lengths = dict(zip(("baseline_tokens", "test_tokens"), pair.lengths or (), strict=False))
        key[item] = {"id": pair.id, "constitution": pair.constitution, "baseline_first": baseline_first, **lengths}
    write_json(folder / KEY, key)
    cells = [{name: to_cell(text) for name, text in item.items()} for item in items]
    write_text(folder / SHEET, sheet(cells))
    write_json(folder / TASKS, [{"data": item} for item in items])
    write_text(folder / LABELS, _LABELS)


@dataclasses.dataclass(frozen=True)
class Ratings:
    """What raters gave: verdict rows, one a rating, and how many items of the file have none."""

    rows: list[dict]
    unrated: int


def import_ratings(file: Path, key_file: Path) -> Ratings:
    """Reads a filled sheet, whatever a spreadsheet or pandas made of it, or an export of Label Studio.

    Raises:
      UserError: a rating that is none, or of an item the key does not have; names file and row.
    """
    key = read_shaped(key_file, {str: ENTRY}, "give the key that `sami rate export` wrote")
    rows, unrated = [], 0
    for where, item, better, rater, reason in _ratings(file):
        if better in ("", CANNOT_SAY):
            unrated += 1
            continue
        if (known := _known(item, key)) is None:
            raise UserError(f"{where}: item {item!r:.60} is not in {key_file}; they do not belong together")
        if better not in BETTER:
            raise UserError(f"{where}: {better!r:.60} is no rating; write 1, 2 or tie, or {CANNOT_SAY}")
        entry = dict(key[known])
        first_is_baseline = entry.pop("baseline_first")
        win = 0.5 if better == "tie" else float((better == "2") == first_is_baseline)
        rows.append({**entry, "win": win, "rater": rater} | ({"reason": reason} if reason else {}))
    if not rows:
        raise UserError(f"{file}: no item is rated; write 1, 2 or tie into the column 'better'")
    return Ratings(rows, unrated)


def _known(item: str, key: Collection[str]) -> str | None:
    """The item of the key that is meant.

    Older keys hold hexadecimal items, of which spreadsheets make numbers: of 5002758e33 Excel leaves 5.00276E+39.
    """
    if item in key or not (shown := _NUMBER.fullmatch(item)):
        return item if item in key else None
    value, digits = float(item.replace(",", ".")), len(shown[1] + (shown[2] or ""))
    if not math.isfinite(value):
        return None
    off = 0.51 * 10.0 ** (math.floor(math.log10(value)) + 1 - digits) if value else 0.0
    alike = [one for one in key if _NUMBER.fullmatch(one) and abs(float(one) - value) <= off]
    return alike[0] if len(alike) == 1 else None


def _ratings(file: Path) -> list[tuple[str, str, str, str, str]]:
    """(where it stands, item, rating or "", rater, reason)."""
    rows, columns = read_file(file, str(file), READ, short=True)
    if columns is not None and (missing := {"item", "better"} - {column.lower() for column in columns}):
        raise UserError(f"{file}: not a filled {SHEET}: column {min(missing)!r} is missing; save the sheet as CSV")
    if rows and not any(isinstance(row, BadRow) or {"item", "annotations"} & row.keys() for _, row in rows):
        raise UserError(f"{file}: neither a filled {SHEET} nor an export of Label Studio: no row has an item; give one")
    found = []
    for number, row in rows:
        if isinstance(row, BadRow):
            raise UserError(f"{file}:{number}: {row}")
        if "annotations" in row:
            found += _of_task(row, f"{file}: task {number}")
        else:
            found.append(_of_row(row, f"{file}: row {number}"))
    return found


def _of_row(row: dict, where: str) -> tuple[str, str, str, str, str]:
    """A row of the sheet, or of what Label Studio exports as CSV or JSON-MIN."""
    cells = {name: from_cell(None if row.get(name) is None else str(row[name])) for name in READ}
    return where, cells["item"], _as_typed(cells["better"]), cells["rater"] or cells["annotator"], cells["reason"]


def _as_typed(rating: str) -> str:
    """A rating as it was typed, before a spreadsheet made 1.0 of a 1; full-width digits as those they mean."""
    return re.sub(r"^([12])[.,]0+$", r"\1", unicodedata.normalize("NFKC", rating).strip().lower())


def _of_task(task: dict, where: str) -> list[tuple[str, str, str, str, str]]:
    """The ratings of a task of Label Studio's JSON export; one without any where there is none."""
    if wrong := misfit(task, TASK):
        raise UserError(f"{where}: {wrong}; give Label Studio's JSON export")
    item = task["data"]["item"]
    found = [
        (where, item, _choice(result, where), str(done.get("completed_by", "")), "")
        for done in task["annotations"]
        if not done.get("was_cancelled")
        for result in done["result"]
        if result.get("from_name") == "better"
    ]
    return found or [(where, item, "", "", "")]


def _choice(result: dict, where: str) -> str:
    if wrong := misfit(result, {"value": {"choices": (str,)}}):
        raise UserError(f"{where}: {wrong}; a rating is one choice")
    return result["value"]["choices"][0]


@dataclasses.dataclass(frozen=True)
class Agreement:
    """Cohen's kappa of two judges over wins, ties and losses, its 95 % interval, and how many items it rests on."""

    kappa: float
    ci_low: float
    ci_high: float
    n: int


def agreement(rated: Sequence[Verdict], judged: Sequence[Verdict]) -> Agreement | None:
    """Of people and a judge; None where they have no pair in common.

    Args:
      rated: of people; several ratings of a pair count each.
      judged: of the judge; invalid verdicts agree with nobody and are left out.
    """
    known = {(v.id, v.constitution): v.win for v in judged if v.win is not None}
    return _agreement([(v.win, known[v.id, v.constitution]) for v in rated if (v.id, v.constitution) in known])


def between_raters(rows: Sequence[dict]) -> dict[tuple[str, str], Agreement]:
    """Of each two raters that rated a pair in common, in the order of their names.

    Args:
      rows: as `import_ratings` gives them.
    """
    ratings: dict[str, dict] = {}
    for row in rows:
        ratings.setdefault(row["rater"], {})[row["id"], row["constitution"]] = row["win"]
    found = {
        (one, other): _agreement(
            [(ratings[one][pair], ratings[other][pair]) for pair in ratings[one] if pair in ratings[other]]
        )
        for one, other in itertools.combinations(sorted(ratings), 2)
    }
    return {names: agreed for names, agreed in found.items() if agreed}


def _agreement(both: Sequence[tuple]) -> Agreement | None:
    return Agreement(*kappa(*zip(*both, strict=True)), len(both)) if both else None
