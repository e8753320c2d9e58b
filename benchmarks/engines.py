"""CTranslate2 and llama.cpp: greedy generation from the same weights, in float32 (`make bench` installs both)."""

import argparse
import concurrent.futures
import json
import os
import urllib.request
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import transformers

from benchmarks import cases
from sami_jax.export.gguf import gguf_entries, write_gguf
from sami_jax.models.pretrained import open_model
from sami_jax.sharding import make_mesh

CORES = os.cpu_count() or 1


def ctranslate2(model: Path, made: Path, prompts: list[list[int]]) -> Callable[[], list[list[int]]]:
    import ctranslate2
    from ctranslate2.converters import TransformersConverter

    if not made.exists():
        TransformersConverter(str(model)).convert(str(made))
    generator = ctranslate2.Generator(str(made), device="cpu", compute_type="float32", intra_threads=CORES)
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)  # a local folder  # nosec B615
    texts = [tokenizer.convert_ids_to_tokens(prompt) for prompt in prompts]

    def run() -> list[list[int]]:
        lengths = {"max_length": cases.NEW_TOKENS, "min_length": cases.NEW_TOKENS}
        results = generator.generate_batch(texts, beam_size=1, include_prompt_in_result=False, **lengths)
        return [result.sequences_ids[0] for result in results]

    return run


def llama_cpp(model: Path, made: Path, prompts: list[list[int]]) -> Callable[[], list[list[int]]]:
    """Its server in this process, with a slot for each row, which is asked for all of them at once."""
    import xllamacpp

    if not made.exists():
        folder, mesh = open_model(model), make_mesh({}, jax.devices()[:1])
        write_gguf(folder.load(mesh, "float32"), folder, "f32", made, gguf_entries(folder))
    params = xllamacpp.CommonParams()
    params.model.path = str(made)
    params.n_parallel = len(prompts)
    params.n_ctx = len(prompts) * (cases.PROMPT + cases.NEW_TOKENS)
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    # Flash attention, its own choice, rounds to half precision here, and is slower.
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = CORES
    server = xllamacpp.Server(params)

    def complete(prompt: list[int]) -> list[int]:
        body = {
            "prompt": prompt,
            "n_predict": cases.NEW_TOKENS,
            "temperature": 0,
            "ignore_eos": True,
            "cache_prompt": False,
            "return_tokens": True,
        }
        request = urllib.request.Request(
            f"{server.listening_address}/completion",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request) as answer:  # the server above  # nosec B310
            return json.load(answer)["tokens"]

    def run() -> list[list[int]]:
        with concurrent.futures.ThreadPoolExecutor(len(prompts)) as pool:
            return list(pool.map(complete, prompts))

    return run


SIDES = {"CTranslate2": ctranslate2, "llama.cpp": llama_cpp}


def generate(arguments: argparse.Namespace) -> None:
    vocabulary = transformers.AutoConfig.from_pretrained(arguments.model).vocab_size  # a local folder  # nosec B615
    prompts = cases.generation_prompts(vocabulary, arguments.batch).tolist()
    before = cases.peak_memory()
    arguments.check.mkdir(parents=True, exist_ok=True)
    run = SIDES[arguments.side](arguments.model, arguments.check / "model", prompts)
    tokens = cases.answer(run, arguments.seconds, before)
    np.save(arguments.check / "tokens.npy", np.array(tokens))


if __name__ == "__main__":
    generate(cases.parse_side(tuple(SIDES)))
