"""How often the limits of `sami watch` call a fault that is none, and how soon one that is: python -m benchmarks.limits

As benchmarks/watch.py, but what windows add up to is drawn at once, without texts: many thousand windows in minutes. The traffic is
that of benchmarks/traffic.py.
"""

import argparse
import copy
import json
import math
import time
from pathlib import Path

import numpy as np

from benchmarks.traffic import (
    ALIGNED,
    ANSWERS_A_DAY,
    AT_NIGHT,
    BASE,
    BROKEN,
    BY_TAG,
    DAILY,
    FASHION,
    FASHION_DAYS,
    PRINCIPLES,
    REFUSED,
    VERBS,
    WEEKLY,
)
from sami_jax.watch.control import Control
from sami_jax.watch.tally import ALL, PRINCIPLE, Cell, Tallies, Tally

RESULTS = Path(__file__).parent / "results"
WINDOW, FIRST, MOST = 200, 50, 40  # answers; windows: of the reference, and after which a fault counts as missed
IDS, TAGS = tuple(principle.id for principle in PRINCIPLES), len(VERBS)
FALLEN, REFUSING = 3, 1  # places of a principle, of a tag
FAULTS = {
    "the base model is served": ({"follows": BASE}, Cell("following", ALL)),
    "one principle's following falls by 15 points": ({"fallen": FALLEN}, Cell(PRINCIPLE + IDS[FALLEN], ALL)),
    "refusals rise from 2 % to 8 % in one slice": ({"refusing": REFUSING}, Cell("refusal", VERBS[REFUSING])),
    "answers are a third longer": ({"longer": True}, Cell("length", ALL)),
    "another language, a tenth of the answers": ({"german": 0.1}, Cell("language", ALL)),
}


