"""A model folder's tokenizer: to the ids of its own file, and with nothing behind a text.

transformers builds some tokenizers by rules of a class and takes no more than the vocabulary from tokenizer.json or tokenizer.model; the
ids a model was trained on are those of the file. So what transformers reads is compared with the file. Where it gives other ids, where
every text is closed, where tokens are known that the model has not, and where there is no tokenizer.json, the tokenizer is filed anew:
as a tokenizer.json that every reader takes as it stands. It is read from there, and an export holds it in place of the folder's.
"""

import contextlib
import json
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import tokenizers
import transformers

from sami_jax.data.shape import read_shaped
from sami_jax.errors import UserError
from sami_jax.ground.terminal import say
from sami_jax.models.files import put_companions, refuse_pointer, tokenizer_files
from sami_jax.models.tokenizer_json import open_end, without_tokens_from

FILE, SETTINGS = "tokenizer.json", "tokenizer_config.json"
# Of SETTINGS, what a tokenizer that is filed anew keeps: how it is asked and shown, not what it makes of a text.
KEPT = (
    "chat_template",
    "chat_control_tokens",
    "clean_up_tokenization_spaces",
    "model_input_names",
    "model_max_length",
    "padding_side",
    "truncation_side",
)
# What classes are known to take apart otherwise than files: numbers, contractions, runs of white space, scripts, marks.
PROBES = (
    "In 2023, 1234567 x 3.14 = ½, ٣٤ and \uff11\uff12!",
    "It's WE'LL I'd don't 'tis they've",
    "a  b   c\td \n\n e\r\n\r\n",
    "  two before, two behind  ",
    "\n\tline",
    "日本語のテキスト。漢字カナ",
    "שלום עולם مرحبا",
    "👩\u200d👩\u200d👧 🎉 é e\u0301 ﬁ Ⅳ Å",
    "def f(x):\n    return x[0] != 'a'  # why?\n",
    "\u00a0\u200b\u2028\ufeff",
    "<a>[b]{c}|d|▁e Ġf ##g @@h",
    " ".join(f"{number:02}" for number in range(100)),
)
# Tokenizers' files that hold no vocabulary.
NO_VOCABULARY = (SETTINGS, "special_tokens_map.json", "added_tokens.json", "merges.txt")
MOST = 5000  # tokens of a vocabulary that are looked at as texts


class Bounded(transformers.PreTrainedTokenizerFast):
    """A tokenizer that knows tokens which its model has not: it refuses a text that holds one."""

    limit = 0  # tokens of the model

    def encode(self, *args, **kwargs) -> list[int]:
        return self._known(super().encode(*args, **kwargs))

    def apply_chat_template(self, *args, **kwargs):
        made = super().apply_chat_template(*args, **kwargs)
        return self._known(made) if isinstance(made, list) else made

    def _known(self, ids: Any) -> Any:
        if beyond := [id for id in ids if id >= self.limit]:
            raise UserError(
                f"a text holds {self.convert_ids_to_tokens(beyond[0])!r}, token {beyond[0]} of the tokenizer; the model has "
                f"{self.limit} tokens: take it out of the text"
            )
        return ids


def load_tokenizer(folder: Path, vocab_size: int) -> tuple[transformers.PreTrainedTokenizerFast, dict[str, str]]:
    """
    Args:
      vocab_size: tokens of the model.
    Returns:
      the tokenizer, and, where it was filed anew, the content of the files by their names.
    Raises:
      UserError: no tokenizer, one that cannot be read or not to the ids of its file, or one of another model.
    """
    _check_files(folder)
    try:
        vocabulary, pieces = _vocabulary(folder), _pieces(folder)
        read, usual = _read(folder)
        own, mended = _by_its_file(folder, read, vocabulary, pieces)
        state = json.loads(own.to_str())
        if state["model"].get("dropout"):
            raise UserError(f"{folder / FILE}: dropout gives a text other ids each time; set model.dropout to null")
        closing = open_end(state)
        if closing:
            say(f"WARNING: {folder}: the tokenizer puts {' '.join(closing)} behind every text; prompts go without")
        beyond = _beyond(folder, own, state, vocab_size)
        if usual and not (mended or closing or beyond):
            read.decode(read.encode("a"))  # some of its settings are not looked at before
            return read, {}
        return _filed_anew(folder, read, state, vocab_size if beyond else None)
    except UserError:
        raise
    except Exception as error:  # tokenizer code raises many types, some from Rust
        raise UserError(_unreadable(folder, _line(error))) from None


