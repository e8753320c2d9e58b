"""Sampling where prompts are of mixed lengths, or begin alike: `python -m benchmarks.decoding reach --batch 8`, or `shared`.

On the shapes of SmolLM2-135M with random weights: as many prompts of random tokens as rows, 64 new tokens for each. Two ways in turns, in one
process: as it is, and without what is looked at. `reach`: prompts of 64 to 1,024 tokens, and every slot of the cache is read at every token; `shared`:
prompts of 384 to 1,024 tokens, the first 320 of which are the same, and each prompt is read whole.
"""

import argparse
import os
import statistics
import time
from unittest import mock

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import numpy as np

from sami_jax.models.config import ModelConfig
from sami_jax.models.decoder import init_params
from sami_jax.sampling import decoding
from sami_jax.sampling.drawing import SamplingOptions
from sami_jax.sharding import make_mesh

SHAPE = ModelConfig("llama", 49152, 576, 30, 9, 3, 64, 1536, max_positions=8192, tie_embeddings=True)
SHARED, SHORTEST, LONGEST, NEW = 320, 64, 1024, 64
OTHERWISE = {"reach": ("reach_of", lambda taken, places: places), "shared": ("shared_start", lambda *_: 0)}
PROGRAMS = {"reach": "decode_tokens", "shared": "admit_prompts"}  # whose seconds are told


class Timed:
    """A program, and the seconds that its calls took."""

    def __init__(self, program):
        self.program, self.seconds = program, 0.0

    def __call__(self, *arguments, **static):
        started = time.perf_counter()
        result = jax.block_until_ready(self.program(*arguments, **static))
        self.seconds += time.perf_counter() - started
        return result


def prompts_of(what: str, count: int) -> list[list[int]]:
    rng = np.random.default_rng(0)

    def tokens(length: int) -> list[int]:
        return rng.integers(1, SHAPE.vocab_size, length).tolist()

    start = tokens(SHARED) if what == "shared" else []
    return [start + tokens(length) for length in rng.integers(SHORTEST, LONGEST + 1 - len(start), count)]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=OTHERWISE)
    parser.add_argument("--batch", type=int, default=8, help="rows")
    parser.add_argument("--rounds", type=int, default=2, help="of both ways, after one that compiles")
    arguments = parser.parse_args()
    mesh = make_mesh({"data": 1, "fsdp": 1, "expert": 1, "tensor": 1}, jax.devices()[:1])
    params, prompts = init_params(SHAPE, 0, mesh), prompts_of(arguments.what, arguments.batch)
    timed = Timed(getattr(decoding, PROGRAMS[arguments.what]))
    said, seconds = {}, {}
    for _ in range(arguments.rounds + 1):
        for way in ("as it is", "without"):
            timed.seconds = 0.0
            changes = {PROGRAMS[arguments.what]: timed}
            if way == "without":
                name, instead = OTHERWISE[arguments.what]
                changes[name] = instead
            with mock.patch.dict(vars(decoding), changes):
                responses = list(
                    decoding.generate(
                        params,
                        SHAPE,
                        prompts,
                        range(arguments.batch),
                        SamplingOptions(max_new_tokens=NEW),
                        end_tokens=(SHAPE.vocab_size,),
                        decode=lambda ids: "",
                        mesh=mesh,
                        batch_size=arguments.batch,
                    )
                )
            said[way] = [response.token_ids for response in responses]
            seconds.setdefault(way, []).append(timed.seconds)
    if said["as it is"] != said["without"]:
        raise SystemExit("the two ways say different tokens")
    tokens = NEW * arguments.batch if arguments.what == "reach" else sum(map(len, prompts))
    for way, (_, *each) in seconds.items():
        spent = statistics.median(each)
        print(f"{way:9} {spent:6.2f} s ({min(each):.2f} to {max(each):.2f}), {tokens / spent:6.1f} tokens a second")


if __name__ == "__main__":
    main()
