"""Folders as people publish or download them that cannot be used: one line, which names the file and the way out."""

import json

import pytest
import safetensors.torch
import torch
from zoo_folders import (
    INDEX,
    WEIGHTS,
    around,
    byte_pairs,
    edit,
    file_slow,
    file_tokenizer,
    renamed,
    save,
    settings_of,
    shard,
    write,
    write_model,
)
from zoo_forms import CHAT, llama3, old_index, sentencepiece_llama, slow_gpt2, with_weights

from sami_jax.errors import UserError
from sami_jax.models.pretrained import open_model

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 4976698672\n"
PART = "model-00001-of-00002.safetensors"


def cut(folder):
    whole = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(whole[: len(whole) // 2])


def part_missing(folder):
    shard(folder)
    (folder / PART).unlink()


def index_missing(folder):
    shard(folder)
    (folder / INDEX).unlink()


def index_promises_more(folder):
    """As where the parts of two saves were mixed."""
    shard(folder)
    tensors = safetensors.torch.load_file(folder / PART)
    tensors.pop("model.embed_tokens.weight", None)
    tensors.pop("lm_head.weight", None)
    save(folder / PART, tensors)


def half_a_file_beside_an_index(folder):
    old_index(folder)
    edit(folder, lambda tensors: {name: tensor for name, tensor in tensors.items() if "norm" in name})


def renamed_file(name):
    return lambda folder: (folder / WEIGHTS).rename(folder / name)


def note_in_place_of(name):
    return lambda folder: (folder / name).write_text(POINTER)


def other_rules_of_qwen2(folder):
    """transformers takes a class of its own for every qwen2, whatever tokenizer_config.json says."""
    write_model(folder, "qwen2")
    file_tokenizer(folder, byte_pairs("digits", CHAT), eos_token="<|im_end|>")


def no_merges(folder):
    slow_gpt2(folder)
    (folder / "merges.txt").unlink()


def slow_without_class(folder):
    write_model(folder)
    file_slow(folder, byte_pairs("gpt2"), eos_token="</s>")


def merges_alone(folder):
    slow_gpt2(folder)
    (folder / "vocab.json").unlink()


def of_tiktoken(folder):
    """Meta's own downloads have such a tokenizer.model."""
    write_model(folder)
    (folder / "tokenizer.model").write_text("IQ== 0\nIg== 1\n")


def of_another_model(folder):
    write_model(folder, vocab_size=300)
    file_tokenizer(folder, byte_pairs())


def beginning_beyond(folder):
    tokenizer = byte_pairs()
    write_model(folder, vocab_size=tokenizer.get_vocab_size())
    tokenizer.add_special_tokens(["<|begin|>"])
    file_tokenizer(folder, around(tokenizer, "<|begin|> $A"), bos_token="<|begin|>")


def gap_in_named(folder):
    write_model(folder)
    file_tokenizer(folder, byte_pairs("digits"), tokenizer_class="GPT2Tokenizer", bos_token="<s>", unk_token="</s>")
    token = {"content": "<|im_start|>", "lstrip": False, "rstrip": False, "normalized": False, "single_word": False, "special": True}  # fmt: skip
    settings_of(folder, "tokenizer_config.json", added_tokens_decoder={"500": token})


def gap_in_added(folder):
    sentencepiece_llama(folder)
    write(folder / "added_tokens.json", {"<|im_start|>": 500})


def random_ids(folder):
    llama3(folder)
    state = json.loads((folder / "tokenizer.json").read_text())
    state["model"]["dropout"] = 0.1
    write(folder / "tokenizer.json", state)


def by_version(folder):
    llama3(folder)
    settings_of(folder, "tokenizer_config.json", fast_tokenizer_files=["tokenizer.json", "tokenizer.4.0.0.json"])


def tekken(folder):
    write_model(folder, "mistral")
    write(folder / "tekken.json", {"config": {}, "vocab": []})


REFUSED = {
    "a part missing": (with_weights(part_missing), PART, "missing", "download"),
    "the index missing": (with_weights(index_missing), PART, INDEX, "download"),
    "parts of two saves": (with_weights(index_promises_more), "embed_tokens.weight is missing"),
    "one tensor twice, and it differs": (
        with_weights(lambda f: shard(f, ["lm_head.weight"], 1.0)), "00001-of-00002.safetensors and", "lm_head.weight", "remove"),
    "half a file beside an index": (with_weights(half_a_file_beside_an_index), "is missing", WEIGHTS, INDEX),
    "Mistral's own layout": (with_weights(renamed_file("consolidated.safetensors")), "consolidated.safetensors", "Hugging Face format"),
    "a variant": (with_weights(renamed_file("model.fp16.safetensors")), "model.fp16.safetensors", "rename"),
    "pickled": (with_weights(renamed_file("pytorch_model.bin")), "pickled", "safetensors"),
    "named in config.json": (
        with_weights(lambda f: settings_of(f, transformers_weights="other.safetensors")), "config.json", "other.safetensors", WEIGHTS),
    "cut off": (with_weights(cut), WEIGHTS, "damaged", "download"),
    "empty": (with_weights(lambda f: (f / WEIGHTS).write_bytes(b"")), WEIGHTS, "damaged", "download"),
    "git's note in place of weights": (with_weights(note_in_place_of(WEIGHTS)), WEIGHTS, "git lfs pull"),
    "no head": (with_weights(lambda f: edit(f, lambda t: {n: v for n, v in t.items() if n != "lm_head.weight"})), "lm_head.weight"),
    "names of another trainer": (
        with_weights(lambda f: renamed(f, lambda n: f"module.{n}")), "is missing, but module.model.layers.0"),
    "both spellings of a name": (
        with_weights(lambda f: edit(f, lambda t: t | {"norm.weight": t["model.norm.weight"] + 1})), "model.norm.weight", "differ"),
    "a larger config": (with_weights(lambda f: settings_of(f, vocab_size=600)), "embed_tokens", "config.json"),
    "8 bits": (with_weights(lambda f: edit(f, lambda t: t | {"lm_head.weight": t["lm_head.weight"].to(torch.float8_e4m3fn)})), "F8_E4M3"),
    "git's note in place of a tokenizer": (with_weights(note_in_place_of("tokenizer.json")), "tokenizer.json", "git lfs pull"),
    "half a tokenizer": (
        with_weights(lambda f: (f / "tokenizer.json").write_text('{"version": "1.0"')), "tokenizer cannot be read"),
    "no tokenizer": (write_model, "no tokenizer.json", "tokenizer.model", "vocab.json"),
    "another tokenizer.json under qwen2": (other_rules_of_qwen2, "Qwen2Tokenizer", "tokenizer.json", "tokenizer_config.json"),
    "vocab.json without merges": (no_merges, "vocab.json", "merges.txt"),
    "merges without vocab.json": (merges_alone, "no tokenizer.json", "vocab.json"),
    "vocab.json, and no class that reads it": (slow_without_class, "vocab.json", "tokenizer_config.json"),
    "tokenizer.model of tiktoken": (of_tiktoken, "tokenizer.model", "tokenizer.json"),
    "the tokenizer of another model": (of_another_model, "only 300 tokens", "do not belong together"),
    "a beginning beyond the vocabulary": (beginning_beyond, "do not belong together"),
    "a gap before a named token": (gap_in_named, "tokenizer_config.json", "<|im_start|>"),
    "the same, beside tokenizer.model": (gap_in_added, "added_tokens.json", "<|im_start|>"),
    "other ids each time": (random_ids, "tokenizer.json", "dropout"),
    "a file for each version": (by_version, "tokenizer_config.json", "fast_tokenizer_files"),
    "tekken.json alone": (tekken, "tekken.json alone", "tokenizer.json"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_folder_is_refused_in_one_line(name, tmp_path):
    build, *words = REFUSED[name]
    build(tmp_path)
    with pytest.raises(UserError) as error:
        open_model(tmp_path)
    line = str(error.value)
    assert str(tmp_path) in line and "\n" not in line and len(line) < 420
    assert all(word in line for word in words), line
