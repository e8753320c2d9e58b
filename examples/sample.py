"""Compose constitutions from principles, and answer queries under each of them.

python examples/sample.py
"""

import sami_jax
from sami_jax import miniature

QUERIES = ["How do I fix the bike?", "Can you help me paint the door?"]


def main() -> None:
    model = sami_jax.load(miniature.BASE)
    principles = sami_jax.read_principles(miniature.PRINCIPLES)  # a folder of YAML files, one principle each
    # A principle may be written here as well: its wordings are pairs of principle and antithesis.
    principles = [
        *principles[:3],
        sami_jax.Principle("thanks", (("Thank the person for asking.", "Do not thank the person."),)),
    ]
    constitutions = sami_jax.compose(principles, len(QUERIES), stated=2, seed=1)
    responses = sami_jax.sample(model, QUERIES, constitutions, temperature=1.0, top_p=0.9, seed=1)
    for query, own, answers in zip(QUERIES, constitutions, responses, strict=True):
        print(query)
        for constitution, answer in zip(own, answers, strict=True):
            print("   ", constitution.replace("\n", " / "))
            print("       ->", answer.strip())


if __name__ == "__main__":
    main()
