"""Small random models whose tokenizers chat as Llama 3, Mistral, Qwen and Gemma do: the same special tokens, and chat templates of
the same shape."""

import functools
import json
import string
from pathlib import Path

import jax
import tokenizers
import transformers
from tokenizers import decoders, models, pre_tokenizers, processors, trainers

from sami_jax.export.huggingface import export
from sami_jax.models.config import ModelConfig
from sami_jax.models.decoder import init_params
from sami_jax.sharding import make_mesh

# What its tokens are learnt from: some words become whole tokens, with the space before them.
CORPUS = [
    "Your reply follows this constitution: 1. Say hello first. 2. Never say hello.",
    "How do I fix the bike? Hello! You can fix the bike with a hammer.",
    "system user assistant model\n\nHello there, my friend. Perhaps you can clean the chair.",
    "\n\nHello a::" * 9,
] * 4
VOCABULARY = 320  # tokens at most
# As Llama 3's and Qwen's tokenizers cut a text before they look for byte pairs: ends of lines stand together.
WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"

LLAMA3 = """\
{{ bos_token }}{% for message in messages %}{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"""

# As of version 0.3: the system's text stands in the last message, if that is the user's; else it is left out.
MISTRAL = """\
{%- if messages[0]['role'] == 'system' %}{%- set system = messages[0]['content'] %}{%- set turns = messages[1:] %}{%- else %}{%- set turns = messages %}{%- endif %}
{{- bos_token }}
{%- for message in turns %}
{%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{- raise_exception('roles must alternate user/assistant/user/assistant') }}{%- endif %}
{%- if message['role'] == 'user' %}
{%- if loop.last and system is defined %}{{- '[INST] ' + system + '\n\n' + message['content'] + '[/INST]' }}{%- else %}{{- '[INST] ' + message['content'] + '[/INST]' }}{%- endif %}
{%- else %}{{- ' ' + message['content'] | trim + eos_token }}{%- endif %}
{%- endfor %}"""

QWEN = """\
{%- if messages[0]['role'] != 'system' %}{{- '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{%- endif %}
{%- for message in messages %}{{- '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"""

GEMMA = """\
{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}
{%- for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}
{%- if message['role'] == 'assistant' %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}
{{- '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"""

# name -> template, begin-of-text, end-of-text, end of turn, other special tokens
SHAPES = {
    "llama3": (LLAMA3, "<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>", ["<|start_header_id|>", "<|end_header_id|>"]),
    "mistral": (MISTRAL, "<s>", "</s>", "</s>", ["[INST]", "[/INST]"]),
    "qwen": (QWEN, None, "<|endoftext|>", "<|im_end|>", ["<|im_start|>"]),
    "gemma": (GEMMA, "<bos>", "<eos>", "<end_of_turn>", ["<start_of_turn>"]),
}  # fmt: skip


@functools.cache
def chat_tokenizer(shape: str) -> transformers.PreTrainedTokenizerFast:
    """Byte pairs, Mistral's with marked spaces; a text that is encoded alone gets its begin-of-text, as the real ones' do."""
    template, begin, end, end_of_turn, others = SHAPES[shape]
    special = list(dict.fromkeys(filter(None, [end, begin, end_of_turn, *others])))
    if shape == "mistral":
        tokenizer = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
        tokenizer.decoder = decoders.Metaspace(prepend_scheme="first", split=False)
        special.append("<unk>")
        alphabet = list(string.printable.replace(" ", "▁"))
    else:
        tokenizer = tokenizers.Tokenizer(models.BPE())
        cut = pre_tokenizers.Split(tokenizers.Regex(WORDS), behavior="isolated")
        coded = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([cut, coded])
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    if begin:
        id = tokenizer.token_to_id(begin)
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{begin} $A", pair=f"{begin} $A $B", special_tokens=[(begin, id)]
        )
    words = {"bos_token": begin, "unk_token": "<unk>" if shape == "mistral" else None}
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=end,
        pad_token=end,
        chat_template=template,
        **{name: word for name, word in words.items() if word},
    )


def write_chat_model(folder: Path, shape: str = "llama3", max_positions: int = 256) -> Path:
    """Writes a small random model's folder, of the same sizes for every shape, so that all share compiled programs. Its
    generation_config.json names the end of the text alone, as if its maker had forgotten the end of turn."""
    tokenizer = chat_tokenizer(shape)
    config = ModelConfig(
        family="llama",
        vocab_size=VOCABULARY,
        d_model=32,
        n_layers=2,
        n_heads=4,
        n_kv_heads=2,
        head_dim=8,
        d_ff=64,
        max_positions=max_positions,
    )
    export(init_params(config, 0, make_mesh({}, jax.local_devices()[:1])), config, folder, tokenizer.save_pretrained)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": tokenizer.eos_token_id}))
    return folder
