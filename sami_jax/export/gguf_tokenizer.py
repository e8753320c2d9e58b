"""A model's tokenizer as the entries of a GGUF file; one that the format cannot tell is refused.

What is written is read again, as `sami import` reads it, and compared with the tokenizer it was made from.
"""

import json
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from sami_jax.errors import UserError
from sami_jax.imports.metadata import Metadata
from sami_jax.imports.pretokenizers import PRE_TOKENIZERS, PreTokenizer
from sami_jax.imports.tokenizer import read_tokenizer
from sami_jax.models.pretrained import ModelFolder
from sami_jax.models.tokenizer import difference
from sami_jax.models.tokenizer_json import without_tokens_from

_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = range(1, 7)  # gguf.TokenType
_SPACE = "▁"
_NAMED = {"bos": "bos_token_id", "unknown": "unk_token_id", "padding": "pad_token_id"}
_ENDING = ("eos", "eot", "eom")


def tokenizer_entries(model: ModelFolder) -> dict[str, Any]:
    """By key.

    Raises:
      UserError: a tokenizer of a kind that GGUF has no name for here, or more tokens that end a text than it has.
    """
    state = _state(model)
    if state["model"]["type"] != "BPE":
        raise _unknown(model, f"is of the kind {state['model']['type']}")
    own = _of_pieces(model, state) if state["model"].get("byte_fallback") else _of_bytes(model, state)
    entries: dict[str, Any] = {"tokenizer.ggml.tokens": _tokens(model, state), **own}
    entries["tokenizer.ggml.token_type"] = _kinds(entries["tokenizer.ggml.tokens"], state)
    for name, attribute in _NAMED.items():
        id = getattr(model.tokenizer, attribute)
        if id is not None and id < model.config.vocab_size:
            entries[f"tokenizer.ggml.{name}_token_id"] = id
    if len(model.end_tokens) > len(_ENDING):
        raise UserError(f"{model.folder}: {len(model.end_tokens)} tokens end a text; GGUF has names for {len(_ENDING)}")
    for name, id in zip(_ENDING, model.end_tokens, strict=False):
        entries[f"tokenizer.ggml.{name}_token_id"] = id
    before = model.tokenizer.encode("")
    if before not in ([], [model.tokenizer.bos_token_id]):
        raise _unknown(model, f"begins texts with {model.tokenizer.convert_ids_to_tokens(before)}")
    entries["tokenizer.ggml.add_bos_token"] = bool(before)
    template = getattr(model.tokenizer, "chat_template", None)
    if isinstance(template, str):
        entries["tokenizer.chat_template"] = template
    return entries


def _state(model: ModelFolder) -> dict:
    """The content of its tokenizer.json, as far as the model has its tokens."""
    return without_tokens_from(json.loads(model.tokenizer.backend_tokenizer.to_str()), model.config.vocab_size)


def _unknown(model: ModelFolder, what: str) -> UserError:
    return UserError(f"{model.folder}: its tokenizer {what}, for which GGUF has no name here; export without --gguf")


def _tokens(model: ModelFolder, state: dict) -> list[str]:
    """By id; what has no token is filled as llama.cpp's converter does."""
    ids = {id: token for token, id in state["model"]["vocab"].items()}
    ids |= {token["id"]: token["content"] for token in state["added_tokens"]}
    return [ids.get(id, f"[PAD{id}]") for id in range(model.config.vocab_size)]


def _kinds(tokens: list[str], state: dict) -> list[int]:
    added = {token["content"]: _CONTROL if token["special"] else _USER_DEFINED for token in state["added_tokens"]}
    known, unknown = state["model"]["vocab"], state["model"].get("unk_token")
    pieces = bool(state["model"].get("byte_fallback"))

    def kind(token: str) -> int:
        if token == unknown:
            return _UNKNOWN
        if pieces and len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
            return _BYTE
        return added.get(token, _NORMAL if token in known else _UNUSED)

    return [kind(token) for token in tokens]


def _of_bytes(model: ModelFolder, state: dict) -> dict[str, Any]:
    """Of a byte-level vocabulary: its merges, and the name of what cuts texts."""
    normalizer = state["normalizer"]
    cut = _cut(model, state["pre_tokenizer"])
    wanted = cut._replace(
        whole_words=bool(state["model"].get("ignore_merges")),
        normalized=normalizer is not None and normalizer["type"] == "NFC",
    )
    names = [name for name, pre in PRE_TOKENIZERS.items() if pre._replace(begins=False) == wanted]
    if not names or (normalizer is not None and not wanted.normalized):
        raise _unknown(model, "cuts texts in a way")
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in state["model"]["merges"]]
    return {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": names[0], "tokenizer.ggml.merges": merges}


def _cut(model: ModelFolder, pre_tokenizer: dict | None) -> PreTokenizer:
    """What cuts texts, as far as it is of parts that a PreTokenizer has."""
    whole = pre_tokenizer or {"type": "Sequence", "pretokenizers": []}
    parts = whole["pretokenizers"] if whole["type"] == "Sequence" else [whole]
    found = PreTokenizer()
    for place, part in enumerate(parts):
        last = place == len(parts) - 1
        if part["type"] == "Digits" and part["individual_digits"] and place == 0:
            found = found._replace(digits=True)
        elif part["type"] == "Split" and part["behavior"] == "Isolated" and not part["invert"] and not found.pattern:
            found = found._replace(pattern=part["pattern"].get("Regex"))
        elif not (
            part["type"] == "ByteLevel"
            and last
            and not part["add_prefix_space"]
            and part["use_regex"] != bool(found.pattern)
        ):
            raise _unknown(model, f"cuts texts by {part['type']}")
    if not parts or parts[-1]["type"] != "ByteLevel":
        raise _unknown(model, "cuts texts otherwise than by bytes")
    return found


def _of_pieces(model: ModelFolder, state: dict) -> dict[str, Any]:
    """Of SentencePiece's: scores in the order of its merges, and whether a space is put before texts."""
    vocab = state["model"]["vocab"]
    scores = dict.fromkeys(range(model.config.vocab_size), 0.0)
    merges = [merge.split(" ") if isinstance(merge, str) else merge for merge in state["model"]["merges"]]
    for rank, (left, right) in reversed(list(enumerate(merges, start=1))):
        scores[vocab[left + right]] = -float(rank)
    # A single character is never made of others: it comes last, as in SentencePiece's own files.
    for token, id in vocab.items():
        scores[id] = scores[id] or (-float(len(merges) + 1) if len(token) == 1 else 0.0)
    prepended = _SPACE in json.dumps(state["normalizer"] or {}, ensure_ascii=False) and "Prepend" in json.dumps(
        state["normalizer"]
    )
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.scores": list(scores.values()),
        "tokenizer.ggml.add_space_prefix": prepended,
    }


def check_tokenizer(model: ModelFolder, entries: dict[str, Any]) -> None:
    """Raises UserError where the entries, read again, give a text other ids than the model's tokenizer, or spell ids otherwise."""
    read = read_tokenizer(
        model.folder, Metadata(model.folder, {key: _as_stored(value) for key, value in entries.items()})
    )
    if (text := difference(read.tokenizer, Tokenizer.from_str(json.dumps(_state(model))))) is not None:
        raise _unknown(model, f"reads {text!r:.40} to ids that a GGUF file would not give it")


def _as_stored(value: Any) -> Any:
    if isinstance(value, list):
        return [each.encode() for each in value] if isinstance(value[0], str) else np.array(value)
    return value.encode() if isinstance(value, str) else value
