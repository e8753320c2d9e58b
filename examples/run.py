"""The whole loop on the embedded model, cut short: base and trained models, measured on queries neither has seen.

python examples/run.py
"""

import sami_jax


def main() -> None:
    # As a command: sami run --config=tiny:smoke --workdir=runs/example. Without :smoke it takes minutes, and is worth while.
    fewer = {"train__updates": (2, 2), "train__batch_size": 8, "train__microbatches": 2, "train__shapes": 1}
    config = sami_jax.load_config("tiny:smoke", **fewer, sampling__batch_size=16, evaluation__queries=4)
    try:
        measured = sami_jax.run(config, "runs/example")
    except sami_jax.UserError as error:  # one line: what, where, what to do
        raise SystemExit(f"run.py: {error}") from None
    for number, sets in enumerate(measured):
        name = f"iteration {number}" if number else "base"
        for principles, found in sets.items():
            share = f"{found['following']:6.1%} followed"
            print(f"{name:>12}  {principles:<22} {share}, {found['mi_posterior_bound']:.3f} nats")


if __name__ == "__main__":
    main()
