"""What both sides of the comparison compute: the models, the texts, and how a side is called and answers."""

import argparse
import json
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np

Result = TypeVar("Result")

PREFIX, RESPONSE = 512, 48  # tokens of each prompt and response of a training step
PROMPT, NEW_TOKENS = 128, 128  # tokens of each prompt and sampled response of a generation
LEARNING_RATE = 1e-5
SEED = 0
LONGEST = 30.0  # seconds; slower steps are repeated less than three times

MODELS = {
    "d256-4L-V4096": {"d": 256, "layers": 4, "heads": 4, "kv_heads": 2, "d_ff": 688, "vocabulary": 4096},
    "d512-8L-V32000": {"d": 512, "layers": 8, "heads": 8, "kv_heads": 4, "d_ff": 1376, "vocabulary": 32000},
}
REAL = "SmolLM2-135M"  # as `make real` has it; with other engines and adapters beside it
REAL_FOLDER = Path("build/smollm2")
NAMES = (*MODELS, REAL)
COUNTS = (2, 4, 8)  # C
BATCHES = (1, 8, 32)  # rows generated together


def training_texts(vocabulary: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Prompts [C, PREFIX] and responses [C, RESPONSE] of one query."""
    rng = np.random.default_rng(SEED)
    return rng.integers(0, vocabulary, (count, PREFIX)), rng.integers(0, vocabulary, (count, RESPONSE))


def generation_prompts(vocabulary: int, batch: int) -> np.ndarray:
    return np.random.default_rng(SEED).integers(0, vocabulary, (batch, PROMPT))


def parse_side(sides: tuple[str, ...]) -> argparse.Namespace:
    """The arguments of a side's process."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--task", choices=("train", "adapters", "generate"), required=True)
    parser.add_argument("--side", choices=sides, required=True)
    parser.add_argument("--model", type=Path, required=True, help="folder in Hugging Face format")
    parser.add_argument("--adapter", type=Path, help="folder in peft's format, where adapters are trained")
    parser.add_argument("--count", type=int, default=2, help="C")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--check", type=Path, required=True, help="folder for what the other sides must equal")
    parser.add_argument("--seconds", type=float, required=True, help="least time measured")
    return parser.parse_args()


def answer(repeat: Callable[[], Result], seconds: float, memory_before: int) -> Result:
    """Warms `repeat` up, times it if for more than 0 `seconds`, and prints the measurement as one line of JSON, the side's last; returns what
    it gave first."""
    started = time.perf_counter()
    result = repeat()
    first = time.perf_counter() - started
    times: list[float] = []
    while sum(times) < seconds or (seconds and len(times) < 3 and sum(times) < LONGEST):
        started = time.perf_counter()
        repeat()
        times.append(time.perf_counter() - started)
    measured = {"first": first, "seconds": times, "memory": peak_memory(), "memory_before": memory_before}
    print(json.dumps(measured), flush=True)
    return result


def peak_memory() -> int:
    """Bytes, the most that this process has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
