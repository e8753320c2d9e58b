"""Which words of a response did its constitution cause? And two models beside each other: how much does each of them heed it?

python examples/explain.py [MODEL]
"""

import sys

import sami_jax
from sami_jax import miniature

QUERY = "How do I fix the bike?"
CONSTITUTIONS = ["1. Say hello first.\n2. Ask a question at the end.", "1. Never say hello.\n2. Do not ask questions."]


def main() -> None:
    base = sami_jax.load(miniature.BASE)
    models = {"base": base}
    if len(sys.argv) > 1:  # a trained one, as runs/demo/iteration_3/model
        models["other"] = sami_jax.load(sys.argv[1])
    responses = sami_jax.sample(base, [QUERY], [CONSTITUTIONS], top_p=0.9, seed=4)
    for name, model in models.items():
        s = sami_jax.score(model, [QUERY], [CONSTITUTIONS], responses, normalize="sum")
        print(f"{name}: mutual information at least {float(sami_jax.mi_posterior_bound(s)[0]):.3f} nats")
        for words in sami_jax.explain(model, [QUERY], [CONSTITUTIONS], responses)[0]:
            print("   ", " ".join(f"{word.strip()}[{nats:+.2f}]" for word, nats in words))


if __name__ == "__main__":
    main()
