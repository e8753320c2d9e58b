"""The ids of texts by a GGUF file's tokenizer, against transformers' reading of the file, or where that errs, the tokenizer's own rules."""

import numpy as np
import pytest
import regex
import transformers
from support.gguf_files import CONTROL, byte_vocabulary, piece_vocabulary, pieces, write_gguf
from zoo.zoo_texts import TEXTS

from sami_jax.errors import UserError
from sami_jax.imports.header import read_header
from sami_jax.imports.tokenizer import Read, read_tokenizer

NOTHING = {"token_embd.weight": np.zeros((1, 32), np.float32)}
ODD = [
    "",
    " ",
    "\n",
    "\x00\x01",
    "e\u0301 \u00e9 \ufb01",
    "<|start|>hi<|stop|>",
    "<tool>1<tool>",
    "[PAD461]",
    "\U0010ffff \ufffd",
    "１２½Ⅳ",
]


def read(folder, entries: dict) -> Read:
    file = write_gguf(folder / "model.gguf", "llama", entries, NOTHING)
    return read_tokenizer(file, read_header(file).metadata)


def ids(made: Read, texts: list[str], **options) -> list[list[int]]:
    return [encoding.ids for encoding in made.tokenizer.encode_batch(texts, **options)]


def transformers_ids(folder, texts: list[str]) -> list[list[int]]:
    options = dict(gguf_file="model.gguf", local_files_only=True)
    backend = transformers.PreTrainedTokenizerFast.from_pretrained(folder, **options).backend_tokenizer
    return [encoding.ids for encoding in backend.encode_batch(texts)]


@pytest.mark.parametrize("pre", ["gpt-2", "llama-bpe", "tekken", "smollm", "qwen2"])
def test_bytes_as_transformers_reads_them(pre, tmp_path):
    made = read(tmp_path, byte_vocabulary() | {"tokenizer.ggml.pre": pre})
    texts = [*TEXTS, *ODD]
    if pre == "qwen2":  # transformers' reading of a file leaves out NFC, which Qwen's own tokenizer has
        texts = [text for text in texts if text.isascii()]
    if pre == "smollm":  # and the digits, which stand alone in SmolLM's
        texts = [regex.sub(r"\p{N}", "n", text) for text in texts]
    assert len(texts) > 40
    assert ids(made, texts) == transformers_ids(tmp_path, texts)


def test_qwens_own_tokenizer(tmp_path):
    made = read(tmp_path, byte_vocabulary() | {"tokenizer.ggml.pre": "qwen2"})
    merges = [tuple(merge.split(" ")) for merge in byte_vocabulary()["tokenizer.ggml.merges"]]
    own = transformers.Qwen2Tokenizer(vocab=made.tokenizer.get_vocab(), merges=merges)
    texts = [text for text in [*TEXTS, *ODD] if "<" not in text]  # it was not told of the added tokens
    assert ids(made, texts) == [own.encode(text) for text in texts]


def test_digits_of_smollm_stand_alone(tmp_path):
    """Each number is a word, whatever stands around it; so transformers' reading of each part between is right."""
    made = read(tmp_path, byte_vocabulary() | {"tokenizer.ggml.pre": "smollm"})
    texts = [text for text in [*TEXTS, *ODD] if "<" not in text]
    for text, found in zip(texts, ids(made, texts), strict=True):
        parts = [part for part in regex.split(r"(\p{N})", text) if part]
        assert found == [id for part in transformers_ids(tmp_path, parts) for id in part], text


@pytest.mark.parametrize(("pre", "whole"), [("llama-bpe", True), ("tekken", True), ("gpt-2", False), ("qwen2", False)])
def test_a_word_that_is_a_token_of_no_merge(pre, whole, tmp_path):
    vocabulary = byte_vocabulary() | {"tokenizer.ggml.pre": pre}
    tokens = [*vocabulary["tokenizer.ggml.tokens"][:-1], "Ġzqzq"]
    made = read(tmp_path, vocabulary | {"tokenizer.ggml.tokens": tokens})
    assert (ids(made, ["a zqzq"])[0][-1] == len(tokens) - 1) == whole


@pytest.mark.parametrize("bytes_too", [True, False])
def test_pieces_as_sentencepiece_cuts_them(bytes_too, tmp_path):
    made = read(tmp_path, piece_vocabulary(bytes_too))
    texts = [text for text in [*TEXTS, *ODD] if not regex.search(r"<[/\w]+>|\x00", text) and text]
    assert len(texts) > 170 and any(text.startswith(" ") for text in texts)
    assert ids(made, texts) == [[1, *pieces(bytes_too).encode(text)] for text in texts]
    if not bytes_too:  # what is unknown is shown otherwise, and transformers knows no vocabulary without bytes
        return
    for text, found in zip(texts, ids(made, texts), strict=True):
        assert made.tokenizer.decode(found) == pieces().decode(found[1:]), text
    # transformers puts no space before a text that begins with one; elsewhere it agrees
    usual = [text for text in texts if not text.startswith(" ")]
    assert ids(made, usual, add_special_tokens=False) == transformers_ids_of_pieces(tmp_path, usual)


def transformers_ids_of_pieces(folder, texts: list[str]) -> list[list[int]]:
    options = dict(gguf_file="model.gguf", local_files_only=True)
    read = transformers.LlamaTokenizer.from_pretrained(folder, **options)
    return [encoding.ids for encoding in read.backend_tokenizer.encode_batch(texts, add_special_tokens=False)]


