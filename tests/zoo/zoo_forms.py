"""The zoo: forms that published folders have, and who tells the right ids of each.

A form's builder fills an empty folder. Its ids are told by transformers, or by its own file where transformers' class has other rules;
what stands before a text is given here, and nothing stands behind.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import torch
from tokenizers import AddedToken, pre_tokenizers, processors
from zoo_folders import (
    CHATML,
    INDEX,
    WEIGHTS,
    around,
    byte_pairs,
    edit,
    file_slow,
    file_tokenizer,
    litter,
    pieces,
    renamed,
    save,
    settings_of,
    shard,
    spaces_marked,
    unigram,
    words,
    write,
    write_model,
)

CHAT = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


@dataclasses.dataclass(frozen=True)
class Form:
    name: str
    build: Callable[[Path], object]
    ids: str = "transformers"  # | "tokenizer.json" | "tokenizer.model": who tells them
    before: tuple[str, ...] = ()  # tokens before a text, where the file tells the ids


# ---- tokenizers ----


def llama3(folder):
    write_model(folder)
    file_tokenizer(folder, around(byte_pairs(), "<s> $A"), bos_token="<s>")


def llama2(folder):
    write_model(folder)
    file_tokenizer(folder, spaces_marked(folder), tokenizer_class="LlamaTokenizer", bos_token="<s>", unk_token="<unk>", legacy=False)  # fmt: skip


def deepseek(folder):
    write_model(folder)
    file_tokenizer(folder, around(byte_pairs(), "<s> $A"), tokenizer_class="LlamaTokenizerFast", bos_token="<s>", add_bos_token=True)  # fmt: skip


def smol(folder):
    write_model(folder, tie=True)
    file_tokenizer(folder, byte_pairs("digits"), tokenizer_class="GPT2Tokenizer", bos_token="<s>", unk_token="</s>")


def smol_with_named(folder):
    """Two tokens more are named in tokenizer_config.json alone."""
    smol(folder)
    size = byte_pairs("digits").get_vocab_size()
    named = {
        str(size + place): {"content": token, "lstrip": False, "rstrip": False, "normalized": False, "single_word": False, "special": True}
        for place, token in enumerate(CHAT[1:])
    }  # fmt: skip
    settings_of(folder, "tokenizer_config.json", added_tokens_decoder=named, chat_template=CHATML)


def olmo(folder):
    write_model(folder)
    file_tokenizer(folder, byte_pairs("llama3"), tokenizer_class="GPT2TokenizerFast", bos_token="<s>", unk_token="</s>")


def mistral(folder):
    write_model(folder, "mistral", sliding_window=8)
    file_tokenizer(folder, spaces_marked(folder), tokenizer_class="LlamaTokenizerFast", bos_token="<s>", unk_token="<unk>")  # fmt: skip


def mixtral(folder):
    write_model(folder, "mixtral")
    file_tokenizer(folder, spaces_marked(folder), tokenizer_class="LlamaTokenizer", bos_token="<s>", unk_token="<unk>")
    (folder / "tokenizer.model").unlink()


def qwen2(folder):
    write_model(folder, "qwen2", tie=True)
    file_tokenizer(folder, byte_pairs("qwen", CHAT), tokenizer_class="Qwen2Tokenizer", eos_token="<|im_end|>", pad_token="<|endoftext|>", add_bos_token=False, chat_template=CHATML)  # fmt: skip


def qwen3(folder):
    """Thoughts are marked by added tokens that are not special."""
    write_model(folder, "qwen3")
    tokenizer = byte_pairs("qwen", CHAT)
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in ("<think>", "</think>")])
    file_tokenizer(folder, tokenizer, tokenizer_class="Qwen2Tokenizer", eos_token="<|im_end|>", pad_token="<|endoftext|>")  # fmt: skip
    (folder / "chat_template.jinja").write_text(CHATML)


def closed(folder):
    write_model(folder)
    file_tokenizer(folder, around(byte_pairs(), "<s> $A </s>"), bos_token="<s>", add_bos_token=True, add_eos_token=True)


def closed_without_beginning(folder):
    write_model(folder, "qwen3")
    tokenizer = around(byte_pairs("qwen", CHAT), "$A <|im_end|> <|endoftext|>")
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), tokenizer.post_processor])
    file_tokenizer(folder, tokenizer, tokenizer_class="Qwen2Tokenizer", eos_token="<|im_end|>")


def closed_as_bert(folder):
    write_model(folder, "mistral")
    tokenizer = byte_pairs()
    tokenizer.post_processor = processors.BertProcessing(("</s>", 1), ("<s>", 0))
    file_tokenizer(folder, tokenizer, bos_token="<s>", chat_template=CHATML)


def closed_as_roberta(folder):
    write_model(folder)
    tokenizer = byte_pairs()
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 1), ("<s>", 0))
    file_tokenizer(folder, tokenizer, bos_token="<s>")


def asked_to_close(folder):
    """transformers goes by tokenizer.json."""
    write_model(folder)
    file_tokenizer(folder, around(byte_pairs(), "<s> $A"), bos_token="<s>", add_bos_token=False, add_eos_token=True)


def own_code(folder):
    """tokenizer_config.json names a class that the folder's own code would define."""
    llama3(folder)
    settings_of(folder, "tokenizer_config.json", tokenizer_class="OwnTokenizer", auto_map={"AutoTokenizer": ["own.OwnTokenizer", None]})  # fmt: skip