def _check_files(folder: Path) -> None:
    """Raises UserError where no file holds a vocabulary, or one is not what its name says."""
    files = tokenizer_files(folder)
    if not any(file.name not in NO_VOCABULARY for file in files):
        raise UserError(
            f"{folder}: no {FILE}, no tokenizer.model and no vocab.json with merges.txt; save the tokenizer into the model folder"
        )
    if {file.name for file in files} - {*NO_VOCABULARY} == {"tekken.json"}:
        raise UserError(
            f"{folder}: of the tokenizer, tekken.json alone, which Mistral's own library reads; download {FILE}, or convert it to one"
        )
    for file in files:
        refuse_pointer(file)
        if file.name in (SETTINGS, "special_tokens_map.json", "added_tokens.json"):
            content = read_shaped(file, {}, "save the tokenizer again")
            if set(content.get("fast_tokenizer_files", [])) - {FILE}:
                raise UserError(f"{file}: fast_tokenizer_files names others than {FILE}; keep one, and call it so")


def _read(folder: Path) -> tuple[transformers.PreTrainedTokenizerFast, bool]:
    """As transformers reads it, and whether it does: a class that it has not, or that is code of the folder's own, is not needed where
    there is a tokenizer.json."""
    try:
        tokenizer = _opened(transformers.AutoTokenizer, folder)
    except Exception as error:
        if not (folder / FILE).is_file():
            raise
        tokenizer = _plain(folder)
        say(
            f"WARNING: {folder}: by its class, transformers cannot read the tokenizer ({_line(error):.80}); {FILE} is followed"
        )
        return tokenizer, False
    # Mistral's own library, where it is installed, gives a tokenizer that has no tokenizer.json.
    return (tokenizer if isinstance(tokenizer, transformers.PreTrainedTokenizerFast) else _plain(folder)), True


def _plain(folder: Path) -> transformers.PreTrainedTokenizerFast:
    """By no class's rules."""
    return _opened(transformers.PreTrainedTokenizerFast, folder)


def _opened(reader: Any, folder: Path) -> Any:
    return reader.from_pretrained(folder, local_files_only=True, trust_remote_code=False)  # nosec B615


# ---- the ids of the file ----


def _pieces(folder: Path) -> Any:
    """What reads the SentencePiece file of a folder that has no tokenizer.json; None where there is none either."""
    files = sorted(folder.glob("*.model"))
    if (folder / FILE).is_file() or not files:
        return None
    import sentencepiece  # few folders need it

    try:
        return sentencepiece.SentencePieceProcessor(model_file=str(files[0]))
    except Exception:  # its own types, and RuntimeError
        raise UserError(
            f"{files[0]}: not a SentencePiece model, but damaged or of another form; download {FILE}, or convert it to one"
        ) from None


def _by_its_file(
    folder: Path, read: transformers.PreTrainedTokenizerFast, vocabulary: dict[str, int], pieces: Any
) -> tuple[tokenizers.Tokenizer, bool]:
    """The tokenizer that gives the ids of the file that holds the vocabulary, and whether `folder` lacks it as it stands.

    Args:
      read: what transformers made of the folder.
      vocabulary: of vocab.json or vocab.txt, where there is no tokenizer.json.
      pieces: a SentencePieceProcessor, where that file is one.
    """
    backend = read.backend_tokenizer
    if (folder / FILE).is_file():
        own = tokenizers.Tokenizer.from_file(str(folder / FILE))
        _check_named(folder, read, own.get_vocab())
        if (text := difference(backend, own)) is None:
            return backend, False
        say(
            f"WARNING: {folder}: {type(read).__name__}, as {SETTINGS} or config.json has it, reads {text!r:.40} otherwise "
            f"than {FILE}, which is followed"
        )
        return _with_named(folder, own), True
    _check_named(folder, read, {})
    if vocabulary and vocabulary.items() <= read.get_vocab().items():
        return backend, True
    if pieces is not None:
        return _by_pieces(folder, read, pieces), True
    if vocabulary:
        raise UserError(_passed_over(folder))
    return backend, True


