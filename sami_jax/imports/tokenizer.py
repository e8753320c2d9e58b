"""The tokenizer of a GGUF file as a Hugging Face tokenizer.json, and how it is asked.

Two kinds: `gpt2`, byte-level BPE with its merges, and `llama`, SentencePiece BPE, whose merges follow from the scores of its pieces.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors

from sami_jax.errors import UserError
from sami_jax.imports.metadata import Metadata
from sami_jax.imports.pretokenizers import PRE_TOKENIZERS

_LONGEST = 512  # bytes of a token: work on one grows with the square of its length
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = range(1, 7)  # gguf.TokenType
_SPACE = "▁"  # SentencePiece's
# What GGUF calls a token, and transformers.
_NAMED = {"bos": "bos_token", "eos": "eos_token", "unknown": "unk_token", "padding": "pad_token"}
_ENDING = ("eos", "eot", "eom")  # of a text, of a turn, of a message: each ends a reply
_ABOUT_TEXTS = ("cls", "sep", "seperator", "mask", "prefix", "suffix", "middle", "fim_pre", "fim_suf", "fim_mid", "fim_pad", "fim_rep", "fim_sep")  # fmt: skip


class Read(NamedTuple):
    tokenizer: Tokenizer
    settings: dict[str, Any]  # of tokenizer_config.json
    ids: dict[str, Any]  # bos_token_id, eos_token_id and pad_token_id, as a generation_config.json has them


class _Vocabulary(NamedTuple):
    tokens: list[str]  # by id
    kinds: np.ndarray  # [V], numbers of _NORMAL to _BYTE
    ids: dict[str, int]


def read_tokenizer(file: Path, metadata: Metadata) -> Read:
    """
    Raises:
      UserError: a kind of tokenizer, a pre-tokenizer or an option that is not known; or a vocabulary that fits none.
    """
    kind = metadata.text("tokenizer.ggml.model")
    if kind not in ("gpt2", "llama"):
        raise UserError(
            f"{file}: tokenizer.ggml.model {kind!r:.60} is not read, only 'gpt2' and 'llama'; use another model"
        )
    vocabulary = _vocabulary(file, metadata)
    tokenizer, begins = (_byte_level if kind == "gpt2" else _sentence_pieces)(file, metadata, vocabulary)
    for special, kinds in ((True, (_CONTROL, _UNKNOWN)), (False, (_USER_DEFINED,))):
        tokenizer.add_tokens(
            [
                AddedToken(vocabulary.tokens[id], normalized=False, special=special)
                for id in np.flatnonzero(np.isin(vocabulary.kinds, kinds)).tolist()
            ]
        )
    named = {
        name: metadata.id(f"tokenizer.ggml.{key}_token_id", len(vocabulary.tokens)) for key, name in _NAMED.items()
    }
    _put_around(file, metadata, tokenizer, vocabulary, named, begins)
    settings: dict[str, Any] = {name: vocabulary.tokens[id] for name, id in named.items() if id is not None}
    if (template := metadata.text("tokenizer.chat_template", None)) is not None:
        settings["chat_template"] = template
    ids: dict[str, Any] = {f"{name}_id": id for name, id in named.items() if id is not None and name != "unk_token"}
    ids["eos_token_id"] = _ends(file, metadata, len(vocabulary.tokens))
    _check_known(metadata)
    return Read(tokenizer, settings, ids)


def _vocabulary(file: Path, metadata: Metadata) -> _Vocabulary:
    tokens = metadata.texts("tokenizer.ggml.tokens")
    kinds = metadata.numbers("tokenizer.ggml.token_type", len(tokens))
    if not np.isin(kinds, range(_NORMAL, _BYTE + 1)).all():
        raise UserError(f"{file}: tokenizer.ggml.token_type holds others than 1 to 6; convert the model again")
    ids: dict[str, int] = {}
    for id, token in enumerate(tokens):
        if not token or len(token.encode()) > _LONGEST:
            raise UserError(
                f"{file}: token {id} is {len(token.encode())} bytes long, of 1 to {_LONGEST}; convert the model again"
            )
        if (other := ids.setdefault(token, id)) != id:
            raise UserError(f"{file}: tokens {other} and {id} are both {token!r:.60}; convert the model again")
    return _Vocabulary(tokens, kinds, ids)


def _byte_level(file: Path, metadata: Metadata, vocabulary: _Vocabulary) -> tuple[Tokenizer, bool]:
    """The tokenizer, and whether its texts begin with a token where the file does not say."""
    name = metadata.text("tokenizer.ggml.pre", None)
    if name not in PRE_TOKENIZERS:
        stated = "does not say" if name is None else f"says {name!r:.60}"
        raise UserError(
            f"{file}: {stated}, by tokenizer.ggml.pre, how texts are cut; {', '.join(PRE_TOKENIZERS)} are known: "
            "take the model's own folder, or convert it again"
        )
    if metadata.flag("tokenizer.ggml.add_space_prefix", False):
        raise UserError(
            f"{file}: tokenizer.ggml.add_space_prefix of a byte-level vocabulary is not read; use another model"
        )
    merges = []
    for place, merge in enumerate(metadata.texts("tokenizer.ggml.merges")):
        left, _, right = merge.partition(" ")
        if unknown := [part for part in (left, right, left + right) if part not in vocabulary.ids]:
            raise UserError(
                f"{file}: merge {place}, {merge!r:.60}, has {unknown[0]!r:.60}, no token; convert the model again"
            )
        merges.append((left, right))
    pre = PRE_TOKENIZERS[name]
    tokenizer = Tokenizer(models.BPE(vocabulary.ids, merges, ignore_merges=pre.whole_words))
    if normalizer := pre.normalizer():
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre.cutting()
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer, pre.begins


def _sentence_pieces(file: Path, metadata: Metadata, vocabulary: _Vocabulary) -> tuple[Tokenizer, bool]:
    """Likewise. As SentencePiece itself cuts: a space before each text, also before one that begins with a space."""
    metadata.text("tokenizer.ggml.pre", None)  # converters write "default" here; it says nothing of this kind
    unknown = np.flatnonzero(vocabulary.kinds == _UNKNOWN)
    if len(unknown) != 1:
        raise UserError(
            f"{file}: {len(unknown)} tokens stand for what is unknown, and there must be one; convert the model again"
        )
    tokenizer = Tokenizer(
        models.BPE(
            vocabulary.ids,
            _merges(metadata, vocabulary),
            unk_token=vocabulary.tokens[unknown[0]],
            fuse_unk=True,
            byte_fallback=bool((vocabulary.kinds == _BYTE).any()),
        )
    )
    prefixed = metadata.flag("tokenizer.ggml.add_space_prefix", True)
    spaces = normalizers.Replace(" ", _SPACE)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(_SPACE), spaces] if prefixed else [spaces])
    parts = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*parts, decoders.Strip(" ", 1, 0)] if prefixed else parts)
    return tokenizer, True


def _merges(metadata: Metadata, vocabulary: _Vocabulary) -> list[tuple[str, str]]:
    """All pairs of pieces that make a third, the best scored of these first: so SentencePiece chooses among neighbours."""
    scores = metadata.numbers("tokenizer.ggml.scores", len(vocabulary.tokens))
    pieces = {vocabulary.tokens[id]: id for id in np.flatnonzero(vocabulary.kinds == _NORMAL).tolist()}
    merges = []
    for piece, id in pieces.items():
        for cut in range(1, len(piece)):
            left, right = piece[:cut], piece[cut:]
            if left in pieces and right in pieces:
                merges.append((-scores[id], id, pieces[left], pieces[right]))
    return [(vocabulary.tokens[left], vocabulary.tokens[right]) for _, _, left, right in sorted(merges)]


def _put_around(
    file: Path,
    metadata: Metadata,
    tokenizer: Tokenizer,
    vocabulary: _Vocabulary,
    named: dict[str, int | None],
    begins: bool,
) -> None:
    """Has the tokenizer put the tokens before and behind every text that the file asks for."""
    around = {}
    for name, default in (("bos", begins and named["bos_token"] is not None), ("eos", False)):
        wanted = metadata.flag(f"tokenizer.ggml.add_{name}_token", default)
        if wanted and named[f"{name}_token"] is None:
            raise UserError(
                f"{file}: tokenizer.ggml.add_{name}_token, and {name}_token_id is missing; convert the model again"
            )
        around[name] = named[f"{name}_token"] if wanted else None
    put = {vocabulary.tokens[id]: id for id in around.values() if id is not None}
    if put:
        before, behind = (
            [vocabulary.tokens[id]] if (id := around[name]) is not None else [] for name in ("bos", "eos")
        )
        template = [[*before, f"${text}", *behind] for text in "AB"]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=template[0],
            pair=[*template[0], *(f"{part}:1" for part in template[1])],
            special_tokens=list(put.items()),
        )


def _ends(file: Path, metadata: Metadata, size: int) -> int | list[int]:
    """The tokens that end a reply."""
    ids = (metadata.id(f"tokenizer.ggml.{name}_token_id", size) for name in _ENDING)
    ends = list(dict.fromkeys(id for id in ids if id is not None))
    if not ends:
        raise UserError(
            f"{file}: tokenizer.ggml.eos_token_id is missing: no token ends a text; convert the model again"
        )
    return ends if len(ends) > 1 else ends[0]


def _check_known(metadata: Metadata) -> None:
    """Raises UserError where the tokenizer has an option that changes ids and is not known."""
    for name in _ABOUT_TEXTS:
        metadata.has(f"tokenizer.ggml.{name}_token_id")
    for key in ("token_type_count", "scores", "merges", "add_sep_token"):
        metadata.has(f"tokenizer.ggml.{key}")
    metadata.refuse_unasked("tokenizer.ggml.")