def sentencepiece_llama(folder):
    write_model(folder)
    (folder / "tokenizer.model").write_bytes(pieces())
    write(folder / "tokenizer_config.json", {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "add_bos_token": True})  # fmt: skip


def sentencepiece_closed(folder):
    sentencepiece_llama(folder)
    settings_of(folder, "tokenizer_config.json", add_eos_token=True, legacy=False)


def sentencepiece_bare(folder):
    write_model(folder, "mistral")
    (folder / "tokenizer.model").write_bytes(pieces())


def sentencepiece_unigram(folder):
    write_model(folder)
    (folder / "tokenizer.model").write_bytes(pieces("unigram"))
    write(folder / "tokenizer_config.json", {"tokenizer_class": "LlamaTokenizer", "add_bos_token": False})


def slow_qwen(folder):
    write_model(folder, "qwen2")
    file_slow(folder, byte_pairs("qwen", CHAT), tokenizer_class="Qwen2Tokenizer", eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=CHATML)  # fmt: skip


def slow_gpt2(folder):
    write_model(folder)
    file_slow(folder, byte_pairs("gpt2"), tokenizer_class="GPT2Tokenizer", bos_token="<s>", eos_token="</s>", unk_token="</s>")  # fmt: skip


def pad_beyond(folder):
    tokenizer = byte_pairs()
    write_model(folder, vocab_size=tokenizer.get_vocab_size())
    tokenizer.add_special_tokens(["[PAD]"])
    file_tokenizer(folder, tokenizer, pad_token="[PAD]")
    write(folder / "generation_config.json", {"eos_token_id": 1, "pad_token_id": tokenizer.token_to_id("[PAD]")})


def pad_beyond_by_name(folder):
    """Everywhere but in tokenizer.json."""
    tokenizer = byte_pairs()
    write_model(folder, vocab_size=tokenizer.get_vocab_size())
    file_tokenizer(folder, tokenizer, pad_token="[PAD]")
    write(folder / "special_tokens_map.json", {"pad_token": "[PAD]", "eos_token": "</s>"})
    write(folder / "added_tokens.json", {"[PAD]": tokenizer.get_vocab_size()})


def added_within(folder):
    """The embedding was resized for tokens that added_tokens.json alone names."""
    tokenizer = byte_pairs("llama3")
    write_model(folder)
    file_tokenizer(folder, tokenizer, chat_template=CHATML, bos_token="<s>")
    write(folder / "added_tokens.json", {token: tokenizer.get_vocab_size() + n for n, token in enumerate(CHAT[1:])})


def baked(folder):
    """Truncation and padding were saved with the tokenizer."""
    write_model(folder)
    tokenizer = around(byte_pairs(), "<s> $A")
    tokenizer.enable_truncation(16)
    tokenizer.enable_padding(length=16, pad_id=1, pad_token="</s>")
    file_tokenizer(folder, tokenizer, bos_token="<s>", model_max_length=16)


def stripping(folder):
    write_model(folder)
    tokenizer = byte_pairs()
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True, rstrip=True, special=True)])
    file_tokenizer(folder, tokenizer, mask_token="<mask>")


def prefixed(folder):
    """A space before every text."""
    write_model(folder)
    tokenizer = byte_pairs("gpt2")
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    file_tokenizer(folder, tokenizer)


def word_level(folder):
    write_model(folder)
    file_tokenizer(folder, words(), unk_token="<unk>")


def of_scores(folder):
    write_model(folder, "mistral")
    file_tokenizer(folder, unigram(), unk_token="<unk>")


# ---- weights ----


def with_weights(change: Callable[[Path], object], family: str = "llama", **settings) -> Callable[[Path], None]:
    def build(folder: Path) -> None:
        write_model(folder, family, **settings)
        tokenizer = byte_pairs("qwen", CHAT) if family.startswith("qwen") else byte_pairs()
        end = "<|im_end|>" if family.startswith("qwen") else "</s>"
        file_tokenizer(folder, tokenizer, eos_token=end)
        change(folder)

    return build