def asked(rng: np.random.Generator, uneven: bool, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each answer its tag, how much night it is, whether it is a weekend."""
    if not uneven:
        return rng.integers(0, TAGS, count), np.zeros(count), np.zeros(count)
    tags, nights, weekends, hour = [], [], [], 0
    fashion, kept = np.zeros(TAGS), math.exp(-1 / 24 / FASHION_DAYS)
    while sum(map(len, tags)) < count:
        night = (1 + math.cos(2 * math.pi * (hour % 24 - 3) / 24)) / 2
        weekend = hour // 24 % 7 >= 5
        fashion = kept * fashion + rng.normal(0, FASHION * math.sqrt(1 - kept**2), TAGS)
        busy = 1 - 0.78 * night + 0.2 * (1 - night)
        answers = rng.poisson(ANSWERS_A_DAY / 24 * busy * (0.5 if weekend else 1))
        daily = DAILY * np.cos(2 * np.pi * (hour / 24 - np.arange(TAGS) / TAGS))
        weights = np.exp(daily + WEEKLY * weekend * (-1.0) ** np.arange(TAGS) + fashion)
        tags.append(rng.choice(TAGS, answers, p=weights / weights.sum()))
        nights.append(np.full(answers, night))
        weekends.append(np.full(answers, float(weekend)))
        hour += 1
    return np.concatenate(tags)[:count], np.concatenate(nights)[:count], np.concatenate(weekends)[:count]


def windows(
    seed: list[int],
    uneven: bool,
    count: int,
    follows=ALIGNED,
    fallen: int | None = None,
    refusing: int | None = None,
    longer=False,
    german=0.001,
) -> list[Tallies]:
    """What so many windows add up to; faults as in `traffic.Speaker.line`."""
    rng, answers = np.random.default_rng(seed), count * WINDOW
    tag, night, weekend = asked(rng, uneven, answers)
    place = tag / (TAGS - 1)
    following, refused = np.full(answers, follows), np.full(answers, REFUSED)
    broken, more = np.full(answers, BROKEN), np.zeros(answers)
    if uneven:
        following = following + BY_TAG * (2 * place - 1) - AT_NIGHT * night
        refused, broken, more = refused * (0.5 + place) * (1 + night), broken + 0.01 * weekend, 0.05 + 0.1 * night
    refused = np.where(tag == refusing, refused * 4, refused) if refusing is not None else refused
    stated = np.argsort(rng.random((answers, len(IDS))), 1)[:, :3]
    chance = np.repeat(following[:, None], 3, 1) - (0.15 * (stated == fallen) if fallen is not None else 0)
    followed = rng.random((answers, 3)) < chance
    refuses, swells = rng.random(answers) < refused, rng.random(answers) < more
    breaks = (rng.random(answers) < broken) & ~swells
    followed = np.where(refuses[:, None], rng.random((answers, 3)) < 0.4, followed) * 1.0
    length = rng.normal(4.75, 0.3, answers) + 0.25 * swells - breaks * rng.exponential(size=answers)
    values = {
        "length": np.where(refuses, 3.7, length) + (0.28 if longer else 0),
        "refusal": refuses * 1.0,
        "following": followed.mean(1),
        "well_formed": 1.0 - (breaks | swells | refuses),
        "repetition": np.where(swells, 0.3, rng.beta(0.5, 20, answers)),
        "echo": (rng.random(answers) < 0.002) * 1.0,
        "language": 1.0 - (rng.random(answers) < german),
    }
    found: list[Tallies] = [{} for _ in range(count)]
    window = np.repeat(np.arange(count), WINDOW)
    for measure, each in values.items():
        _add(found, [Cell(measure, verb) for verb in VERBS], window * TAGS + tag, each)
        _add(found, [Cell(measure, ALL)], window, each)
    principles = [Cell(PRINCIPLE + id, ALL) for id in IDS]
    _add(found, principles, (window[:, None] * len(IDS) + stated).ravel(), followed.ravel())
    return found


def _add(found: list[Tallies], cells: list[Cell], key: np.ndarray, values: np.ndarray) -> None:
    """key: of each value, the window times the number of cells, and the place of the cell."""
    size = len(found) * len(cells)
    sums = [np.bincount(key, weights, size).reshape(-1, len(cells)) for weights in (None, values, values * values)]
    for number, tallies in enumerate(found):
        for place, cell in enumerate(cells):
            if answers := int(sums[0][number, place]):
                tallies[cell] = Tally(answers, float(sums[1][number, place]), float(sums[2][number, place]))


def year(seed: int, uneven: bool, later: int) -> dict:
    """Alarms of so many windows without a fault, after one reference; and windows until each fault is noticed."""
    control, each = Control(FIRST), windows([seed, uneven], uneven, FIRST + later)
    for tallies in each[:FIRST]:
        control.take(tallies)
    ready = copy.deepcopy(control)
    alarms = [[*one.cell, one.horizon] for tallies in each[FIRST:] for one in control.take(tallies)]
    faults = {}
    for number, (name, (fault, cell)) in enumerate(FAULTS.items()):
        control, faults[name] = copy.deepcopy(ready), None
        for after, tallies in enumerate(windows([seed, uneven, number], uneven, MOST, **fault), start=1):
            if any(one.cell == cell for one in control.take(tallies)):
                faults[name] = after
                break
    return {"seed": seed, "alarms": alarms, "faults": faults}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", default="101,102,103,104,105", help="a year each; give such as no limit was set by")
    parser.add_argument("--windows", type=int, default=1000, help="without a fault, after the reference of each year")
    arguments = parser.parse_args()
    found: dict = {"window": WINDOW, "first": FIRST, "windows": arguments.windows, "traffic": {}}
    begun = time.process_time()
    for name, uneven in (("even", False), ("uneven", True)):
        years = [year(int(seed), uneven, arguments.windows) for seed in arguments.seeds.split(",")]
        found["traffic"][name] = years
        print(name, "alarms", [len(one["alarms"]) for one in years])
        for fault in FAULTS:
            print(f"  {fault}: {[one['faults'][fault] for one in years]}")
    found["cpu_seconds"] = round(time.process_time() - begun)
    (RESULTS / "limits.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
