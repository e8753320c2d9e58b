"""What the base costs in an update: `python -m benchmarks.base`.

Updates of the miniature by objectives that read the base's log-likelihoods (R), have a KL term to it, both, or neither, in turns in one
process, on the same batch. Figures are CPU seconds, since other programs may share the machine.
"""

import os
import statistics
import time

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import sami_jax
from sami_jax import miniature

QUERIES, ROUNDS = 64, 7
WAYS = {
    "neither": {"objective__kl_weight": 0.0},
    "the KL term": {"objective__kl_weight": 0.1},
    "R": {"objective__kl_weight": 0.0, "objective__over_base": True},
    "R and the KL term": {"objective__kl_weight": 0.1, "objective__over_base": True},
}


def main() -> None:
    model = sami_jax.load(miniature.BASE)
    principles = sami_jax.read_principles(miniature.PRINCIPLES)
    queries = [f"How do I fix the {thing}?" for thing in ("bike", "roof", "radio", "boat")] * (QUERIES // 4)
    constitutions = sami_jax.compose(principles, len(queries), stated=3)
    responses = sami_jax.sample(model, queries, constitutions)
    trainings = {name: sami_jax.begin(model, sami_jax.load_config("tiny", **fields)) for name, fields in WAYS.items()}
    seconds = {name: [] for name in WAYS}
    for _ in range(ROUNDS + 1):  # the first compiles
        for name, training in trainings.items():
            started = time.process_time()
            trainings[name], _ = sami_jax.update(training, queries, constitutions, responses)
            seconds[name].append(time.process_time() - started)
    least = statistics.median(seconds["neither"][1:])
    for name, each in seconds.items():
        spent = statistics.median(each[1:])
        print(f"{name:20} {spent:6.2f} s of CPU an update, {spent / least:.2f} times")


if __name__ == "__main__":
    main()
