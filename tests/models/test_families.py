"""A stranger's whole way, for each family: a model as transformers saves it, questions and principles in Japanese; approved,
trained, measured, exported, served, and asked through the client that everybody uses."""

import json

import pytest
import tokenizers
import torch
import transformers
from support.asked import ask, greedy
from support.chat_models import SHAPES
from tokenizers import decoders, models, pre_tokenizers, trainers

LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 1e4,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
FAMILIES = {  # name: class of transformers, chat template, what its config has of its own
    "llama": ("Llama", "llama3", {"rope_parameters": LLAMA3}),
    "mistral": ("Mistral", "mistral", {"sliding_window": 64}),
    "mixtral": ("Mixtral", "mistral", {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "qwen2": ("Qwen2", "qwen", {"tie_word_embeddings": True}),
    "qwen3": ("Qwen3", "qwen", {"head_dim": 16}),
    "qwen3_moe": (
        "Qwen3Moe",
        "qwen",
        {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "norm_topk_prob": True},
    ),
    "olmo2": ("Olmo2", "llama3", {}),
    "smollm3": ("SmolLM3", "llama3", {"no_rope_layer_interval": 2}),
    "phi3": ("Phi3", "llama3", {"sliding_window": 64}),
    "gemma2": ("Gemma2", "llama3", {"head_dim": 16, "sliding_window": 64}),
    "gemma3": ("Gemma3Text", "llama3", {"head_dim": 16, "sliding_window": 64, "sliding_window_pattern": 2}),
}
QUERIES = [
    f"{thing}が{trouble}とき、どうすればいいですか。"
    for thing in ("自転車", "時計", "屋根", "扇風機")
    for trouble in ("壊れた", "汚れた", "動かない", "見つからない")
]
PRINCIPLES = {
    "aisatsu": ("最初に挨拶をしなさい。", "挨拶をしてはいけません。"),
    "chuui": ("危険があれば注意しなさい。", "危険については何も言ってはいけません。"),
}
SYSTEM = "次の憲法に従って答えてください。"
CONFIG = f"""from sami_jax.config import derived_from


def get_config(arg=None):
    config = derived_from("tiny")
    config.model.path = "base"
    config.data.queries = "queries.jsonl"
    config.data.eval_queries = ""
    config.data.eval_fraction = 0.25
    config.principles.path = "principles"
    config.principles.held_out = ()
    config.principles.held_out_phrasings = 0
    config.constitutions.rule = "complement"
    config.constitutions.principles = 2
    config.prompt.chat = True
    config.prompt.system = "{SYSTEM}\\n{{constitution}}"
    config.prompt.generation = config.prompt.training = "{{query}}"
    config.prompt.max_tokens = 160
    config.sampling.temperature = 1.0
    config.sampling.max_new_tokens = 16
    config.filter.prefix = ""
    config.filter.end_with = ()
    config.train.updates = (2,)
    config.train.batch_size = 4
    config.train.microbatches = 1
    config.train.shapes = 1
    config.data.splits = 1
    config.canaries.action = "alert"
    config.canaries.queries = 2
    config.evaluation.judge = "none"
    config.evaluation.queries = 4
    return config
"""


def save_model(family: str, folder) -> None:
    """As transformers saves a model and its tokenizer."""
    kind, chat, options = FAMILIES[family]
    template, begin, end, end_of_turn, others = SHAPES[chat]
    special = list(dict.fromkeys(filter(None, [end, begin, end_of_turn, *others])))
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    if chat == "qwen":  # whose class transformers takes for every qwen2, whatever the tokenizer's files say
        own = transformers.Qwen2Tokenizer().backend_tokenizer
        tokenizer.normalizer, tokenizer.pre_tokenizer = own.normalizer, own.pre_tokenizer
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=384, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([*QUERIES, SYSTEM, *(text for pair in PRINCIPLES.values() for text in pair)], trainer)
    words = {"bos_token": begin, "eos_token": end_of_turn, "pad_token": end, "chat_template": template}
    saved = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **{k: v for k, v in words.items() if v})
    saved.save_pretrained(folder)
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=384,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        bos_token_id=saved.bos_token_id,
        eos_token_id=saved.eos_token_id,
        pad_token_id=saved.pad_token_id,
        **options,
    )
    model = transformers.AutoModelForCausalLM.from_config(config)
    for weight in model.parameters():  # wider than transformers' own: an untrained model that says different things
        torch.nn.init.normal_(weight, std=0.2)
    model.save_pretrained(folder)


# Between them: experts, norms of q and k, two kinds of layers.
SOME = ("qwen3_moe", "gemma3")


@pytest.mark.parametrize(
    "family",
    [pytest.param(name, marks=pytest.mark.slow if name in SOME else pytest.mark.faults) for name in FAMILIES],
)
def test_from_a_model_to_an_answer(family, commands, server, mesh, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_model(family, tmp_path / "base")
    rows = [json.dumps({"id": f"問{n}", "query": text}, ensure_ascii=False) for n, text in enumerate(QUERIES)]
    (tmp_path / "queries.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    (tmp_path / "mine.py").write_text(CONFIG, encoding="utf-8")

    def sami(*argv: str) -> str:
        status, told = commands.run(*argv)
        assert status == 0, told
        return told

    for name, (principle, antithesis) in PRINCIPLES.items():
        sami("principles", "add", name, "--principle", principle, "--antithesis", antithesis)
    sami("principles", "approve", *PRINCIPLES, "--reviewer", "田中愛子", "--comment", "確認しました。")
    sami("run", "--config=mine.py", "--workdir=runs/mine")
    assert "as recorded" in sami("verify", "runs/mine")
    sami("report", "runs/mine", "--language", "ja")
    sami("evaluate", "--config=mine.py", "--model", "runs/mine/iteration_1/model", "--output", "measured")
    sami("export", "--checkpoint", "runs/mine/iteration_1/checkpoints", "--output", "aligned")

    report = (tmp_path / "runs/mine/report.html").read_text(encoding="utf-8")
    assert PRINCIPLES["aisatsu"][0] in report and "田中愛子" in report
    measured = json.loads((tmp_path / "measured/evaluation.json").read_text())
    assert measured == json.loads((tmp_path / "runs/mine/iteration_1/evaluation.json").read_text())
    messages = [
        {"role": "system", "content": f"{SYSTEM}\n1. {PRINCIPLES['aisatsu'][0]}"},
        {"role": "user", "content": QUERIES[0]},
    ]
    served = ask(server, tmp_path / "aligned", messages, max_tokens=24).message.content
    ours = greedy(tmp_path / "aligned", messages, 24, mesh)
    # An untrained Gemma 2 repeats the line break that its prompt ends with: its embeddings are large, and tied.
    assert ours and served.strip() == ours.strip() and (ours.strip() or served.count("\n") == ours.count("\n"))
