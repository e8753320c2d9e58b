"""SAMI by hand: sample, score, update; the mutual information between constitutions and responses rises.

python examples/update.py
"""

import sami_jax
from sami_jax import miniature

BATCH = 16
UPDATES = 8


def main() -> None:
    model = sami_jax.load(miniature.BASE)
    config = sami_jax.load_config("tiny", train__microbatches=1, train__remat="none")
    principles = sami_jax.read_principles(miniature.PRINCIPLES)
    queries = sami_jax.read_queries(miniature.QUERIES / "train.jsonl")[:BATCH]

    constitutions = sami_jax.compose(principles, BATCH, stated=3)
    responses = sami_jax.sample(model, queries, constitutions, top_p=0.9)

    training = sami_jax.begin(model, config)
    for number in range(1, UPDATES + 1):
        training, metrics = sami_jax.update(training, queries, constitutions, responses)
        print(
            f"update {number}: loss {metrics['loss']:.3f}, mutual information {metrics['mi_posterior_bound']:.3f} nats"
        )

    sami_jax.save(training.model, "aligned")
    print("saved: aligned")


if __name__ == "__main__":
    main()
