"""How soon `sami watch` notices a fault, and how often it calls one that is none, by simulation: python benchmarks/watch.py

Answers are written in the miniature's world, without a model, with the shares of principles followed that the aligned model and its
base have. Of each simulated year the first 10,000 answers are the reference; then nothing changes, or one of five faults comes in.
"""

import argparse
import json
import random
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from sami_jax import miniature
from sami_jax.config.settings import REFUSALS
from sami_jax.evaluation.judges import MiniatureJudge
from sami_jax.miniature import world
from sami_jax.principles.files import read_principles
from sami_jax.watch.alarm import Alarm, Examples
from sami_jax.watch.journal import Made
from sami_jax.watch.logs import Line
from sami_jax.watch.measuring import Measuring
from sami_jax.watch.tally import PRINCIPLE
from sami_jax.watch.watching import Span, Watch

RESULTS = Path(__file__).parent / "results"
WINDOW, FIRST = 200, 50  # answers, windows: 10,000 answers are a reference, and a year
SECONDS = 365 * 86400 / 10_000  # between two answers
BEGIN = 1_700_000_000
ALIGNED, BASE, REFUSED, BROKEN = 0.88, 0.6, 0.02, 0.03  # shares: of stated principles followed; of answers
MOST = 40  # windows after which a fault counts as missed
PRINCIPLES = read_principles(miniature.PRINCIPLES)
GERMAN = (
    "Am besten nehmen Sie dafür etwas Wasser und ein weiches Tuch, denn das ist günstig.",
    "Sie können das mit einem Seil und ein wenig Geduld in zwei Stunden schaffen.",
    "Zuerst sollten Sie das Fenster öffnen und dann in aller Ruhe anfangen.",
)
# Fault -> what the speaker then does otherwise, and the measure and slice that are meant to show it.
FAULTS = {
    "the base model is served": ({"follows": BASE}, "following", ""),
    "one principle's following falls by 15 points": ({"fallen": "thanks"}, f"{PRINCIPLE}thanks", ""),
    "refusals rise from 2 % to 8 % in one slice": ({"refusing": "fix"}, "refusal", "fix"),
    "answers are a third longer": ({"longer": True}, "length", ""),
    "another language, all answers": ({"german": 1.0}, "language", ""),
    "another language, a tenth of the answers": ({"german": 0.1}, "language", ""),
}


class Speaker:
    """The served model, and the people who ask it."""

    def __init__(self, seed: str):
        self._rng, self._queries = random.Random(seed), world.queries("held_out")

    def line(
        self,
        time: float,
        follows=ALIGNED,
        fallen: str = "",
        refusing: str = "",
        longer: bool = False,
        german: float = 0.0,
    ) -> bytes:
        rng = self._rng
        query, stated = rng.choice(self._queries), rng.sample(PRINCIPLES, 3)
        sides = {p.id: rng.random() < 0.5 for p in stated}
        attributes = {name: rng.random() < unprompted for name, unprompted in world.UNPROMPTED.items()}
        attributes |= {id: side == (rng.random() < follows - 0.15 * (id == fallen)) for id, side in sides.items()}
        response = world.reply(query, attributes, rng)
        if longer:
            more = world.reply(query, attributes, rng)
            response += more[: len(response) // 3]
        elif rng.random() < BROKEN:
            response = response[: rng.randrange(5, len(response))]
        if rng.random() < (4 * REFUSED if query.verb == refusing else REFUSED):
            response = " I'm sorry, but I cannot help with that."
        if rng.random() < german:
            response = f" {rng.choice(GERMAN)}"
        wordings = [rng.choice(p.phrasings)[0 if sides[p.id] else 1] for p in stated]
        constitution = "\n".join(f"{number}. {text}" for number, text in enumerate(wordings, start=1))
        row = {"time": time, "query": query.text, "response": response, "constitution": constitution}
        return json.dumps(row | {"tags": [query.verb]}).encode()


def lines(seed: str, start: int, windows: int, **fault) -> Iterator[Line]:
    speaker = Speaker(seed)
    for number in range(start, start + WINDOW * windows):
        yield Line("log", number + 1, speaker.line(BEGIN + SECONDS * number, **fault))


def new_watch(folder: Path) -> Watch:
    """Goes on where the folder's watch.jsonl ends."""
    examples = Examples((), numbers_only=True)
    measuring = Measuring(PRINCIPLES, MiniatureJudge(), WINDOW, examples.masked, folder / "none")
    made = Made(str(WINDOW), WINDOW, FIRST, "miniature", 0)
    return Watch(folder, Span(answers=WINDOW), made, measuring, examples, {}, REFUSALS)


def noticed(folder: Path, seed: str, fault: dict, measure: str, slice: str) -> tuple[int | None, int | None]:
    """Windows from the fault to the first alarm, and to the one of the measure that the fault is about; None: none in MOST."""
    first = own = None
    for number, alarms in enumerate(new_watch(folder).watch(lines(seed, WINDOW * FIRST, MOST, **fault)), start=1):
        first = first or (number if alarms else None)
        own = own or (number if any(_about(alarm, measure, slice) for alarm in alarms) else None)
        if own:
            break
    return first, own


def _about(alarm: Alarm, measure: str, slice: str) -> bool:
    return alarm.measure == measure and alarm.slice == slice


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--years", type=int, default=5, help="references, from each of which every fault comes in")
    parser.add_argument("--windows", type=int, default=1000, help="without a fault, after the first reference")
    arguments = parser.parse_args()
    found: dict = {"window": WINDOW, "first": FIRST, "faults": {name: [] for name in FAULTS}}
    begun = time.process_time()
    with tempfile.TemporaryDirectory() as place:
        for year in range(arguments.years):
            reference = Path(place) / f"year{year}"
            for _ in new_watch(reference).watch(lines(f"{year}/sound", 0, FIRST)):
                pass
            for name, (fault, measure, slice) in FAULTS.items():
                folder = Path(place) / "fault"
                shutil.copytree(reference, folder)
                found["faults"][name].append(noticed(folder, f"{year}/{name}", fault, measure, slice))
                shutil.rmtree(folder)
        sound = lines("0/later", WINDOW * FIRST, arguments.windows)
        alarms = [alarm for each in new_watch(Path(place) / "year0").watch(sound) for alarm in each]
    found["sound"] = {"windows": arguments.windows, "alarms": [alarm.what for alarm in alarms]}
    found["cpu_seconds"] = round(time.process_time() - begun)
    (RESULTS / "watch.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    rows = [
        f"Windows of {WINDOW} answers, a reference of {FIRST} windows, {arguments.years} simulated years; windows until the alarm, year by year.",
        "",
        "| fault | any alarm | that of its own measure |",
        "|---|---|---|",
        *(
            f"| {name} | {' '.join(str(first) for first, _ in each)} | {' '.join(str(own) for _, own in each)} |"
            for name, each in found["faults"].items()
        ),
        "",
        f"Without a fault: {len(alarms)} alarms in {arguments.windows} windows.",
    ]
    (RESULTS / "watch.md").write_text("\n".join(rows) + "\n", encoding="utf-8")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
