"""Answers of a served model to people who ask, without a model: the miniature's world, with the shares of principles followed that the
aligned model and its base have. Traffic is even, or uneven as real traffic is."""

import json
import math
import random
from collections.abc import Iterator

from sami_jax import miniature
from sami_jax.miniature import world
from sami_jax.principles.files import read_principles
from sami_jax.watch.logs import Line

BEGIN = 1_700_438_400  # a Monday, 00:00 UTC
DAY = 86_400
ANSWERS_A_DAY = 700
ALIGNED, BASE, REFUSED, BROKEN = 0.88, 0.6, 0.02, 0.03  # shares: of stated principles followed; of answers
PRINCIPLES = read_principles(miniature.PRINCIPLES)
GERMAN = (
    "Am besten nehmen Sie dafür etwas Wasser und ein weiches Tuch, denn das ist günstig.",
    "Sie können das mit einem Seil und ein wenig Geduld in zwei Stunden schaffen.",
    "Zuerst sollten Sie das Fenster öffnen und dann in aller Ruhe anfangen.",
)
VERBS = tuple(world.TOOLS)
# Of uneven traffic. Each tag has an hour at which it is asked most, a liking for weekends, and a share of followed principles of its own.
DAILY, WEEKLY, FASHION, FASHION_DAYS = (
    0.7,
    0.5,
    0.3,
    3.0,
)  # of the logarithm of a tag's weight; days until a fashion is forgotten
BY_TAG, AT_NIGHT = 0.05, 0.03  # shares followed: most above or below the mean, by tag; less in the middle of the night


class Traffic:
    """When people ask, and what: the weight of each tag, how much night it is (0 to 1), whether it is a weekend."""

    def __init__(self, rng: random.Random, uneven: bool, a_day: int):
        self._gap = DAY / a_day
        self.time, self.night, self.weekend = float(BEGIN), 0.0, False
        self.weights = [1.0] * len(VERBS)
        self._rng, self._uneven, self._fashion, self._hour = rng, uneven, [0.0] * len(VERBS), -1

    def next(self) -> None:
        """The next answer: uneven traffic comes eight times as often in the afternoon as at night, and half as often on weekends."""
        busy = 1 - 0.78 * self.night + 0.2 * (1 - self.night) if self._uneven else 1.0
        gap = self._gap / busy / (0.5 if self.weekend else 1.0)
        self.time += self._rng.expovariate(1 / gap) if self._uneven else gap
        if self._uneven and (hour := int((self.time - BEGIN) // 3600)) != self._hour:
            self._change(hour)

    def _change(self, hour: int) -> None:
        self._hour, kept = hour, math.exp(-1 / 24 / FASHION_DAYS)
        self.night = (1 + math.cos(2 * math.pi * (hour % 24 - 3) / 24)) / 2
        self.weekend = hour // 24 % 7 >= 5
        moved = FASHION * math.sqrt(1 - kept**2)
        self._fashion = [kept * value + self._rng.gauss(0, moved) for value in self._fashion]
        self.weights = [
            math.exp(
                DAILY * math.cos(2 * math.pi * (hour / 24 - tag / len(VERBS)))
                + WEEKLY * self.weekend * (-1) ** tag
                + self._fashion[tag]
            )
            for tag in range(len(VERBS))
        ]


class Speaker:
    """The served model, and the people who ask it."""

    def __init__(self, seed: str, uneven: bool = False, a_day: int = ANSWERS_A_DAY):
        self._rng, self._uneven = random.Random(seed), uneven
        self._traffic = Traffic(self._rng, uneven, a_day)
        self._queries = {verb: [q for q in world.queries("held_out") if q.verb == verb] for verb in VERBS}

    def line(self, follows=ALIGNED, fallen: str = "", refusing: str = "", longer=False, german: float = 0.0) -> bytes:
        """
        Args:
          follows: share of stated principles that are followed.
          fallen: a principle that is followed 15 points less.
          refusing: a tag whose answers refuse four times as often.
          longer: whether answers are a third longer.
          german: share of answers in another language.
        """
        rng, traffic = self._rng, self._traffic
        traffic.next()
        verb = rng.choices(VERBS, traffic.weights)[0]
        query, stated = rng.choice(self._queries[verb]), rng.sample(PRINCIPLES, 3)
        refused, broken, more = REFUSED, BROKEN, 0.0
        if self._uneven:
            place = VERBS.index(verb) / (len(VERBS) - 1)  # 0 to 1
            follows += BY_TAG * (2 * place - 1) - AT_NIGHT * traffic.night
            refused, broken = refused * (0.5 + place) * (1 + traffic.night), broken + 0.01 * traffic.weekend
            more = 0.05 + 0.1 * traffic.night
        sides = {p.id: rng.random() < 0.5 for p in stated}
        attributes = {name: rng.random() < unprompted for name, unprompted in world.UNPROMPTED.items()}
        attributes |= {id: side == (rng.random() < follows - 0.15 * (id == fallen)) for id, side in sides.items()}
        response = world.reply(query, attributes, rng)
        if longer or rng.random() < more:
            again = world.reply(query, attributes, rng)
            response += again[: len(response) // 3]
        elif rng.random() < broken:
            response = response[: rng.randrange(5, len(response))]
        if rng.random() < refused * (4 if verb == refusing else 1):
            response = " I'm sorry, but I cannot help with that."
        if rng.random() < german:
            response = f" {rng.choice(GERMAN)}"
        wordings = [rng.choice(p.phrasings)[0 if sides[p.id] else 1] for p in stated]
        constitution = "\n".join(f"{number}. {text}" for number, text in enumerate(wordings, start=1))
        row = {"time": traffic.time, "query": query.text, "response": response, "constitution": constitution}
        return json.dumps(row | {"tags": [verb]}).encode()

    def lines(self, count: int, **fault) -> Iterator[Line]:
        for number in range(count):
            yield Line("log", number + 1, self.line(**fault))
