"""llama.cpp's server samples from a GGUF file that is written for it (pip install xllamacpp)."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
from export.test_gguf_out import folder_of
from support import llama_cpp_server

from sami_jax.config import defaults
from sami_jax.models.pretrained import open_model
from sami_jax.sampling.drawing import SamplingOptions
from sami_jax.sampling.samplers import OwnSampler, Prompt
from sami_jax.serving.engine import open_engine

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("xllamacpp") is None, reason="needs the package xllamacpp"),
]
COMMAND = (sys.executable, llama_cpp_server.__file__, "{model}", "{port}")
TEXTS = ["How do I fix the bike?", "Hello", "Two lines\nof text", "Why?", "One, two, three"]


@pytest.mark.parametrize(("arch", "pre"), [("llama", "gpt-2"), ("gemma2", None)])
def test_it_agrees_and_says_the_same(arch, pre, mesh, tmp_path):
    model = open_model(folder_of(tmp_path, arch, pre, tied=arch == "gemma2"))
    params = model.load(mesh)
    prompts = [Prompt({"id": n}, model.tokenizer.encode(text), seed=n) for n, text in enumerate(TEXTS)]
    config = defaults()
    config.sampling.engine, config.server.command, config.server.gguf = "server", COMMAND, "f32"
    greedy = SamplingOptions(temperature=0.0, max_new_tokens=16)
    with open_engine(config, mesh, tmp_path / "run") as engine:
        served = [*engine.sampler(model, params).responses(prompts, greedy, model.decode)]
        drawn = SamplingOptions(temperature=0.8, top_p=0.9, max_new_tokens=16)
        twice = [[*engine.sampler(model, params).responses(prompts, drawn, model.decode)] for _ in range(2)]
        assert (tmp_path / "run/served/model-f32.gguf").exists()
    assert not (tmp_path / "run/served/model-f32.gguf").exists()
    ours = [*OwnSampler(model, params, mesh, 4).responses(prompts, greedy, model.decode)]
    # Random weights say many bytes that are no text, and of these llama.cpp loses the ids: those are not taken for what was sampled.
    known = [(one, other) for one, other in zip(ours, served, strict=True) if other.token_ids]
    assert known and all(one.token_ids[: len(other.token_ids)] == other.token_ids for one, other in known)
    assert twice[0] == twice[1] and len({one.text for one in twice[0]}) == len(TEXTS)
    [told] = map(json.loads, Path(tmp_path / "run/agreement.jsonl").read_text().splitlines())
    assert told["mean"] < 1e-3 and told["tokens"] > 4
