"""How often canaries fire on sound runs, and how soon on runs that decay, by simulation: python -m benchmarks.canaries

Replies are independent from look to look, as at temperature 1; greedy ones are closer to the base's, and fire less. In each run
there are 12 looks, as by the paper's configs.
"""

import argparse

import numpy as np
from rich.console import Console
from rich.table import Table

from sami_jax.config import defaults
from sami_jax.evaluation.signs import Signs, fired

LOOKS = 12


def look(
    rng, update: int, queries: int, whole=0.9, refusal=0.05, tokens=60.0, repeating=0.03, follows=0.7, kept=-1.0, mi=0.5
):
    """A look at a model whose replies are whole, refuse and follow with these chances; the two replies to a query have an ease
    in common. kept: nats a token."""
    ease = rng.normal(size=(queries, 1)) * 0.5 + rng.normal(size=(queries, 2))

    def happens(chance):
        logit = np.log(chance / (1 - chance)) if 0 < chance < 1 else np.inf * (chance - 0.5)
        return (rng.logistic(size=ease.shape) < logit * 1.2 + 0.5 * ease).astype(float)

    replies = {
        "well_formed": happens(whole),
        "tokens": np.maximum(rng.lognormal(np.log(tokens) - 0.32, 0.8, ease.shape).round(), 1),
        "repetition": rng.beta(repeating * 10, (1 - repeating) * 10, ease.shape),
        "refusal": happens(refusal),
        "kept_logprob": kept + 0.3 * rng.normal(size=ease.shape),
    }
    if follows is not None:
        replies["following"] = happens(follows)
    return Signs(update, mi, replies)


def run(config, rng, base: dict, changed: dict, after: int) -> int | None:
    """The look at which a run is stopped that changes after so many looks; None: none."""
    looks = [look(rng, 0, config.canaries.queries, **base)]
    for number in range(1, LOOKS + 1):
        now = look(rng, number, config.canaries.queries, **(base | (changed if number > after else {})))
        if fired(config, looks, now):
            return number
        looks.append(now)
    return None


SOUND = {
    "half of the replies are whole": {"whole": 0.5},
    "eight of ten": {"whole": 0.8},
    "nine of ten": {"whole": 0.9},
    "all": {"whole": 0.999},
    "a third refuse": {"refusal": 0.33},
    "long and short replies": {"tokens": 200.0},
    "the bound is at its cap, no judge": {"mi": 0.95, "follows": None},
    "the bound is at its cap, a judge": {"mi": 0.95, "follows": 0.6},
}
DECAY = {
    "half of the replies break": {"whole": 0.45},
    "replies are three times as long": {"tokens": 180.0},
    "replies repeat themselves": {"repeating": 0.4},
    "whatever is asked is refused": {"refusal": 0.8},
    "a saturated bound, following falls by 30 points": {"mi": 0.95, "follows": 0.4},
    "a saturated bound, the base's replies fall by 2 nats": {"mi": 0.95, "kept": -3.0, "follows": None},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    config = defaults()
    config.train.updates = (2, 4, 6)
    rng = np.random.default_rng(arguments.seed)
    table = Table("a sound run", "stopped, %")
    for name, base in SOUND.items():
        stopped = [run(config, rng, base, {}, LOOKS) is not None for _ in range(arguments.runs)]
        table.add_row(name, f"{100 * np.mean(stopped):.1f}")
    Console().print(table)
    table = Table("a run that decays after four looks", "by the first look, %", "by the second, %")
    for name, changed in DECAY.items():
        base = {"follows": changed.get("follows", 0.7) and 0.7, "mi": changed.get("mi", 0.5)}
        stopped = [run(config, rng, base, changed, 4) for _ in range(arguments.runs)]
        at = [100 * np.mean([s is not None and s <= 4 + looks for s in stopped]) for looks in (1, 2)]
        table.add_row(name, *(f"{share:.1f}" for share in at))
    Console().print(table)


if __name__ == "__main__":
    main()
