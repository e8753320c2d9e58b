"""People as judges: blinded pairs out, to a spreadsheet or to Label Studio, and their ratings back in."""

import csv
import hashlib
import io
import random
from collections.abc import Sequence
from pathlib import Path

from sami_jax.data.cells import from_cell, to_cell
from sami_jax.data.jsonl import read_bytes, write_json, write_text
from sami_jax.data.shape import NUMBER, misfit, read_shaped
from sami_jax.errors import UserError
from sami_jax.evaluation.pairs import Pair
from sami_jax.evaluation.statistics import kappa
from sami_jax.evaluation.verdicts import read_verdicts

KEY = "key.json"  # which response is whose; not for the raters
SHEET, TASKS, LABELS = "ratings.csv", "label_studio.json", "label_studio.xml"
COLUMNS = ("item", "query", "constitution", "response_1", "response_2", "better", "rater")
BETTER = ("1", "2", "tie")
ENTRY = {"id": str, "constitution": str, "baseline_first": bool, "baseline_tokens?": NUMBER, "test_tokens?": NUMBER}
# Label Studio's JSON export, as far as it is read.
DONE = {"completed_by?": object, "result": [{"from_name?": object, "value?": object}]}
EXPORT = [{"data": {"item": str}, "annotations": [DONE]}]

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
        item = hashlib.sha256(f"{seed}/{place}/{pair.id}".encode()).hexdigest()[:10]
        responses = (pair.baseline, pair.test) if baseline_first else (pair.test, pair.baseline)
        items.append(dict(zip(COLUMNS, (item, pair.query, pair.constitution, *responses, "", ""), strict=True)))
        lengths = dict(zip(("baseline_tokens", "test_tokens"), pair.lengths or (), strict=False))
        key[item] = {"id": pair.id, "constitution": pair.constitution, "baseline_first": baseline_first, **lengths}
    write_json(folder / KEY, key)
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, COLUMNS)
    writer.writeheader()
    writer.writerows({name: to_cell(text) for name, text in item.items()} for item in items)
    write_text(folder / SHEET, stream.getvalue())
    shown = COLUMNS[: COLUMNS.index("better")]
    write_json(folder / TASKS, [{"data": {name: item[name] for name in shown}} for item in items])
    write_text(folder / LABELS, _LABELS)


def import_ratings(file: Path, key_file: Path) -> list[dict]:
    """Ratings of a filled sheet (.csv) or of Label Studio's JSON export, as verdict rows, one a rating; items without one are left out.

    Raises:
      UserError: a rating that is none, or of an item the key does not have; names file and row.
    """
    key = read_shaped(key_file, {str: ENTRY}, "give the key that `sami rate export` wrote")
    rows = []
    for where, item, better, rater in _ratings(file):
        if item not in key:
            raise UserError(f"{where}: item {item!r} is not in {key_file}; they do not belong together")
        if better not in BETTER:
            raise UserError(f"{where}: {better!r} is no rating; write 1, 2 or tie")
        entry = dict(key[item])
        first_is_baseline = entry.pop("baseline_first")
        win = 0.5 if better == "tie" else float((better == "2") == first_is_baseline)
        rows.append({**entry, "win": win, "rater": rater})
    if not rows:
        raise UserError(f"{file}: no item is rated; write 1, 2 or tie into the column 'better'")
    return rows


def _ratings(file: Path) -> list[tuple[str, str, str, str]]:
    """(where it stands, item, rating, rater)."""
    return _of_label_studio(file) if file.suffix == ".json" else _of_sheet(file)


def _of_sheet(file: Path) -> list[tuple[str, str, str, str]]:
    try:
        text = read_bytes(file, f"give a filled {SHEET}").decode("utf-8-sig")
        rows = list(csv.DictReader(io.StringIO(text, newline="")))
    except (ValueError, csv.Error) as error:
        raise UserError(f"{file}: not a filled {SHEET} ({error!s:.80}); save it as CSV in UTF-8") from None
    if rows and (missing := {"item", "better"} - rows[0].keys()):
        raise UserError(f"{file}: not a filled {SHEET}: column {min(missing)!r} is missing; save the sheet as CSV")
    cells = [{name: from_cell(row.get(name)) for name in ("item", "better", "rater")} for row in rows]
    return [
        (f"{file}: row {number}", row["item"], row["better"].lower(), row["rater"])
        for number, row in enumerate(cells, start=2)
        if row["better"]
    ]


def _of_label_studio(file: Path) -> list[tuple[str, str, str, str]]:
    tasks = read_shaped(file, EXPORT, "give Label Studio's JSON export")
    return [
        (
            f"{file}: task {number}",
            task["data"]["item"],
            _choice(result, f"{file}: task {number}"),
            str(done.get("completed_by", "")),
        )
        for number, task in enumerate(tasks, start=1)
        for done in task["annotations"]
        if not done.get("was_cancelled")
        for result in done["result"]
        if result.get("from_name") == "better"
    ]


def _choice(result: dict, where: str) -> str:
    if wrong := misfit(result, {"value": {"choices": (str,)}}):
        raise UserError(f"{where}: {wrong}; a rating is one choice")
    return result["value"]["choices"][0]


def agreement(ratings: Path, verdicts: Path) -> tuple[float, float, float, int]:
    """Cohen's kappa of people and a judge over wins, ties and losses, its 95 % interval, and how many ratings it rests on.

    Args:
      ratings: verdict file of people; several ratings of a pair count each.
      verdicts: verdict file of the judge; its invalid verdicts agree with nobody and are left out.
    Raises:
      UserError: the files have no pair in common.
    """
    judged = {(v.id, v.constitution): v.win for v in read_verdicts(verdicts) if v.win is not None}
    both = [(v.win, judged[v.id, v.constitution]) for v in read_verdicts(ratings) if (v.id, v.constitution) in judged]
    if not both:
        raise UserError(f"{verdicts}: no pair in common with {ratings}; give the judge's verdicts on the same pairs")
    return *kappa(*zip(*both, strict=True)), len(both)