def old_index(folder: Path) -> None:
    """model.safetensors is the model; an index and a part of an older save lie beside it."""
    tensors = {}
    edit(folder, lambda new: tensors.update(new) or {name: tensor + 0.25 for name, tensor in new.items()})
    save(folder / "model-00001-of-00001.safetensors", tensors)
    write(folder / INDEX, {"weight_map": dict.fromkeys(tensors, "model-00001-of-00001.safetensors")})


def cast(dtype: torch.dtype) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        edit(folder, lambda tensors: {name: tensor.to(dtype) for name, tensor in tensors.items()})
        settings_of(folder, dtype=None, torch_dtype=str(dtype).removeprefix("torch."))

    return change


def with_head(scale: float) -> Callable[[Path], None]:
    """lm_head.weight is stored beside the embedding that it is tied to, times `scale`."""
    return lambda folder: edit(
        folder, lambda tensors: tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"] * scale}
    )


def head_alone(folder: Path) -> None:
    renamed(folder, lambda name: "lm_head.weight" if "embed_tokens" in name else name)


def more_than_a_model(folder: Path) -> None:
    more = {
        "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4),
        "model.layers.2.mlp.up_proj.weight": torch.ones(2, 2),
    }
    edit(folder, lambda tensors: tensors | more)


def without_metadata(folder: Path) -> None:
    import safetensors.torch

    save(folder / WEIGHTS, safetensors.torch.load_file(folder / WEIGHTS), None)


FORMS = (
    Form("Llama 3's", llama3),
    Form("Llama 2's, spaces marked by the normalizer", llama2, "tokenizer.json", ("<s>",)),
    Form("DeepSeek's, bytes by name of LlamaTokenizerFast", deepseek),
    Form("SmolLM's, digits by name of GPT2Tokenizer", smol, "tokenizer.json"),
    Form("the same, tokens named in tokenizer_config.json", smol_with_named, "tokenizer.json"),
    Form("OLMo's, its own pattern by name of GPT2TokenizerFast", olmo, "tokenizer.json"),
    Form("Mistral's, tokenizer.model beside", mistral, "tokenizer.json", ("<s>",)),
    Form("Mixtral's", mixtral, "tokenizer.json", ("<s>",)),
    Form("Qwen 2.5's", qwen2),
    Form("Qwen 3's, template in a file", qwen3),
    Form("closed", closed, "tokenizer.json", ("<s>",)),
    Form("closed twice, nothing before", closed_without_beginning, "tokenizer.json"),
    Form("closed as BERT does", closed_as_bert, "tokenizer.json", ("<s>",)),
    Form("closed as RoBERTa does", closed_as_roberta, "tokenizer.json", ("<s>",)),
    Form("add_eos_token in tokenizer_config.json alone", asked_to_close),
    Form("a class of the folder's own code", own_code, "tokenizer.json", ("<s>",)),
    Form("tokenizer.model of a Llama", sentencepiece_llama, "tokenizer.model", ("<s>",)),
    Form("tokenizer.model, closed", sentencepiece_closed, "tokenizer.model", ("<s>",)),
    Form("tokenizer.model and nothing else", sentencepiece_bare, "tokenizer.model"),
    Form("tokenizer.model of scores", sentencepiece_unigram, "tokenizer.model"),
    Form("vocab.json and merges.txt of a Qwen", slow_qwen),
    Form("vocab.json and merges.txt of GPT-2's kind", slow_gpt2),
    Form("[PAD] beyond the vocabulary", pad_beyond),
    Form("[PAD] beyond, in all files but tokenizer.json", pad_beyond_by_name),
    Form("tokens of added_tokens.json", added_within),
    Form("truncation and padding baked in", baked),
    Form("a mask that strips", stripping),
    Form("a space before every text", prefixed),
    Form("whole words", word_level),
    Form("unigram", of_scores),
    Form("in parts", with_weights(shard)),
    Form("in parts, one tensor twice", with_weights(lambda folder: shard(folder, ["lm_head.weight"]))),
    Form("an older save's index", with_weights(old_index)),
    Form("bfloat16", with_weights(cast(torch.bfloat16), "qwen2")),
    Form("float16", with_weights(cast(torch.float16), "mistral")),
    Form("tied", with_weights(lambda folder: None, "qwen3", tie=True)),
    Form("tied, both stored", with_weights(with_head(1), tie=True)),
    Form("tied, both stored, and they differ", with_weights(with_head(1.5), tie=True)),
    Form("tied, the head alone stored", with_weights(head_alone, tie=True)),
    Form("names without model.", with_weights(lambda f: renamed(f, lambda n: n.removeprefix("model.")), "mixtral")),
    Form("names with model. twice", with_weights(lambda f: renamed(f, lambda n: f"model.{n}"))),
    Form("more than a model", with_weights(more_than_a_model)),
    Form("weights without metadata", with_weights(without_metadata)),
    Form("left-overs of all kinds", with_weights(litter)),
)
