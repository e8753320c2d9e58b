"""Models that chat, through the whole command: scores and samples are those of transformers on the ids it renders; a run ends in a
model that chats as its base did."""

import json

import pytest
import torch
import transformers
from support.chat_models import SHAPES, write_chat_model
from support.quick import others_slow

from sami_jax.config import load_config
from sami_jax.data.pairs import encode_pairs, read_pairs
from sami_jax.miniature.untrained import write_random_bytes_model
from sami_jax.models.pretrained import open_model

SYSTEM = "Your reply follows this constitution:\n{constitution}"
CONSTITUTIONS = ["1. Say hello first.", "1. Never say hello."]
QUERY = "How do I fix the bike?"
REPLIES = ["Hello there, my friend.", "You can fix the bike with a hammer."]
TURNS = [
    {"role": "user", "content": QUERY},
    {"role": "assistant", "content": "Hello!"},
    {"role": "user", "content": "With a hammer?"},
]
ROWS = [
    {"id": "constitutions", "query": QUERY, "constitutions": CONSTITUTIONS, "responses": REPLIES},
    {"id": "said", "prompts": [QUERY, "Hello <|im_end|>"], "responses": REPLIES},
    {"id": "turns", "prompts": [TURNS], "responses": REPLIES[:1]},
]


@pytest.fixture
def sami(commands):
    return commands.run


@pytest.fixture(scope="module", params=SHAPES)
def folder(request, tmp_path_factory):
    return write_chat_model(tmp_path_factory.mktemp(request.param) / request.param, request.param)


def write_lines(file, rows) -> str:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def read_lines(file) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def conversation(shape: str, constitution: str, query: str) -> list[dict]:
    system = SYSTEM.replace("{constitution}", constitution)
    if shape == "gemma":
        return [{"role": "user", "content": f"{system}\n\n{query}"}]
    return [{"role": "system", "content": system}, {"role": "user", "content": query}]


def prompts(tokenizer, shape: str, row: dict) -> list[list[int]]:
    """As transformers renders them."""
    if "constitutions" in row:
        asked = [conversation(shape, constitution, row["query"]) for constitution in row["constitutions"]]
    else:
        asked = [said if isinstance(said, list) else [{"role": "user", "content": said}] for said in row["prompts"]]
    options = {"add_generation_prompt": True, "return_dict": False, "sanitize_control_tokens": True}
    return [tokenizer.apply_chat_template(messages, **options) for messages in asked]


def reply(tokenizer, text: str) -> list[int]:
    """What transformers renders behind the prompt for a reply, up to the end of turn."""
    asked = [{"role": "user", "content": "a"}]
    before = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_dict=False)
    whole = tokenizer.apply_chat_template([*asked, {"role": "assistant", "content": text}], return_dict=False)
    assert whole[: len(before)] == before
    end_of_turn = {token for _, _, _, token, _ in SHAPES.values()}
    ids = whole[len(before) :]
    end = next(place for place, id in enumerate(ids) if tokenizer.decode([id]) in end_of_turn)
    return ids[: end + 1]


@pytest.mark.slow
def test_scores_equal_torch(sami, folder, tmp_path):
    source, target = write_lines(tmp_path / "in.jsonl", ROWS), tmp_path / "out.jsonl"
    argv = ["score", "--chat", "--model", str(folder), "--input", source, "--output", str(target), "--score_eos"]
    assert sami(*argv, "--normalize", "sum")[0] == 0
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    for line, row in zip(read_lines(target), ROWS, strict=True):
        replies = [reply(tokenizer, text) for text in row["responses"]]
        assert line["response_tokens"] == [len(ids) for ids in replies]
        for i, before in enumerate(prompts(tokenizer, folder.name, row)):
            for j, ids in enumerate(replies):
                with torch.no_grad():
                    logprobs = model(torch.tensor([before + ids])).logits[0].log_softmax(-1)
                expected = sum(logprobs[len(before) + t - 1, id].item() for t, id in enumerate(ids))
                assert line["logprobs"][i][j] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("folder", others_slow(SHAPES, "gemma"), indirect=True)
