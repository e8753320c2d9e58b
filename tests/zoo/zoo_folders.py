"""Small random models in folders as people publish them: config, tokenizer and weights in the forms that are about."""

import functools
import io
import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import safetensors.torch
import sentencepiece
import tokenizers
import torch
import transformers
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers
from zoo_texts import TEXTS

VOCABULARY = 512  # rows of every embedding: more than any tokenizer here has, as published ones are padded
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
FAMILIES = ("llama", "mistral", "mixtral", "qwen2", "qwen3")
CLASSES = dict(zip(FAMILIES, ("Llama", "Mistral", "Mixtral", "Qwen2", "Qwen3"), strict=True))
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# How published tokenizers cut a text before they look for byte pairs.
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN = LLAMA3.replace("{1,3}", "")


# ---- tokenizers ----


@functools.cache
def _trained(cut: str, specials: tuple[str, ...]) -> str:
    tokenizer = tokenizers.Tokenizer(models.BPE())
    by_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=cut == "gpt2")
    before = {
        "gpt2": [],
        "digits": [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)],
        "llama3": [pre_tokenizers.Split(Regex(LLAMA3), "isolated")],
        "qwen": [pre_tokenizers.Split(Regex(QWEN), "isolated")],
    }[cut]
    # Merges are learnt under GPT-2's rules where the file has others, so that there are tokens which those never make.
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.train_from_iterator(
        TEXTS * 2,
        trainers.BpeTrainer(
            vocab_size=440,
            special_tokens=list(specials),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*before, by_bytes]) if before else by_bytes
    tokenizer.decoder = decoders.ByteLevel()
    if cut == "qwen":
        tokenizer.normalizer = normalizers.NFC()
    return tokenizer.to_str()


def byte_pairs(cut: str = "llama3", specials: Sequence[str] = ("<s>", "</s>")) -> tokenizers.Tokenizer:
    """Byte-level BPE that cuts texts as `cut` does: gpt2, digits, llama3, or qwen, which composes accents first."""
    return tokenizers.Tokenizer.from_str(_trained(cut, tuple(specials)))


def around(tokenizer: tokenizers.Tokenizer, single: str) -> tokenizers.Tokenizer:
    """With a post-processor such as "<s> $A </s>"."""
    marks = [part for part in single.split() if part != "$A"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=single, special_tokens=[(mark, tokenizer.token_to_id(mark)) for mark in marks]
    )
    return tokenizer


def words() -> tokenizers.Tokenizer:
    """A word-level tokenizer: most texts are mostly unknown to it."""
    known = dict.fromkeys(word for text in TEXTS for word in text.split() if word.isascii() and word.isalpha())
    names = {token: id for id, token in enumerate(["<unk>", "</s>", *list(known)[:200]])}
    tokenizer = tokenizers.Tokenizer(models.WordLevel(names, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(["<unk>", "</s>"])
    return tokenizer


@functools.cache
def pieces(kind: str = "bpe") -> bytes:
    """A SentencePiece file with byte fallback, as of Llama 2 and Mistral."""
    file = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS),
        model_writer=file,
        model_type=kind,
        vocab_size=480,
        byte_fallback=True,
        character_coverage=0.98,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=3,
    )
    return file.getvalue()


def unigram() -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=400, special_tokens=["<unk>", "</s>"], unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


