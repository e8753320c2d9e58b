"""Which files of a Hugging Face folder are the model's. What else lies there, as a download's books, a training's adapters or an
optimizer's state, is neither read nor compared nor copied."""

import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from sami_jax.data.shape import read_shaped
from sami_jax.errors import UserError
from sami_jax.models.tensors import INDEX_FILE, SINGLE_FILE

# Beside weights: what transformers and servers read of a model of texts.
TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "tekken.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "*.model",
    "*.tiktoken",
)
COMPANIONS = (
    *TOKENIZER,
    "config.json",
    "generation_config.json",
    "chat_template.json",
    "chat_template.jinja",
    "additional_chat_templates/*.jinja",
)
_POINTER = b"version https://git-lfs.github.com/spec/"


def weight_files(folder: Path) -> list[Path]:
    """Those that transformers loads: one file where it is there, whatever an index of an older save says; else the index's.

    Raises:
      UserError: pickled weights, which can run code; no weights; an index that cannot be read; weights of another name, which
        transformers loads where config.json has it.
    """
    single, index, config = folder / SINGLE_FILE, folder / INDEX_FILE, folder / "config.json"
    named = config.is_file() and read_shaped(config, {}, "export the model again").get("transformers_weights")
    if named and named not in (SINGLE_FILE, INDEX_FILE):
        raise UserError(f"{config}: transformers_weights names {named!r:.60}; give the weights as {SINGLE_FILE}")
    if single.is_file() and named != INDEX_FILE:
        return [single]
    if index.is_file():
        names = read_shaped(index, {"weight_map": {str: str}}, "download the model again")["weight_map"].values()
        return [folder / name for name in sorted(set(names))]
    raise UserError(f"{folder}: no {SINGLE_FILE} and no {INDEX_FILE}{_what_else(folder)}")


def _what_else(folder: Path) -> str:
    """What of weights a folder holds that has no file by the name that is looked for, and what to do."""
    names = sorted(file.name for file in folder.iterdir())
    if parts := [name for name in names if re.fullmatch(r"model-\d+-of-\d+\.safetensors", name)]:
        return f", which says what parts as {parts[0]} hold; download it too"
    if "consolidated.safetensors" in names:
        return ", but consolidated.safetensors, in Mistral's own layout; download the model in Hugging Face format"
    if any(name.endswith((".bin", ".pt", ".pth")) for name in names):
        return ", and pickled weights are not loaded, they can run code; save the model as safetensors"
    if variants := [name for name in names if name.startswith("model.") and name.endswith(".safetensors")]:
        return f", but {variants[0]}; rename it if it is the model"
    return "; give a folder with safetensors weights"


def companion_files(folder: Path) -> list[Path]:
    """What a folder holds of COMPANIONS."""
    return _held(folder, COMPANIONS)


def tokenizer_files(folder: Path) -> list[Path]:
    """What a folder holds of TOKENIZER."""
    return _held(folder, TOKENIZER)


def put_companions(source: Path, output: Path, tokenizer: Mapping[str, str] | None = None) -> None:
    """Copies to a folder what `source` holds of COMPANIONS.

    Args:
      tokenizer: the content of files by their names, in place of all that `source` holds of TOKENIZER; None or empty: copies.
    """
    left_out = tokenizer_files(source) if tokenizer else []
    for file in companion_files(source):
        if file not in left_out:
            target = output / file.relative_to(source)
            target.parent.mkdir(exist_ok=True)
            shutil.copyfile(file, target)
    for name, content in (tokenizer or {}).items():
        (output / name).write_text(content, encoding="utf-8")


def check_replaceable(output: Path) -> None:
    """Raises UserError where a new model folder would take the place of something else."""
    if output.exists() and not (output / "config.json").is_file():
        raise UserError(f"{output}: holds no model that could be replaced; give a folder that is not there yet")


def refuse_pointer(file: Path) -> None:
    """Raises UserError where git's large-file storage left a note in place of the file."""
    with open(file, "rb") as stream:
        if stream.read(len(_POINTER)) == _POINTER:
            raise UserError(
                f"{file}: not the file itself but a note of git-lfs; run `git lfs pull`, or download the model again"
            )


def _held(folder: Path, names: Sequence[str]) -> list[Path]:
    found = (file for name in names for file in folder.glob(name))
    return sorted(file for file in found if file.is_file())


def model_files(folder: Path) -> list[Path]:
    """All that is read of a model: weights, the index where they have one, and companions."""
    weights = weight_files(folder)
    index = [] if weights == [folder / SINGLE_FILE] else [folder / INDEX_FILE]
    return [*weights, *index, *companion_files(folder)]
