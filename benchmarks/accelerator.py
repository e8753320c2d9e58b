"""How near to the hardware's limits: `python -m benchmarks.accelerator --output benchmarks/results/NAME.json`.

On one GPU or TPU chip, with Mistral-7B's widths, random bfloat16 weights, and no more layers than memory holds:
- the SAMI update's tokens a second, its peak of memory, and, where all weights are trained, its model FLOPs utilisation: analytic
  FLOPs, shared-prefix tokens counted once, nothing recomputed counted, over the device's peak; for each of several ways to
  train, each in a process of its own, because a device's peak of memory is never reset;
- decoding's share of the copy bandwidth measured on the spot: bytes of weights and cache that a step must read, over the time
  it takes.
"""

import argparse
import dataclasses
import functools
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from sami_jax.config import defaults
from sami_jax.contrast.update import init_state, make_update
from sami_jax.data.batches import ContrastExample, Shape, pack, shape_for
from sami_jax.models.adapters import adapted, init_adapters
from sami_jax.models.config import ModelConfig
from sami_jax.models.decoder import abstract_params, init_params
from sami_jax.models.published import SHAPES
from sami_jax.planning import costs
from sami_jax.planning.costs import Texts
from sami_jax.sampling.decoding import decode_tokens, empty_slots, keeps_stacked, laid_out
from sami_jax.sampling.drawing import SamplingOptions
from sami_jax.sharding import make_mesh

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
QUERIES = (1, 4, 8)  # in one microbatch; rising, so that each row's peak of memory is its own
# Ways to train, by what they change in a run's config.
VARIANTS = {
    "all weights, AdamW": {},
    "all weights, AdamW with bfloat16 moments": {"optim.moment_dtype": "bfloat16"},
    "all weights, Adafactor": {"optim.name": "adafactor"},
    "LoRA of rank 16, bfloat16 base": {"lora.rank": 16},
}
CONTEXT, STEPS = 512, 64  # tokens in the cache at first, tokens decoded
BATCHES = (1, 32, 128, 256)
BYTES_A_WEIGHT_IN_TRAINING = 18  # fp32 master, two moments, gradient, and a bf16 copy: what the first variant needs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="JSON file; the table is written beside it, as .md")
    parser.add_argument("--miniature", action="store_true", help="a tiny model, to try this program")
    parser.add_argument("--variant", choices=VARIANTS, help="one way to train, alone; JSON is all that is written")
    arguments = parser.parse_args()
    config = MINIATURE if arguments.miniature else MISTRAL_7B
    if arguments.variant:
        write_json(arguments.output, training_rows(config, arguments.variant))
        return
    # Each has the device for itself: this process has not touched it yet.
    trained = {name: in_own_process(name, arguments) for name in VARIANTS}
    device = jax.devices()[0]
    mesh = make_mesh({}, [device])
    report = {
        "device": device.device_kind,
        "jax": jax.__version__,
        "copy_bandwidth": copy_bandwidth(2**20 if arguments.miniature else 2**30),
        "peak_flops": peak_flops(device.device_kind, 256 if arguments.miniature else 8192),
        "training_layers": next(iter(trained.values()))["layers"],
        "training": [row for variant in trained.values() for row in variant["rows"]],
        "decoding": [],
    }
    peak = report["peak_flops"]["stated"] or report["peak_flops"]["measured"]
    for row in report["training"]:
        if "flops" in row:
            row["mfu"] = row["flops"] / row["seconds"] / peak
    layers = fitting_layers(config, 4, 0.5)  # sampling keeps the weights twice
    report["decoding_layers"] = layers
    params = bfloat16_params(replace_layers(config, layers), mesh)
    for batch in BATCHES:
        report["decoding"].append(guarded(decoding, replace_layers(config, layers), params, batch, mesh, report))
    write_json(arguments.output, report)
    arguments.output.with_suffix(".md").write_text(markdown(report), encoding="utf-8")
    print(markdown(report))