def test_samples_equal_torch(sami, folder, tmp_path):
    rows = [{"id": 1, "prompt": QUERY}, {"id": 2, "messages": TURNS[:1]}, {"id": 3, "messages": TURNS}]
    source, target = write_lines(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    argv = ["sample", "--chat", "--model", str(folder), "--input", source, "--output", str(target)]
    assert sami(*argv, "--max_new_tokens", "12")[0] == 0
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    opened = open_model(folder).chatting()
    one, other, turns = read_lines(target)
    assert one["response"] == other["response"]
    options = {"add_generation_prompt": True, "return_dict": False, "return_tensors": "pt"}
    for messages, found in ((TURNS[:1], one), (TURNS, turns)):
        asked = opened.tokenizer.apply_chat_template(messages, **options)
        ends = {"eos_token_id": list(opened.end_tokens), "pad_token_id": opened.end_tokens[0]}
        said = model.generate(asked, max_new_tokens=12, do_sample=False, **ends)[0, asked.shape[1] :]
        assert found["response"] == opened.decode(said.tolist())


def test_a_reply_ends_with_the_text_or_the_turn(folder):
    model = open_model(folder)
    _, _, end, end_of_turn, _ = SHAPES[folder.name]
    ends = [model.tokenizer.convert_tokens_to_ids(token) for token in dict.fromkeys([end, end_of_turn])]
    assert list(model.chatting().end_tokens) == ends and list(model.end_tokens) == ends[:1]


def test_ids_of_a_row_are_what_is_scored(sami, tmp_path):
    model = write_chat_model(tmp_path / "llama3")
    letters = [open_model(model).tokenizer.convert_tokens_to_ids(letter) for letter in "Hello"]
    row = {"id": 1, "prompts": [QUERY] * 3, "responses": ["Hello"] * 3, "token_ids": [letters, [], letters[1:]]}
    source, target = write_lines(tmp_path / "in.jsonl", [row]), tmp_path / "out.jsonl"
    argv = ["score", "--chat", "--model", str(model), "--input", source, "--output", str(target)]
    assert sami(*argv)[0] == 0
    [line] = read_lines(target)
    assert line["response_tokens"] == [5, 1, 1] and line["logprobs"][0][0] != line["logprobs"][0][1]
    write_lines(tmp_path / "in.jsonl", [{**row, "token_ids": [letters]}])
    assert "'token_ids' must list those of each response" in sami(*argv)[1]
    assert "--date 'today': must be a date, YYYY-MM-DD" in sami(*argv, "--date", "today")[1]


def test_bad_chats_are_one_line(sami, tmp_path):
    model = str(write_chat_model(tmp_path / "mistral", "mistral"))

    def complaint(verb: str, row: dict, *more: str) -> str:
        files = ["--input", write_lines(tmp_path / "in.jsonl", [row]), "--output", str(tmp_path / "out.jsonl")]
        status, told = sami(verb, "--model", model, *files, *more)
        assert status == 2 and len(told.strip().splitlines()) == 1 and told.startswith("sami: "), told
        return told

    twice = [TURNS[0], TURNS[0]]
    assert "roles must alternate" in complaint("sample", {"id": 1, "messages": twice}, "--chat")
    assert "without role and content" in complaint("sample", {"id": 1, "messages": ["a"]}, "--chat")
    assert "without a turn of the user" in complaint("sample", {"id": 1, "messages": []}, "--chat")
    assert "prompt is empty" in complaint("sample", {"id": 1, "prompt": " "}, "--chat")
    assert "'prompt' is missing; add it to the line (or 'messages')" in complaint("sample", {"id": 1}, "--chat")
    assert "'prompt' is missing; add it to the line" in complaint("sample", {"id": 1, "messages": TURNS})
    assert "roles must alternate" in complaint("score", {"id": 1, "prompts": [twice], "responses": ["a"]}, "--chat")
    (tmp_path / "mistral" / "chat_template.jinja").unlink()
    assert "its tokenizer has no chat template" in complaint("sample", {"id": 1, "prompt": "a"}, "--chat")
    chat = ["--config.prompt.chat=True", "--config.prompt.system=", "--config.model.path=" + model]
    status, told = sami("run", "--config=tiny", *chat, "--workdir", str(tmp_path / "run"))
    assert (status, told.count("\n")) == (2, 1) and "its tokenizer has no chat template" in told


def test_the_model_of_smoke_runs_chats(tmp_path):
    config, _ = load_config("hh_mistral7b:smoke", ["--config.prompt.chat=True"])
    write_random_bytes_model(tmp_path / "model", 64, 0)
    model = open_model(tmp_path / "model", prompt=config.prompt)
    assert model.decode(model.chat.prompt("Be calm.", "Why?")).endswith("Be calm.\nuser: Why?\nassistant: ")
    assert (
        model.decode(model.chat.reply(" So it is.")) == " So it is." and model.chat.end_of_turn == model.end_tokens[0]
    )


@pytest.mark.slow
def test_a_run_asks_what_transformers_renders_and_trains_on_what_was_sampled(sami, tmp_path):
    shape = "mistral"  # the most particular: it forgets the system once there is a reply, and puts a space before one
    base, workdir = write_chat_model(tmp_path / "base", shape, max_positions=512), tmp_path / "run"
    options = [
        f"--config.model.path={base}",
        "--config.prompt.chat=True",
        "--config.prompt.generation={query}",
        "--config.prompt.training={query}",
        "--config.prompt.max_tokens=400",
        "--config.sampling.max_new_tokens=16",
        "--config.sampling.batch_size=8",
        "--config.train.updates=(1,1)",
        "--config.train.batch_size=8",
        "--config.train.microbatches=1",
        "--config.canaries.action=off",
        "--config.evaluation.judge=none",
        "--config.evaluation.queries=4",
    ]
    status, told = sami("run", "--config=tiny", *options, "--workdir", str(workdir))
    assert status == 0, told
    assert sami("verify", str(workdir))[0] == 0
    trained = workdir / "iteration_2" / "model"
    tokenizer = transformers.AutoTokenizer.from_pretrained(trained)
    assert tokenizer.chat_template == transformers.AutoTokenizer.from_pretrained(base).chat_template
    config, _ = load_config("tiny", options)
    model = open_model(base, prompt=config.prompt)
    rows = read_pairs(workdir / "iteration_2" / "pairs.jsonl", 2)
    responses = read_lines(workdir / "iteration_2" / "responses.jsonl")
    sampled = {(row["id"], row["response"]): row["token_ids"] for row in responses}
    examples = encode_pairs(
        rows, model.replies(model.scored_end(False)), config.prompt.training, config.prompt.max_tokens
    ).examples
    queries = [row["id"] for row in read_lines(workdir / "iteration_2" / "pairs.jsonl")]
    for query, row, example in zip(queries, rows, examples, strict=True):
        assert [list(ids) for ids in example.prompts] == prompts(tokenizer, shape, row)
        for ids, text, reason in zip(example.responses, row["responses"], row["finish_reasons"], strict=True):
            assert list(ids) == sampled[query, text] and model.decode(ids) == text
            assert (ids[-1] in model.end_tokens) is (reason == "stop")
    status, told = sami("explain", str(workdir), "--limit", "2", "--output", str(tmp_path / "explained.jsonl"))
    assert status == 0, told
    for row in read_lines(tmp_path / "explained.jsonl"):
        assert "".join(token["text"] for token in row["tokens"]).strip() == row["response"].strip()
