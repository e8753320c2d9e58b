"""The command as a user meets it: bad input gives one line and status 2; verbs agree with transformers + torch."""

import json
import math

import pytest
import torch
import transformers
from support.complaint import complaint
from support.quick import others_slow

from sami_jax import miniature
from sami_jax.cli import main
from sami_jax.stages import preparation

BASE = str(miniature.BASE)


def write_lines(file, *rows) -> str:
    file.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return str(file)


def read_lines(file) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("--config.optim.learning_rat=1", "did you mean --config.optim.learning_rate?"),
        ("--config.optim.learning_rate=nan", "config.optim.learning_rate=nan: must be a finite number"),
        ("--config.optim.learning_rate=-1", "config.optim.learning_rate=-1.0: must be above 0"),
        ("--config.optim.learning_rate=fast", "could not convert"),
        ("--config.optim.name=adam", "did you mean 'adamw'?"),
        ("--config.train.microbatches=5", "must be a divisor of train.batch_size=64"),
        ("--config.train.updates=()", "config.train.updates"),
        ("--config.sampling.top_p=0", "config.sampling.top_p"),
        ("--config.constitutions.count=3", "must be even"),
        ("--config.constitutions.rule=iit", "did you mean 'iid'?"),
        ("--config.constitutions.principles=10", "only 9 principle(s) to train on"),
        ("--config.principles.held_out=('greetings',)", "no principle 'greetings'"),
        ("--config.principles.held_out_phrasings=5", "none would be left to train on"),
        ("--config.principles.path=nowhere", "nowhere: no such folder of principles"),
        ("--config.data.queries=nowhere.jsonl", "nowhere.jsonl: No such file"),
        ("--config.model.path=nowhere", "nowhere: no such model folder"),
        ("--config.model.path=", "config.model.path='': must be set"),
        ("--config.prompt.max_tokens=250", "takes 256 tokens at most"),
        ("--config.prompt.training=no fields", "lacks {constitution}"),
        ("--config.mesh.tensor=3", "config.mesh"),
        ("--config.model.attention=cudnn", "needs a gpu, and this is a cpu; use 'xla'"),
        ("--config.train.constitutions_at_once=3", "0 or a divisor of constitutions.count=2"),
        ("--config.lora.targets=('router',)", "must be some of query, key, value, output, gate, up, down, or ()"),
        ("--config.lora.base=int8", "config.lora.base='int8': must be '' where lora.rank is 0"),
        ("--config.lora.base=int7", "must be one of , float32, bfloat16, int8, nf4; did you mean 'int8'?"),
        ("--config.train.rounding=up", "must be one of nearest, stochastic"),
        ("--config.seed", "no value"),
    ],
)
def test_bad_config(capsys, tmp_path, override, words):
    assert words in complaint(capsys, "run", "--config=tiny", "--workdir", str(tmp_path), override)
    assert not list(tmp_path.iterdir())


def test_moments_have_nowhere_to_go(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(preparation, "HOST_MEMORY", "attic")
    argv = ["run", "--config=tiny", "--workdir", str(tmp_path), "--config.optim.offload=True", "--config.mesh.data=8"]
    assert "config.optim.offload=True: a cpu has no attic memory here" in complaint(capsys, *argv)


def test_unknown_config_names_the_known_ones(capsys):
    assert "tiny, tldr_mistral7b" in complaint(capsys, "run", "--config=tinny")


@pytest.mark.parametrize(
    "argv", [["runn"], ["run", "--worksir=x"], ["sample"], ["sample", "--model", BASE, "--config.seed=1"]]
)
def test_bad_command_line(capsys, argv):
    complaint(capsys, *argv)


GOOD_PROMPT = {"id": 1, "prompt": "Human: How do I fix the bike?\n\nAssistant:"}


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ('{"id": 2, "prompt": ', "input.jsonl:2: not valid JSON"),
        ("[1, 2]", "input.jsonl:2: not a JSON object"),
        ({"id": 2}, "input.jsonl:2: key 'prompt' is missing"),
        ({"id": 2, "prompt": ""}, "input.jsonl:2: prompt is empty"),
        ({"id": 2, "prompt": None}, "input.jsonl:2: key 'prompt' is missing"),
        ({"id": 2, "prompt": 7}, "input.jsonl:2: prompt is empty or not a text"),
        ({"id": 2, "prompt": "the " * 300}, "context of 256: prompt of 301 and response of up to 8 tokens; shorten"),
    ],
)
def test_bad_prompts(capsys, tmp_path, row, words):
    source, target = write_lines(tmp_path / "input.jsonl", GOOD_PROMPT, row), tmp_path / "out.jsonl"
    target.write_text("kept\n")
    argv = ["sample", "--model", BASE, "--input", source, "--output", str(target), "--max_new_tokens", "8"]
    assert words in complaint(capsys, *argv)
    assert target.read_text() == "kept\n"


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"id": 1, "prompts": ["a"], "responses": [" b", " c"]}, "1 prompts but 2 responses"),
        ({"id": 1, "prompts": ["a", "b"], "responses": [" b", "  "]}, "a response is empty"),
        ({"id": 1, "prompts": "a", "responses": [" b"]}, "prompts: must be a list of texts"),
        ({"id": 1, "responses": [" b"]}, "neither 'prompts' nor 'query' and 'constitutions'"),
        (
            {"id": 1, "prompts": ["the " * 250], "responses": [" the the the the the the the"]},
            "longer than the model's context",
        ),
    ],
)
def test_bad_pairs(capsys, tmp_path, row, words):
    source = write_lines(tmp_path / "input.jsonl", row)
    assert words in complaint(
        capsys, "score", "--model", BASE, "--input", source, "--output", str(tmp_path / "out.jsonl")
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"responses": [" Hello.", ""]}, "pairs.jsonl:1: 'responses' holds an empty text"),
        ({"responses": [" Hello."]}, "pairs.jsonl:1: 'responses' must list 2 texts"),
        ({"constitutions": ["1. Be calm.", None]}, "pairs.jsonl:1: 'constitutions' holds an empty text"),
        ({"responses": [" Hello." * 200, " Hi."]}, "exceed the model's context of 256"),
    ],
)
def test_bad_training_pairs(capsys, tmp_path, change, words):
    row = {
        "query": "Is that clear?",
        "constitutions": ["1. Be calm.", "1. Be lively."],
        "responses": [" Hello.", " Hi."],
    }
    pairs = write_lines(tmp_path / "pairs.jsonl", row | change)
    assert words in complaint(
        capsys, "train", "--pairs", pairs, "--output", str(tmp_path / "out"), "--config.mesh.data=8"
    )


