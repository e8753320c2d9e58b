"""How soon `sami watch` notices a fault, and how often it calls one that is none, by simulation: python -m benchmarks.watch

Of each simulated year (benchmarks/traffic.py) the first 10,000 answers are the reference; then nothing changes, or one of five faults
comes in. In even traffic windows differ by chance alone; in uneven traffic as nights, weekends and fashions make them differ.
"""

import argparse
import copy
import json
import shutil
import tempfile
import time
from pathlib import Path

from benchmarks.traffic import BASE, PRINCIPLES, Speaker
from sami_jax.config.settings import REFUSALS
from sami_jax.evaluation.judges import MiniatureJudge
from sami_jax.watch.alarm import Alarm, Examples
from sami_jax.watch.journal import Made
from sami_jax.watch.measuring import Measuring
from sami_jax.watch.tally import PRINCIPLE
from sami_jax.watch.watching import Span, Watch

RESULTS = Path(__file__).parent / "results"
WINDOW, FIRST = 200, 50  # answers, windows: 10,000 answers are a reference, two weeks and a bit
MOST = 40  # windows after which a fault counts as missed
TRAFFIC = {"even": False, "uneven": True}
# Fault -> what the speaker then does otherwise, and the measure and slice that are meant to show it.
FAULTS = {
    "the base model is served": ({"follows": BASE}, "following", ""),
    "one principle's following falls by 15 points": ({"fallen": "thanks"}, f"{PRINCIPLE}thanks", ""),
    "refusals rise from 2 % to 8 % in one slice": ({"refusing": "fix"}, "refusal", "fix"),
    "answers are a third longer": ({"longer": True}, "length", ""),
    "another language, all answers": ({"german": 1.0}, "language", ""),
    "another language, a tenth of the answers": ({"german": 0.1}, "language", ""),
}


def new_watch(folder: Path) -> Watch:
    """Goes on where the folder's watch.jsonl ends."""
    examples = Examples((), numbers_only=True)
    measuring = Measuring(PRINCIPLES, MiniatureJudge(), WINDOW, examples.masked, folder / "none")
    made = Made(str(WINDOW), WINDOW, FIRST, "miniature", 0)
    return Watch(folder, Span(answers=WINDOW), made, measuring, examples, {}, REFUSALS)


def noticed(folder: Path, speaker: Speaker, fault: dict, measure: str, slice: str) -> tuple[int | None, int | None]:
    """Windows from the fault to the first alarm, and to the one of the measure that the fault is about; None: none in MOST."""
    first = own = None
    for number, alarms in enumerate(new_watch(folder).watch(speaker.lines(WINDOW * MOST, **fault)), start=1):
        first = first or (number if alarms else None)
        own = own or (number if any(_about(alarm, measure, slice) for alarm in alarms) else None)
        if own:
            break
    return first, own


def _about(alarm: Alarm, measure: str, slice: str) -> bool:
    return alarm.measure == measure and alarm.slice == slice


def year(place: Path, seed: str, uneven: bool, windows: int) -> dict:
    """One reference; what is noticed of each fault after it, and the alarms of so many windows without one."""
    speaker, reference = Speaker(seed, uneven), place / "reference"
    list(new_watch(reference).watch(speaker.lines(WINDOW * FIRST)))
    faults = {}
    for name, (fault, measure, slice) in FAULTS.items():
        folder = place / "fault"
        shutil.copytree(reference, folder)
        faults[name] = noticed(folder, copy.deepcopy(speaker), fault, measure, slice)
        shutil.rmtree(folder)
    sound = [alarm.what for each in new_watch(reference).watch(speaker.lines(WINDOW * windows)) for alarm in each]
    shutil.rmtree(reference)
    return {"seed": seed, "faults": faults, "sound": sound}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seed", default="2026-11-30/a", help="of all draws; give one that no limit was set by")
    parser.add_argument("--years", type=int, default=5, help="of each kind of traffic")
    parser.add_argument("--windows", type=int, default=1000, help="without a fault, after the reference of each year")
    arguments = parser.parse_args()
    about = {"window": WINDOW, "first": FIRST, "windows": arguments.windows}
    found: dict = about | {"traffic": {name: [] for name in TRAFFIC}}
    begun = time.process_time()
    with tempfile.TemporaryDirectory() as place:
        for name, uneven in TRAFFIC.items():
            for number in range(arguments.years):
                seed = f"{arguments.seed}/{number}"
                found["traffic"][name].append(year(Path(place), seed, uneven, arguments.windows))
                found["cpu_seconds"] = round(time.process_time() - begun)
                (RESULTS / "watch.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
                (RESULTS / "watch.md").write_text(table(found), encoding="utf-8")
    print(table(found))


def table(found: dict) -> str:
    """As people read it."""
    rows = [
        f"Windows of {found['window']} answers, a reference of {found['first']} windows; seeds that no limit was set by. Windows from the fault until",
        "the alarm of the measure that it is about, year by year (in brackets: until any alarm, where that came before).",
    ]
    for name, years in found["traffic"].items():
        if not years:
            continue
        alarms = [len(one["sound"]) for one in years]
        rows += ["", f"## {name.capitalize()} traffic", "", "| fault | windows |", "|---|---|"]
        for fault in FAULTS:
            told = [_told(*one["faults"][fault]) for one in years]
            rows.append(f"| {fault} | {' '.join(told)} |")
        after = f"{found['windows']} windows after each reference, alarms: {' '.join(map(str, alarms))}"
        rows += ["", f"Without a fault, in {after}; {1000 * sum(alarms) / found['windows'] / len(years):.2g} in 1,000."]
        rows += [f"- {what} (year {number})" for number, one in enumerate(years, start=1) for what in one["sound"]]
    return "\n".join(rows) + "\n"


def _told(first: int | None, own: int | None) -> str:
    shown = f"over&nbsp;{MOST}" if own is None else str(own)
    return shown if first == own else f"{shown}&nbsp;({first})"


if __name__ == "__main__":
    main()
