"""What `sami compare` decides on real replies: `python -m benchmarks.decisions --output benchmarks/results/decisions.json`.

The miniature's base answers each query several times, as in comparisons with other seeds, and its exact judge reads all replies. A
comparison draws queries, and a reply of each contestant to each. Two are made many times, at the number of queries that a plan names:
the base against itself, where every "ship" is wrong; and against a better contestant, who in some share of the queries answers twice
and keeps what the judge prefers, so that its true gain, over all replies there are, is the one that the plan claims to show.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sami_jax.config import load_config
from sami_jax.data.pairs import clean
from sami_jax.data.splits import split_queries
from sami_jax.evaluation.compare import MORE, SHIP, STAY, Contestant, compose, decide, shows
from sami_jax.evaluation.verdicts import Verdict
from sami_jax.ground.paths import path_of
from sami_jax.miniature import judge
from sami_jax.models.pretrained import open_model
from sami_jax.principles import constitutions as composing
from sami_jax.principles.files import read_principles
from sami_jax.sampling.decoding import generate
from sami_jax.sampling.drawing import SamplingOptions
from sami_jax.sampling.rollout import seeds
from sami_jax.sharding import ALL_DEVICES, make_mesh

MARGINS = (0.04, 0.05, 0.07)


def followed(count: int, replies: int) -> np.ndarray:
    """[queries, replies]: how many stated principles each of the base's replies follows."""
    config, _ = load_config("tiny", [])
    split = split_queries(config.data)
    queries = [*split.held_out, *split.training][:count]
    constitutions = compose(config, read_principles(path_of(config.principles.path)), len(queries))
    model, mesh = open_model(path_of(config.model.path)), make_mesh(ALL_DEVICES)
    contestant, e, s = Contestant("baseline", model), config.evaluation, config.sampling
    texts = map(composing.text, constitutions)
    asked = [contestant.prompt(config, text, query)[0] for query, text in zip(queries, texts, strict=True)]
    answered = generate(
        model.load(mesh),
        model.config,
        [prompt for prompt in asked for _ in range(replies)],
        seeds("decisions", len(queries) * replies),
        SamplingOptions(e.temperature, e.top_p, s.top_k, s.max_new_tokens, tuple(s.stop)),
        end_tokens=model.end_tokens,
        decode=model.decode,
        mesh=mesh,
        batch_size=s.batch_size,
    )
    scores = []
    for place, reply in enumerate(answered):
        query, stated = queries[place // replies], composing.stated(constitutions[place // replies])
        scores.append(sum(judge.followed(query.text, clean(reply.text, config.filter), stated).values()))
    return np.array(scores).reshape(-1, replies)


def outcomes(baseline: np.ndarray, test: np.ndarray) -> np.ndarray:
    return 0.5 + 0.5 * np.sign(test - baseline)


def true_rate(scores: np.ndarray) -> float:
    """The win rate of two replies, the better of which counts, over one, all of the same query."""
    count, rates = scores.shape[1], []
    for first in range(count):
        others = np.delete(scores, first, axis=1)
        one, two = np.triu_indices(count - 1, 1)
        rates.append(outcomes(scores[:, first, None], np.maximum(others[:, one], others[:, two])).mean())
    return float(np.mean(rates))


def compared(rng: np.random.Generator, scores: np.ndarray, share: float, queries: int, margin: float) -> str:
    """The decision of one comparison.

    Args:
      share: of the queries that the tested contestant answers twice.
    """
    chosen = rng.choice(len(scores), queries, replace=queries > len(scores))
    baseline, one, two = rng.permuted(scores[chosen], axis=1)[:, :3].T
    test = np.where(rng.random(queries) < share, np.maximum(one, two), one)
    wins = outcomes(baseline, test)
    return decide([Verdict(float(win), str(place)) for place, win in enumerate(wins)], margin)["decision"]


def decisions(scores: np.ndarray, margins: Sequence[float], comparisons: int) -> list[dict]:
    rows, rate = [], true_rate(scores)
    for margin in margins:
        gain, n = shows(margin)
        share = gain / (rate - 0.5)
        row: dict = {"margin": margin, "queries": n, "gain": gain, "answered_twice": share}
        if share > 1:
            raise SystemExit(
                f"margin {margin}: the better of two replies gains {rate - 0.5:.3f}, and {gain:.3f} is wanted"
            )
        for name, answered_twice in (("base_against_base", 0.0), ("true_gain", share)):
            rng = np.random.default_rng([round(1000 * margin), round(1000 * answered_twice)])
            found = [compared(rng, scores, answered_twice, n, margin) for _ in range(comparisons)]
            row[name] = {decision: found.count(decision) / comparisons for decision in (SHIP, STAY, MORE)}
        rows.append(row)
        print(row, flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="JSON file")
    parser.add_argument("--queries", type=int, default=400)
    parser.add_argument("--replies", type=int, default=8, help="to each query, at least 3")
    parser.add_argument("--comparisons", type=int, default=200)
    arguments = parser.parse_args()
    scores = followed(arguments.queries, arguments.replies)
    report = {
        "queries": len(scores),
        "replies": scores.shape[1],
        "ties_of_base_against_base": float((scores[:, :1] == scores[:, 1:]).mean()),
        "win_rate_of_the_better_of_two": true_rate(scores),
        "comparisons": arguments.comparisons,
        "decisions": decisions(scores, MARGINS, arguments.comparisons),
    }
    arguments.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