def write_json(file: Path, content: dict) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def in_own_process(variant: str, arguments: argparse.Namespace) -> dict:
    """What `training_rows` finds there."""
    file = arguments.output.with_suffix(".part.json")
    command = [sys.executable, "-m", "benchmarks.accelerator", "--variant", variant, "--output", str(file)]
    subprocess.run(command + ["--miniature"] * arguments.miniature, check=True)
    found = json.loads(file.read_text(encoding="utf-8"))
    file.unlink()
    return found


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


def training_rows(config: ModelConfig, variant: str) -> dict:
    """One way to train, with each number of queries; as many layers for all ways as fit the first."""
    layers = fitting_layers(config, BYTES_A_WEIGHT_IN_TRAINING, 0.7)
    mesh = make_mesh({}, [jax.devices()[0]])
    rows = []
    for queries in QUERIES:
        row = guarded(training, replace_layers(config, layers), variant, queries, mesh)
        rows.append({"variant": variant, "queries": queries, **row})
    return {"layers": layers, "rows": rows}


def training(config: ModelConfig, variant: str, queries: int, mesh) -> dict:
    settings = defaults()
    settings.train.compute_dtype = "bfloat16"
    settings.train.remat = "full"
    settings.update_from_flattened_dict(VARIANTS[variant])
    model = adapted(config, settings.lora)
    rng = np.random.default_rng(0)

    def texts(length: int) -> tuple[tuple[int, ...], ...]:
        return tuple(map(tuple, rng.integers(0, config.vocab_size, (COUNT, length)).tolist()))

    examples = [ContrastExample(texts(PREFIX), texts(RESPONSE)) for _ in range(queries)]
    shape: Shape = shape_for(examples, 64)
    batch = pack(examples, shape)
    with jax.set_mesh(mesh):
        frozen = bfloat16_params(config, mesh) if model.adapter else {}
        dtype = settings.train.param_dtype
        start = init_adapters(model, 0, mesh, dtype) if model.adapter else init_params(config, 0, mesh)
        state = init_state(start, model, settings, mesh)
        update = make_update(model, settings, mesh)

        def step():
            nonlocal state
            state, metrics = update(state, [batch], frozen, None)
            return metrics["loss"]

        seconds = median_seconds(step)
    tokens = sum(example.tokens for example in examples)
    row = {"seconds": seconds, "tokens_per_second": tokens / seconds, "peak_bytes": peak_bytes()}
    return row if model.adapter else row | {"flops": costs.update_flops(config, TEXTS, queries)}


def peak_bytes() -> int:
    """Of the device's memory since the process began; where it does not say, of the process's."""
    stats = jax.devices()[0].memory_stats() or {}
    return stats.get("peak_bytes_in_use") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def decoding(config: ModelConfig, params: dict, batch: int, mesh, report: dict) -> dict:
    options = SamplingOptions(temperature=0.0, max_new_tokens=2 * STEPS)
    positions = CONTEXT + 2 * STEPS
    static = {"config": config, "options": options, "end_tokens": (config.vocab_size,), "reach": positions}
    with jax.set_mesh(mesh), laid_out(params, mesh) as layers:
        slots = empty_slots(config, options, batch, positions, jnp.bfloat16, keeps_stacked(mesh))
        going = np.zeros(batch, bool)
        slots = slots._replace(position=jnp.full(batch, CONTEXT, jnp.int32), sampled=jnp.ones(batch, jnp.int32))

        def steps():
            nonlocal slots
            slots = slots._replace(position=jnp.full(batch, CONTEXT, jnp.int32), sampled=jnp.ones(batch, jnp.int32))
            slots = decode_tokens(params, layers, slots, going, batch, STEPS, **static)
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
        f"| SAMI update: {report['training_layers']} layers, C = {COUNT}, prompts {PREFIX}, responses {RESPONSE} | queries | seconds "
        "| tokens/s | peak memory, GiB | MFU |",
        "|---|---|---|---|---|---|",
    ]
    for row in report["training"]:
        values = row.get("error") or (
            f"{row['seconds']:.3f} | {row['tokens_per_second']:,.0f} | {row['peak_bytes'] / 2**30:.2f} | "
            + (f"{row['mfu']:.1%}" if "mfu" in row else "-")
        )
        lines.append(f"| {row['variant']} | {row['queries']} | {values} |")
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
