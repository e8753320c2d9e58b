"""How near to the hardware's limits: `python -m benchmarks.accelerator --output benchmarks/results/NAME.json`.

On one GPU or TPU chip, with Mistral-7B's widths, random bfloat16 weights, and no more layers than memory holds:
- the SAMI update's model FLOPs utilisation: analytic FLOPs, shared-prefix tokens counted once, nothing recomputed counted,
  over the device's peak;
- decoding's share of the copy bandwidth measured on the spot: bytes of weights and cache that a step must read, over the time
  it takes.
"""

import argparse
import dataclasses
import functools
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from sami_jax import sampling
from sami_jax.config import defaults
from sami_jax.data.batches import ContrastExample, Shape, pack, shape_for
from sami_jax.models.config import ModelConfig
from sami_jax.models.decoder import abstract_params, init_params, layer_weights
from sami_jax.models.published import SHAPES
from sami_jax.planning import costs
from sami_jax.planning.costs import Texts
from sami_jax.sampling import SamplingOptions
from sami_jax.sharding import make_mesh
from sami_jax.training import init_state, make_update

MISTRAL_7B = SHAPES["mistral-7b"]
# A model that any machine runs in seconds, to try this program itself.
MINIATURE = dataclasses.replace(
    MISTRAL_7B, vocab_size=512, d_model=64, n_layers=2, n_heads=4, n_kv_heads=2, head_dim=16, d_ff=128
)

# Peak dense bfloat16 FLOP/s by a part of the device's name, from its maker's data sheet; the first that fits counts.
PEAKS = {
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "A100": 312e12,
    "L4": 121e12,
    "TPU v6": 918e12,
    "TPU v5p": 459e12,
    "TPU v5": 197e12,
    "TPU v4": 275e12,
}
TEXTS = PREFIX, RESPONSE, COUNT = Texts(prefix=512, response=96, count=2)
QUERIES = (1, 4, 8)  # in one microbatch
CONTEXT, STEPS = 512, 64  # tokens in the cache at first, tokens decoded
BATCHES = (1, 32, 128, 256)
BYTES_A_WEIGHT_IN_TRAINING = 18  # fp32 master, two moments, gradient, and a bf16 copy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="JSON file; the table is written beside it, as .md")
    parser.add_argument("--miniature", action="store_true", help="a tiny model, to try this program")
    arguments = parser.parse_args()
    device = jax.devices()[0]
    config = MINIATURE if arguments.miniature else MISTRAL_7B
    mesh = make_mesh({}, [device])
    report = {
        "device": device.device_kind,
        "jax": jax.__version__,
        "copy_bandwidth": copy_bandwidth(2**20 if arguments.miniature else 2**30),
        "peak_flops": peak_flops(device.device_kind, 256 if arguments.miniature else 8192),
        "training": [],
        "decoding": [],
    }
    layers = fitting_layers(config, BYTES_A_WEIGHT_IN_TRAINING, 0.7)
    report["training_layers"] = layers
    for queries in QUERIES:
        report["training"].append(guarded(training, replace_layers(config, layers), queries, mesh, report))
    layers = fitting_layers(config, 4, 0.5)  # sampling keeps the weights twice
    report["decoding_layers"] = layers
    params = bfloat16_params(replace_layers(config, layers), mesh)
    for batch in BATCHES:
        report["decoding"].append(guarded(decoding, replace_layers(config, layers), params, batch, mesh, report))
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    arguments.output.with_suffix(".md").write_text(markdown(report), encoding="utf-8")
    print(markdown(report))


def guarded(measure: Callable[..., dict], *arguments) -> dict:
    """A measurement, or that memory did not suffice for it."""
    try:
        return measure(*arguments)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return {"error": "out of memory"}


def replace_layers(config: ModelConfig, layers: int) -> ModelConfig:
    return dataclasses.replace(config, n_layers=layers)