def difference(one: tokenizers.Tokenizer, own: tokenizers.Tokenizer) -> str | None:
    """A text that `one` reads to other ids than `own`, or spells otherwise; None where none is found."""
    for tokenizer in (one, own):
        tokenizer.no_padding()
        tokenizer.no_truncation()
    added = "".join(f" a{token.content}b {token.content}" for token in own.get_added_tokens_decoder().values())
    ids = sorted(own.get_vocab(with_added_tokens=False).values())
    alone = [[id] for id in ids[:: len(ids) // MOST + 1]]
    spelt = own.decode_batch(alone, skip_special_tokens=False)
    texts = [*PROBES, added, *spelt]
    wanted, found = ([encoding.ids for encoding in tokenizer.encode_batch(texts)] for tokenizer in (own, one))
    for text, ids, others in zip(texts, wanted, found, strict=True):
        if ids != others:
            return text
    respelt = one.decode_batch([*alone, *wanted], skip_special_tokens=False)
    for text, other in zip([*spelt, *own.decode_batch(wanted, skip_special_tokens=False)], respelt, strict=True):
        if text != other:
            return text
    return None


def _check_named(folder: Path, read: transformers.PreTrainedTokenizerFast, filed: Mapping[str, int]) -> None:
    """Raises UserError where the folder's other files give a token that tokenizer.json lacks another id than transformers does.

    Args:
      filed: the tokens of tokenizer.json.
    """
    for name, shape in (
        (SETTINGS, {"added_tokens_decoder?": {str: {"content": str}}}),
        ("added_tokens.json", {str: int}),
    ):
        content = read_shaped(folder / name, shape, "save the tokenizer again") if (folder / name).is_file() else {}
        if name == SETTINGS:
            content = {token["content"]: int(id) for id, token in content.get("added_tokens_decoder", {}).items()}
        for token, id in content.items():
            if token not in filed and (given := read.get_vocab().get(token)) != id:
                raise UserError(
                    f"{folder}: {name} has {token!r} as token {id}, and behind the others it would be {given}; save the tokenizer again"
                )


def _with_named(folder: Path, own: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    """With the tokens that the folder's other files add to tokenizer.json."""
    for _, token in sorted(_plain(folder).added_tokens_decoder.items()):
        if own.token_to_id(token.content) is None:
            own.add_tokens([token])
    return own


def _vocabulary(folder: Path) -> dict[str, int]:
    """Of vocab.json or vocab.txt; empty where there is neither, or a tokenizer.json."""
    file = folder / "vocab.json"
    if (folder / FILE).is_file():
        return {}
    if file.is_file():
        if not (folder / "merges.txt").is_file():
            raise UserError(f"{file}: merges.txt, which belongs to it, is missing; download the model again")
        return read_shaped(file, {str: int}, "save the tokenizer again")
    file = folder / "vocab.txt"
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    return {token: id for id, token in enumerate(lines)}


def _by_pieces(folder: Path, read: transformers.PreTrainedTokenizerFast, own: Any) -> tokenizers.Tokenizer:
    """By the rules of the SentencePiece file, which transformers' classes do not all keep."""
    ids = [
        id for id in range(own.get_piece_size()) if not (own.is_control(id) or own.is_byte(id) or own.is_unknown(id))
    ]
    texts = [*PROBES, *(own.id_to_piece(id).replace("▁", " ") for id in ids[:: len(ids) // MOST + 1])]
    # With "legacy": false, which a folder may ask for, transformers puts no space before a text that begins with one.
    for asked in (texts, [text.lstrip(" ") for text in texts]):
        wanted = own.encode(asked)
        for tokenizer in (read, _plain(folder)):
            backend = tokenizer.backend_tokenizer
            if [encoding.ids for encoding in backend.encode_batch(asked, add_special_tokens=False)] == wanted:
                if tokenizer is not read:
                    say(
                        f"WARNING: {folder}: {type(read).__name__} reads some texts to other ids than tokenizer.model, which is followed"
                    )
                return backend
    raise UserError(
        f"{folder}: transformers reads its *.model to other ids than sentencepiece does; convert it to {FILE}, and compare them"
    )


def _beyond(folder: Path, own: tokenizers.Tokenizer, state: dict, vocab_size: int) -> bool:
    """Whether the tokenizer knows added tokens that the model has not.

    Raises:
      UserError: they are not added ones, or stand before every text: the tokenizer is of another model.
    """
    added = own.get_added_tokens_decoder()
    unknown = {id for id in own.get_vocab(with_added_tokens=True).values() if id >= vocab_size}
    if not unknown:
        return False
    before = tokenizers.Tokenizer.from_str(json.dumps(state)).encode("").ids
    if wrong := [*(unknown - added.keys()), *unknown.intersection(before)]:
        raise UserError(
            f"{folder}: the tokenizer has a token {max(wrong)}, the model only {vocab_size} tokens; they do not belong together"
        )
    return True


# ---- filed anew ----


def _filed_anew(
    folder: Path, read: transformers.PreTrainedTokenizerFast, state: dict, vocab_size: int | None
) -> tuple[transformers.PreTrainedTokenizerFast, dict[str, str]]:
    """The tokenizer as it is read from the files that an export will hold, and these files.

    Args:
      read: what transformers made of `folder`; names the special tokens.
      state: content of tokenizer.json.
      vocab_size: tokens of the model, where the tokenizer knows more; None where it does not.
    """
    state |= {"truncation": None, "padding": None}
    filed = state if vocab_size is None else without_tokens_from(state, vocab_size)
    own = tokenizers.Tokenizer.from_str(json.dumps(filed))
    settings = _settings(folder, read, own)
    files = {FILE: own.to_str(pretty=True), SETTINGS: json.dumps(settings, indent=2, ensure_ascii=False) + "\n"}
    with _folder_with(folder, files) as served:
        tokenizer = _opened(transformers.AutoTokenizer, served)
        if (text := difference(tokenizer.backend_tokenizer, own)) is not None:
            raise UserError(
                f"{folder}: transformers reads a model of this config.json by {type(tokenizer).__name__}, whatever {SETTINGS} says, "
                f"and {text!r:.40} to other ids than {FILE}; take a {FILE} of that class"
            )
        if vocab_size is not None:
            (served / FILE).write_text(json.dumps(state), encoding="utf-8")
            tokenizer = _opened(Bounded, served)
            tokenizer.limit = vocab_size
    tokenizer.name_or_path = str(folder)
    return tokenizer, files


def _settings(folder: Path, read: transformers.PreTrainedTokenizerFast, own: tokenizers.Tokenizer) -> dict:
    """Content of tokenizer_config.json for a tokenizer that is read as its tokenizer.json stands."""
    file = folder / SETTINGS
    old = read_shaped(file, {}, "save the tokenizer again") if file.is_file() else {}
    named = {name: token for name, token in read.special_tokens_map.items() if isinstance(token, str)}
    known = {name: token for name, token in named.items() if own.token_to_id(token) is not None}
    if "pad_token" in named and "eos_token" in known:
        known.setdefault("pad_token", known["eos_token"])
    # The name that transformers 4 knows and 5 reads as well.
    return {name: old[name] for name in KEPT if name in old} | known | {"tokenizer_class": "PreTrainedTokenizerFast"}


@contextlib.contextmanager
def _folder_with(folder: Path, files: dict[str, str]) -> Iterator[Path]:
    """A passing folder with these files in place of a model folder's tokenizer."""
    with tempfile.TemporaryDirectory() as served:
        put_companions(folder, Path(served), files)
        yield Path(served)


def _unreadable(folder: Path, reason: str) -> str:
    if missing := re.search(r"(?:pip install |No module named )['`]?([\w-]+)", reason):
        return f"{folder}: its tokenizer needs a package that is not installed: pip install {missing[1]}, or save it as {FILE}"
    if _vocabulary(folder):
        return _passed_over(folder)
    file = folder / FILE
    return f"{file if file.is_file() else folder}: the tokenizer cannot be read ({reason:.160}); save it again"


def _passed_over(folder: Path) -> str:
    return (
        f"{folder}: the class that transformers takes for this folder does not read vocab.json or vocab.txt; name the tokenizer's "
        f"own in {SETTINGS}, or save it as {FILE}"
    )


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
