"""How likely is each response under each constitution? S[i, j] = log p(y_j | c_i, x), and the mutual information it shows.

python examples/score.py
"""

import sami_jax
from sami_jax import miniature

QUERY = "How do I fix the bike?"
CONSTITUTIONS = ["1. Say hello first.", "1. Never say hello."]
RESPONSES = [" Hello. Surely you can fix the bike with glue.", " Surely you can fix the bike with glue."]


def main() -> None:
    model = sami_jax.load(miniature.BASE)  # any folder in Hugging Face format: Llama, Mistral, Mixtral, Qwen
    # Every list has the queries first: here one of them.
    s = sami_jax.score(model, [QUERY], [CONSTITUTIONS], [RESPONSES], normalize="sum")
    for constitution, row in zip(CONSTITUTIONS, s[0], strict=True):
        print(f"{constitution:>20}  " + "  ".join(f"{logprob:8.3f}" for logprob in row) + "  nats")
    print(f"mutual information at least {float(sami_jax.mi_posterior_bound(s)[0]):.3f} nats, of at most 0.693")
    # What training lowers is taken of S per token, where texts of different lengths can be compared.
    s = sami_jax.score(model, [QUERY], [CONSTITUTIONS], [RESPONSES])
    print(f"contrastive loss {float(sami_jax.contrastive_loss(s)[0]):.3f} nats")


if __name__ == "__main__":
    main()