def fitting_layers(config: ModelConfig, bytes_a_weight: int, share: float) -> int:
    """As many layers as fill at most this share of the device's memory."""
    stats = jax.devices()[0].memory_stats() or {}
    if "bytes_limit" not in stats:
        return config.n_layers
    _, blocks, unembedding = costs.count_weights(replace_layers(config, 1))
    left = stats["bytes_limit"] * share / bytes_a_weight - 2 * unembedding
    return max(1, min(config.n_layers, int(left // blocks)))


def median_seconds(call: Callable[[], object], repeats: int = 5) -> float:
    """Of warm calls."""
    jax.block_until_ready(call())
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        jax.block_until_ready(call())
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def copy_bandwidth(size: int) -> float:
    """Bytes read and written per second by a large copy."""
    x = jnp.zeros(size, jnp.bfloat16)
    return 2 * x.nbytes / median_seconds(functools.partial(jax.jit(lambda x: x + 1), x))


def peak_flops(kind: str, size: int) -> dict:
    """From the data sheet where the device is known, and as a large matrix product reaches."""
    x = jnp.ones((size, size), jnp.bfloat16)
    measured = 2 * size**3 / median_seconds(functools.partial(jax.jit(lambda x: x @ x), x))
    stated = next((peak for name, peak in PEAKS.items() if name.lower() in kind.lower()), None)
    return {"stated": stated, "measured": measured}


def bfloat16_params(config: ModelConfig, mesh) -> dict:
    def make():
        leaves, tree = jax.tree.flatten(abstract_params(config))
        keys = jax.random.split(jax.random.key(0), len(leaves))
        return tree.unflatten(
            [jax.random.normal(key, leaf.shape, jnp.bfloat16) * 0.02 for key, leaf in zip(keys, leaves, strict=True)]
        )

    with jax.set_mesh(mesh):
        return jax.jit(make)()


def training(config: ModelConfig, queries: int, mesh, report: dict) -> dict:
    settings = defaults()
    settings.train.compute_dtype = "bfloat16"
    settings.train.remat = "full"
    rng = np.random.default_rng(0)

    def texts(length: int) -> tuple[tuple[int, ...], ...]:
        return tuple(map(tuple, rng.integers(0, config.vocab_size, (COUNT, length)).tolist()))

    examples = [ContrastExample(texts(PREFIX), texts(RESPONSE)) for _ in range(queries)]
    shape: Shape = shape_for(examples, 64)
    batch = pack(examples, shape)
    with jax.set_mesh(mesh):
        state = init_state(init_params(config, 0, mesh), config, settings, mesh)
        update = make_update(config, settings, mesh)

        def step():
            nonlocal state
            state, metrics = update(state, [batch], {}, None)
            return metrics["loss"]

        seconds = median_seconds(step)
    flops = costs.update_flops(config, TEXTS, queries)
    peak = report["peak_flops"]["stated"] or report["peak_flops"]["measured"]
    tokens = sum(example.tokens for example in examples)
    return {
        "queries": queries,
        "seconds": seconds,
        "tokens_per_second": tokens / seconds,
        "mfu": flops / seconds / peak,
    }


def decoding(config: ModelConfig, params: dict, batch: int, mesh, report: dict) -> dict:
    options = SamplingOptions(temperature=0.0, max_new_tokens=2 * STEPS)
    static = {"config": config, "options": options, "end_tokens": (config.vocab_size,)}
    positions = CONTEXT + 2 * STEPS
    with jax.set_mesh(mesh):
        stacked = sampling.keeps_stacked(mesh)
        layers = params["blocks"] if stacked else layer_weights(params)
        slots = sampling.empty_slots(config, options, batch, positions, jnp.bfloat16, stacked)
        going = np.zeros(batch, bool)
        slots = slots._replace(position=jnp.full(batch, CONTEXT, jnp.int32), sampled=jnp.ones(batch, jnp.int32))

        def steps():
            nonlocal slots
            slots = slots._replace(position=jnp.full(batch, CONTEXT, jnp.int32), sampled=jnp.ones(batch, jnp.int32))
            slots = sampling.decode_tokens(params, layers, slots, going, batch, STEPS, **static)
            return slots.last

        seconds = median_seconds(steps) / STEPS
    _, blocks, unembedding = costs.count_weights(config)
    moved = 2 * (blocks + unembedding) + batch * costs.cache_bytes(config, positions)
    return {
        "batch": batch,
        "seconds": seconds,
        "tokens_per_second": batch / seconds,
        "bandwidth_share": moved / seconds / report["copy_bandwidth"],
    }


def markdown(report: dict) -> str:
    peak = report["peak_flops"]
    stated = f"{peak['stated'] / 1e12:.0f} TFLOP/s by its data sheet" if peak["stated"] else "no known data sheet"
    lines = [
        f"{report['device']}, jax {report['jax']}: {stated}, {peak['measured'] / 1e12:.1f} TFLOP/s in a large matrix product, "
        f"{report['copy_bandwidth'] / 1e9:.0f} GB/s in a large copy.",
        "",
        f"| SAMI update: {report['training_layers']} layers, C = {COUNT}, prompts {PREFIX}, responses {RESPONSE} | seconds | tokens/s | MFU |",
        "|---|---|---|---|",
    ]
    for queries, row in zip(QUERIES, report["training"], strict=True):
        values = row.get("error") or f"{row['seconds']:.3f} | {row['tokens_per_second']:,.0f} | {row['mfu']:.1%}"
        lines.append(f"| {queries} queries | {values} |")
    lines += [
        "",
        f"| Decoding: {report['decoding_layers']} layers, {CONTEXT} tokens in the cache | ms a step | tokens/s | share of copy bandwidth |",
        "|---|---|---|---|",
    ]
    for batch, row in zip(BATCHES, report["decoding"], strict=True):
        values = row.get("error") or (
            f"{row['seconds'] * 1e3:.2f} | {row['tokens_per_second']:,.0f} | {row['bandwidth_share']:.1%}"
        )
        lines.append(f"| {batch} rows | {values} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