def test_missing_files_and_folders(capsys, tmp_path):
    missing = str(tmp_path / "none")
    assert "no such model folder" in complaint(
        capsys, "sample", "--model", missing, "--input", missing, "--output", missing
    )
    assert "No such file" in complaint(capsys, "sample", "--model", BASE, "--input", missing, "--output", missing)
    assert "give a run's iteration_N/checkpoints" in complaint(
        capsys, "export", "--checkpoint", missing, "--output", missing
    )


def test_sample_writes_one_line_a_prompt_in_order(tmp_path, capsys):
    prompts = [
        {"id": f"q{n}", "prompt": f"Human: How do I {verb} the bike?\n\nAssistant:"}
        for n, verb in enumerate(["fix", "cut", "move"])
    ]
    source, target = write_lines(tmp_path / "in.jsonl", *prompts), tmp_path / "out.jsonl"
    argv = [
        "sample",
        "--model",
        BASE,
        "--input",
        source,
        "--output",
        str(target),
        "--temperature",
        "1",
        "--max_new_tokens",
        "48",
    ]
    assert main([*argv, "--seed", "3"]) == 0
    first = read_lines(target)
    assert [row["id"] for row in first] == ["q0", "q1", "q2"]
    assert set(first[0]) == {"id", "response", "tokens", "finish_reason", "token_ids"}
    assert all(verb in row["response"] for verb, row in zip(["fix", "cut", "move"], first, strict=True))
    assert main([*argv, "--seed", "3", "--batch_size", "1"]) == 0
    assert read_lines(target) == first
    capsys.readouterr()
    assert main([*argv, "--seed", "4", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == {"responses": 3, "output": str(target)} and err.startswith("sampling: 3 in ")
    assert read_lines(target) != first


PAIRS = [
    {
        "id": "a",
        "query": "How do I clean the boat?",
        "constitutions": ["1. Say hello first.", "1. Never say hello."],
        "responses": [" Hello. Surely you can clean the boat with soap.", " Maybe you can clean the boat with water."],
    },
    {
        "id": "b",
        "prompts": ["Human: Is that clear?", "Human:", "Assistant: The"],
        "responses": [" Yes.", " No, my friend!", " Hello there."],
    },
]


@pytest.mark.parametrize("normalize", others_slow(["mean", "sum"], "mean"))
@pytest.mark.parametrize("score_eos", [False, True])
def test_score_equals_torch(tmp_path, normalize, score_eos):
    source, target = write_lines(tmp_path / "in.jsonl", *PAIRS), tmp_path / "out.jsonl"
    argv = ["score", "--model", BASE, "--input", source, "--output", str(target), "--normalize", normalize]
    assert main(argv + ["--score_eos"] * score_eos) == 0
    model = transformers.AutoModelForCausalLM.from_pretrained(BASE)
    tokenizer = transformers.AutoTokenizer.from_pretrained(BASE)
    for line, row in zip(read_lines(target), PAIRS, strict=True):
        assert line["id"] == row["id"]
        prompts = row.get("prompts") or [
            f"Constitution:\n{constitution}\n\nHuman: {row['query']}\n\nAssistant:"
            for constitution in row["constitutions"]
        ]
        for j, response in enumerate(row["responses"]):
            ids = tokenizer.encode(response) + [tokenizer.eos_token_id] * score_eos
            assert line["response_tokens"][j] == len(ids)
            for i, prompt in enumerate(prompts):
                before = tokenizer.encode(prompt)
                with torch.no_grad():
                    logprobs = model(torch.tensor([before + ids])).logits[0].log_softmax(-1)
                expected = sum(logprobs[len(before) + t - 1, token].item() for t, token in enumerate(ids))
                assert line["logprobs"][i][j] == pytest.approx(
                    expected / (len(ids) if normalize == "mean" else 1), abs=1e-4
                )
        count = len(prompts)
        assert line["mi_lower_bound"] <= math.log(count)
        for name in ("row_accuracy", "column_accuracy"):
            assert any(line[name] == pytest.approx(right / count) for right in range(count + 1))