def test_no_space_is_put_before_where_the_file_says_so(tmp_path):
    made = read(tmp_path, piece_vocabulary() | {"tokenizer.ggml.add_space_prefix": False})
    [prefixed], [bare] = (
        ids(read_, ["hello"], add_special_tokens=False) for read_ in (read(tmp_path, piece_vocabulary()), made)
    )
    assert made.tokenizer.decode(bare) == "hello" and prefixed != bare


@pytest.mark.parametrize(
    ("entries", "pre", "before", "behind"),
    [
        ({"tokenizer.ggml.add_bos_token": None}, "gpt-2", [], []),
        ({"tokenizer.ggml.add_bos_token": None}, "llama-bpe", [1], []),
        ({"tokenizer.ggml.add_bos_token": True, "tokenizer.ggml.add_eos_token": True}, "gpt-2", [1], [2]),
        ({"tokenizer.ggml.add_bos_token": False}, "llama-bpe", [], []),
    ],
)
def test_what_is_put_around_texts(entries, pre, before, behind, tmp_path):
    made = read(tmp_path, byte_vocabulary() | {"tokenizer.ggml.pre": pre} | entries)
    [text], [bare] = ids(made, ["hello"]), ids(made, ["hello"], add_special_tokens=False)
    assert text == [*before, *bare, *behind]
    pair = made.tokenizer.encode("hello", "hello").ids
    assert pair == [*before, *bare, *behind, *before, *bare, *behind]


def test_special_tokens_ends_and_template(tmp_path):
    made = read(tmp_path, byte_vocabulary() | {"tokenizer.ggml.eot_token_id": 0, "tokenizer.ggml.fim_pre_token_id": 1})
    assert made.ids == {"bos_token_id": 1, "eos_token_id": [2, 0], "pad_token_id": 0}
    assert made.settings["eos_token"] == "<|stop|>" and made.settings["pad_token"] == "<|end|>"
    assert made.settings["chat_template"].startswith("{% for m in messages %}")
    assert made.tokenizer.decode([1, 2, 460], skip_special_tokens=True) == "<tool>"


CHANGES = {
    "another kind": ({"tokenizer.ggml.model": "t5"}, "'t5' is not read"),
    "another pre-tokenizer": ({"tokenizer.ggml.pre": "deepseek-llm"}, "says 'deepseek-llm'"),
    "none": ({"tokenizer.ggml.pre": None}, "does not say"),
    "one that stands for several": ({"tokenizer.ggml.pre": "default"}, "says 'default'"),
    "no end": ({"tokenizer.ggml.eos_token_id": None}, "no token ends a text"),
    "an end beyond": ({"tokenizer.ggml.eos_token_id": 462}, "no token of the 462"),
    "an option": ({"tokenizer.ggml.normalizer.lowercase": True}, "'tokenizer.ggml.normalizer.lowercase' is True"),
    "merges of no tokens": ({"tokenizer.ggml.merges": ["a b", "ab zzz"]}, "no token"),
    "a merge of one": ({"tokenizer.ggml.merges": ["a"]}, "merge 0, 'a', has '', no token"),
    "no merges": ({"tokenizer.ggml.merges": None}, "'tokenizer.ggml.merges' is missing"),
    "types too few": ({"tokenizer.ggml.token_type": [1, 1]}, "no list of 462 numbers"),
    "types unknown": ({"tokenizer.ggml.token_type": [9] * 462}, "others than 1 to 6"),
    "the same token twice": (
        {"tokenizer.ggml.tokens": ["a", "a"], "tokenizer.ggml.token_type": [1, 1]},
        "tokens 0 and 1 are both 'a'",
    ),
    "an empty token": ({"tokenizer.ggml.tokens": ["a", ""], "tokenizer.ggml.token_type": [1, 1]}, "token 1 is 0 bytes"),
    "a token as long as a book": (
        {"tokenizer.ggml.tokens": ["a", "b" * 10**6], "tokenizer.ggml.token_type": [1, 1]},
        "token 1 is 1000000 bytes",
    ),
    "a beginning that is not there": (
        {"tokenizer.ggml.bos_token_id": None, "tokenizer.ggml.add_bos_token": True},
        "bos_token_id is missing",
    ),
    "a template of bytes": ({"tokenizer.chat_template": b"\xff\xfe"}, "is no UTF-8"),
    "tokens of bytes": (
        {"tokenizer.ggml.tokens": [b"a", b"\xff"], "tokenizer.ggml.token_type": [1, 1]},
        "tokens[1]' is no UTF-8",
    ),
}


@pytest.mark.parametrize(("change", "said"), CHANGES.values(), ids=CHANGES)
def test_what_is_not_known_is_refused_by_name(change, said, tmp_path):
    with pytest.raises(UserError) as refused:
        read(tmp_path, byte_vocabulary() | change)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tokenizer.ggml.scores": None}, "scores' is missing"),
        ({"tokenizer.ggml.scores": [float("nan")] * 640}, "no list of 640 numbers"),
        ({"tokenizer.ggml.token_type": [CONTROL] * 640}, "0 tokens stand for what is unknown"),
        ({"tokenizer.ggml.remove_extra_whitespaces": True}, "remove_extra_whitespaces' is True"),
        ({"tokenizer.ggml.precompiled_charsmap": [1, 2]}, "precompiled_charsmap"),
    ],
)
def test_pieces_that_are_refused(change, said, tmp_path):
    with pytest.raises(UserError) as refused:
        read(tmp_path, piece_vocabulary() | change)
    assert said in str(refused.value)