def spaces_marked(folder: Path) -> tokenizers.Tokenizer:
    """The tokenizer.json that transformers 4 made of `pieces`: Llama 2's, whose normalizer marks the spaces."""
    (folder / "tokenizer.model").write_bytes(pieces())
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(folder).backend_tokenizer
    state = json.loads(tokenizer.to_str())
    state["normalizer"] = {
        "type": "Sequence",
        "normalizers": [
            {"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        ],
    }
    state["pre_tokenizer"] = None
    state["added_tokens"] = [
        {"id": id, "content": token, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
        for id, token in enumerate(("<unk>", "<s>", "</s>"))
    ]  # fmt: skip
    return around(tokenizers.Tokenizer.from_str(json.dumps(state)), "<s> $A")


def file_tokenizer(folder: Path, tokenizer: tokenizers.Tokenizer, **settings) -> None:
    """tokenizer.json and tokenizer_config.json."""
    tokenizer.save(str(folder / "tokenizer.json"))
    defaults = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "</s>",
        "clean_up_tokenization_spaces": False,
    }
    write(folder / "tokenizer_config.json", {k: v for k, v in (defaults | settings).items() if v is not None})


def file_slow(folder: Path, tokenizer: tokenizers.Tokenizer, **settings) -> None:
    """vocab.json and merges.txt of byte pairs, and tokenizer_config.json."""
    model = json.loads(tokenizer.to_str())["model"]
    write(folder / "vocab.json", model["vocab"])
    merges = "".join(f"{' '.join(pair)}\n" for pair in model["merges"])
    (folder / "merges.txt").write_text("#version: 0.2\n" + merges, encoding="utf-8")
    write(folder / "tokenizer_config.json", settings)


# ---- weights ----


@functools.cache
def _random(family: str, vocab_size: int, tie: bool) -> tuple[dict, dict[str, torch.Tensor]]:
    sizes = dict(vocab_size=vocab_size, hidden_size=32, intermediate_size=48, num_hidden_layers=2)
    heads = dict(num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=256)
    others = dict(num_local_experts=4, num_experts_per_tok=2) if family == "mixtral" else {}
    others |= dict(head_dim=16) if family == "qwen3" else {}
    kind = CLASSES[family]
    config = getattr(transformers, f"{kind}Config")(
        **sizes, **heads, **others, tie_word_embeddings=tie, eos_token_id=1, bos_token_id=0, pad_token_id=None
    )
    torch.manual_seed(0)
    model = getattr(transformers, f"{kind}ForCausalLM")(config)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        tensors = safetensors.torch.load_file(Path(folder) / WEIGHTS)
        return json.loads((Path(folder) / "config.json").read_text(encoding="utf-8")), tensors


def write_model(
    folder: Path, family: str = "llama", vocab_size: int = VOCABULARY, tie: bool = False, **settings
) -> None:
    """config.json and model.safetensors; `settings` stand in config.json too."""
    config, tensors = _random(family, vocab_size, tie)
    write(folder / "config.json", config | settings)
    save(folder / WEIGHTS, tensors)


def edit(folder: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    """Changes the tensors of model.safetensors."""
    save(folder / WEIGHTS, change(safetensors.torch.load_file(folder / WEIGHTS)))


def renamed(folder: Path, name: Callable[[str], str]) -> None:
    edit(folder, lambda tensors: {name(old): tensor for old, tensor in tensors.items()})


def shard(folder: Path, again: Sequence[str] = (), changed: float = 0.0) -> None:
    """model.safetensors in two parts with an index; tensors of `again` are in both, in the second with `changed` added."""
    tensors = safetensors.torch.load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    names = sorted(tensors)
    parts = [names[: len(names) // 2], names[len(names) // 2 :]]
    weight_map = {}
    for number, part in enumerate(parts, start=1):
        file = f"model-{number:05}-of-00002.safetensors"
        weight_map |= dict.fromkeys(part, file)
        twice = {name: tensors[name] + changed for name in again if name not in part} if number == 2 else {}
        save(folder / file, {name: tensors[name] for name in part} | twice)
    write(folder / INDEX, {"metadata": {"total_size": 1}, "weight_map": weight_map})


def save(file: Path, tensors: dict[str, torch.Tensor], metadata: dict | None = {"format": "pt"}) -> None:  # noqa: B006
    safetensors.torch.save_file({name: tensor.clone().contiguous() for name, tensor in tensors.items()}, file, metadata)


def write(file: Path, content) -> None:
    file.write_text(json.dumps(content, indent=2, ensure_ascii=False), encoding="utf-8")


def settings_of(folder: Path, name: str = "config.json", **changes) -> None:
    """Changes keys of a JSON file; None removes one."""
    content = json.loads((folder / name).read_text(encoding="utf-8")) | changes
    write(folder / name, {key: value for key, value in content.items() if value is not None})


def litter(folder: Path) -> None:
    """What lies beside weights: pickles, an adapter, another program's, a download's books."""
    for name in (
        "pytorch_model.bin",
        "consolidated.safetensors",
        "optimizer.pt",
        ".DS_Store",
        "model.fp16.safetensors",
    ):
        (folder / name).write_bytes(b"left over")
    (folder / ".cache/huggingface").mkdir(parents=True)
    shutil.copy(folder / "config.json", folder / ".cache/huggingface/config.json.metadata")
    write(folder / "trainer_state.json", {})
