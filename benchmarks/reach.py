"""Does an update reach a model in bfloat16? `python -m benchmarks.reach --output benchmarks/results/reach.json`.

Published bases are stored in bfloat16. Here the miniature is: its base, rounded, is trained at rates far below half a step between
bfloat16 numbers, and by so few updates that most weights stay below it in all, as in the paper. Every way of keeping weights sees the
same batches of sampled responses. What updates teach is the rise of the bound on I(Y; C | X) on held-out queries, nats, by the
weights as the forward pass casts them: those that are sampled from, measured and published. They are scored in float32, so that
nothing but the weights differs.
"""

import argparse
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

import sami_jax
from sami_jax import miniature
from sami_jax.api.arguments import encode_examples
from sami_jax.contrast.optim import effective_update, stochastic_round
from sami_jax.contrast.update import TrainState, init_state, programs, put_batch
from sami_jax.data.batches import TrainingBatches
from sami_jax.models.layers import cast

QUERIES, HELD_OUT = 384, 128
BATCH = 16
RATE, UPDATES = 1e-5, 6
SEEDS = 2  # of the order of the data, and of chances


class Way(NamedTuple):
    """How weights are kept, and what of them is computed with."""

    name: str
    compute_dtype: str = "bfloat16"
    param_dtype: str = "float32"
    rounding: str = "nearest"
    # Of float32 weights, by the number of the update: the chances by which the computed copy is rounded; None: to the nearest.
    chances: Callable[[int], int] | None = None


WAYS = (
    Way("float32, computed in float32", compute_dtype="float32"),
    Way("float32, nearest copy"),
    Way("bfloat16, moves rounded to the nearest", param_dtype="bfloat16"),
    Way("bfloat16, moves rounded by chance (paper_training)", param_dtype="bfloat16", rounding="stochastic"),
    Way("float32, copy rounded by chance, new at each update", chances=lambda number: number),
    Way("float32, copy rounded by chance, the same at each update", chances=lambda number: 0),
)


class Data(NamedTuple):
    queries: list[str]
    constitutions: list[list[str]]
    responses: list[list[str]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="JSON file; the table is written beside it, as .md")
    arguments = parser.parse_args()
    base = on_the_grid(sami_jax.load(miniature.BASE))
    principles = sami_jax.read_principles(miniature.PRINCIPLES)
    data = [
        sampled(base, principles, sami_jax.read_queries(miniature.QUERIES / f"{name}.jsonl")[:count], seed)
        for seed, (name, count) in enumerate({"train": QUERIES, "held_out": HELD_OUT}.items())
    ]
    report = {"base": bound(base, base.params, data[1]), "rate": RATE, "updates": UPDATES, "batch": BATCH, "rows": []}
    for way in WAYS:
        found = [trained(base, way, seed, *data) for seed in range(SEEDS)]
        gains, effective = zip(*found, strict=True)
        row = {"way": way.name, "gains": [gain - report["base"] for gain in gains]}
        report["rows"].append(row | {"effective_update": float(np.mean(effective))})
        arguments.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        arguments.output.with_suffix(".md").write_text(markdown(report), encoding="utf-8")
    print(markdown(report))


def on_the_grid(model: sami_jax.Model) -> sami_jax.Model:
    return sami_jax.Model(model.files, computed(model.params, "bfloat16"), model.mesh)


def computed(params: dict, dtype: str) -> dict:
    return jax.tree.map(lambda weight: cast(weight, jnp.dtype(dtype)), params)


def sampled(model: sami_jax.Model, principles, queries: list[str], seed: int) -> Data:
    constitutions = sami_jax.compose(principles, len(queries), stated=3, seed=seed)
    return Data(queries, constitutions, sami_jax.sample(model, queries, constitutions, top_p=0.9, seed=seed))


def bound(base: sami_jax.Model, params: dict, data: Data) -> float:
    """The posterior bound on the information, nats, mean over the queries."""
    model = sami_jax.Model(base.files, computed(params, "float32"), base.mesh)
    return float(np.mean(sami_jax.mi_posterior_bound(sami_jax.score(model, *data, normalize="sum", batch_size=32))))


def trained(base: sami_jax.Model, way: Way, seed: int, data: Data, held_out: Data) -> tuple[float, float]:
    """The bound on held-out queries after the updates, and the mean of their `effective_update`."""
    config = sami_jax.load_config("tiny", objective__kl_weight=0.0, optim__learning_rate=RATE, seed=seed)
    config.optim.epsilon = 1e-8  # AdamW's own, as in the paper
    config.train.update({name: getattr(way, name) for name in ("compute_dtype", "param_dtype", "rounding")})
    options = {"updates": UPDATES, "batch_size": BATCH, "microbatches": 1, "shapes": 1, "bucket": 32}
    batches = TrainingBatches(encode_examples(base, *data, None), **options, seed=seed)
    with jax.set_mesh(base.mesh):
        *_, (copy, effective) = made(base, way, config, batches)
    return bound(base, copy, held_out), float(np.mean(effective))


def made(base: sami_jax.Model, way: Way, config: ConfigDict, batches: TrainingBatches) -> Iterator[tuple[dict, list]]:
    """After each update: the weights that are computed with, and what share of each update so far reached them."""
    shape, mesh = base.files.config, base.mesh
    _, add, _, apply = programs(shape, config, mesh)
    params = jax.tree.map(lambda weight: jnp.array(weight, way.param_dtype, copy=True), base.params)
    state, effective = init_state(params, shape, config, mesh), []
    copy = copied(state, way, config, 0)
    for number in range(len(batches)):
        total = None
        for batch in batches[number]:
            total, _ = add(copy if way.chances else state.params, {}, total, put_batch(batch, mesh), None)
        before = copy
        state, metrics, change = apply(state, total, count=len(batches[number]))
        copy = copied(state, way, config, number + 1)
        share = effective_update(before, copy, change, "float32") if way.chances else metrics["effective_update"]
        effective.append(float(share))
        yield copy, effective


def copied(state: TrainState, way: Way, config: ConfigDict, number: int) -> dict:
    if way.chances is None:
        return computed(state.params, way.compute_dtype)
    leaves, structure = jax.tree.flatten(state.params)
    keys = jax.random.split(jax.random.fold_in(jax.random.key(config.seed), way.chances(number)), len(leaves))
    return jax.tree.unflatten(structure, [stochastic_round(*both) for both in zip(leaves, keys, strict=True)])


def markdown(report: dict) -> str:
    lines = [
        f"Base: {report['base']:.4f} nats. {report['updates']} updates of {report['batch']} queries at {report['rate']:g}.",
        "",
        "| weights that are trained | effective update | bound gained, nats |",
        "|---|---|---|",
    ]
    for row in report["rows"]:
        gains = " ".join(f"{gain:+.5f}" for gain in row["gains"])
        lines.append(f"| {row['way']} | {row['effective_update']:.3f} | {gains} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
