"""Constitutions composed from principles: a pure function of (principles, rule, sizes, seed, index)."""

import dataclasses
import itertools
import random
from collections.abc import Callable, Sequence

from sami_jax.errors import UserError
from sami_jax.principles.principle import Principle

Signs = tuple[bool, ...]  # for each chosen principle: True states the principle, False its antithesis


@dataclasses.dataclass(frozen=True)
class Statement:
    """One line of a constitution."""

    id: str  # of the principle
    positive: bool  # False: the antithesis is stated
    text: str


Constitution = tuple[Statement, ...]


def text(constitution: Constitution) -> str:
    """The constitution as a numbered list; of one statement, as that statement."""
    return constitution[0].text if len(constitution) == 1 else numbered([statement.text for statement in constitution])


def numbered(statements: Sequence[str]) -> str:
    """Statements as a numbered list."""
    return "\n".join(f"{number}. {statement}" for number, statement in enumerate(statements, start=1))


def statements(text: str) -> list[str]:
    """What a constitution's text states, the inverse of `numbered`; a text that is no such list is one statement."""
    found, rest = [], text.removeprefix("1. ")
    while rest != text and (border := f"\n{len(found) + 2}. ") in rest:
        one, rest = rest.split(border, 1)
        found.append(one)
    return [*found, rest]


def stated(constitution: Constitution) -> dict[str, bool]:
    """Principle id -> whether the principle, rather than its antithesis, is stated."""
    return {statement.id: statement.positive for statement in constitution}


def read(constitution: str, principles: Sequence[Principle]) -> Constitution:
    """The inverse of `text`.

    Raises:
      UserError: a statement that is no wording of any principle.
    """
    sides = {words: (p.id, side == 0) for p in principles for pair in p.phrasings for side, words in enumerate(pair)}
    found = [words.strip() for words in statements(constitution)]
    if unknown := [words for words in found if words not in sides]:
        raise UserError(
            f"{unknown[0]!r:.80} is stated, but is no wording of a known principle; give the principles it is from"
        )
    return tuple(Statement(*sides[words], words) for words in found)


def split(
    principles: Sequence[Principle], held_out: Sequence[str], drawn: int, seed: int
) -> tuple[list[Principle], list[Principle]]:
    """Principles to train on, and principles kept for evaluation (paper: diverse principles, 15 and 5).

    Args:
      held_out: ids kept by name.
      drawn: how many more are kept, drawn by `seed` from the others, whatever their order.
    """
    others = sorted(p.id for p in principles if p.id not in held_out)
    kept = {*held_out, *random.Random(f"{seed}/held out").sample(others, drawn)}
    return [p for p in principles if p.id not in kept], [p for p in principles if p.id in kept]


def compose(
    principles: Sequence[Principle], rule: str, chosen: int, count: int, seed: str, index: int
) -> tuple[Constitution, ...]:
    """The C constitutions under which query `index` is answered.

    All are about the same `chosen` principles in the same order and wording; they differ in which sides they take.

    Args:
      rule: key of RULES.
      chosen: principles a constitution states, at most as many as there are.
      count: C.
      seed: any text; the same (seed, index) gives the same constitutions.
    """
    rng = random.Random(f"{seed}/{index}")
    drawn = [(principle.id, rng.choice(principle.phrasings)) for principle in rng.sample(list(principles), chosen)]
    return tuple(
        tuple(
            Statement(id, positive, phrasing[0 if positive else 1])
            for (id, phrasing), positive in zip(drawn, signs, strict=True)
        )
        for signs in RULES[rule](chosen, count, rng)
    )


def opposite(constitution: Constitution, principles: Sequence[Principle]) -> Constitution:
    """The constitution that takes the other side everywhere, in the same order and wording."""
    wordings = {(p.id, side): pair for p in principles for pair in p.phrasings for side in pair}
    return tuple(Statement(s.id, not s.positive, wordings[s.id, s.text][1 if s.positive else 0]) for s in constitution)


def reordered(constitutions: Sequence[Constitution], seed: str, index: int) -> tuple[Constitution, ...]:
    """The same constitutions with their statements in another order, one order for all of them."""
    order = list(range(len(constitutions[0])))
    random.Random(f"{seed}/order/{index}").shuffle(order)
    return tuple(tuple(constitution[i] for i in order) for constitution in constitutions)


def _complement(chosen: int, count: int, rng: random.Random) -> list[Signs]:
    """Pairs of a random constitution and its exact opposite (paper: diverse principles); distinct while they last."""
    halves = [signs for signs in itertools.product((True, False), repeat=chosen) if signs[0]]
    pairs = []
    for signs in _distinct(halves, count // 2, rng):
        opposite = tuple(not sign for sign in signs)
        pairs += rng.choice([(signs, opposite), (opposite, signs)])
    return pairs


def _positive_vs_rest(chosen: int, count: int, rng: random.Random) -> list[Signs]:
    """All principles first, then constitutions with at least one antithesis (authors' code); distinct while they last."""
    positive = (True,) * chosen
    rest = [signs for signs in itertools.product((True, False), repeat=chosen) if signs != positive]
    return [positive, *_distinct(rest, count - 1, rng)]


def _iid(chosen: int, count: int, rng: random.Random) -> list[Signs]:
    """Every side drawn by itself (paper, algorithm 1); constitutions may coincide."""
    return [tuple(rng.random() < 0.5 for _ in range(chosen)) for _ in range(count)]


def _distinct(options: list[Signs], wanted: int, rng: random.Random) -> list[Signs]:
    drawn = []
    while len(drawn) < wanted:
        drawn += rng.sample(options, min(wanted - len(drawn), len(options)))
    return drawn


RULES: dict[str, Callable[[int, int, random.Random], list[Signs]]] = {
    "complement": _complement,
    "positive_vs_rest": _positive_vs_rest,
    "iid": _iid,
}
