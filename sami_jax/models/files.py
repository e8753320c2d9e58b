"""Which files of a Hugging Face folder are the model's. What else lies there, as a download's books, a training's adapters or an
optimizer's state, is neither read nor compared nor copied."""

from pathlib import Path

from sami_jax.data.shape import read_shaped
from sami_jax.errors import UserError
from sami_jax.models.tensors import INDEX_FILE, SINGLE_FILE

# Beside weights: what transformers and servers read of a model of texts.
COMPANIONS = (
    "config.json",
    "generation_config.json",
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
    "chat_template.json",
    "chat_template.jinja",
    "additional_chat_templates/*.jinja",
)


def weight_files(folder: Path) -> list[Path]:
    """Those that transformers loads: one file where it is there, whatever an index of an older save says; else the index's.

    Raises:
      UserError: pickled weights, which can run code; no weights; an index that cannot be read.
    """
    single, index = folder / SINGLE_FILE, folder / INDEX_FILE
    if single.is_file():
        return [single]
    if index.is_file():
        names = read_shaped(index, {"weight_map": {str: str}}, "download the model again")["weight_map"].values()
        return [folder / name for name in sorted(set(names))]
    if any(file.suffix in (".bin", ".pt", ".pth") for file in folder.iterdir()):
        raise UserError(f"{folder}: pickled weights are not loaded, they can run code; save the model as safetensors")
    raise UserError(f"{folder}: no {SINGLE_FILE} and no {INDEX_FILE}; give a folder with safetensors weights")


def companion_files(folder: Path) -> list[Path]:
    """What a folder holds of COMPANIONS."""
    found = (file for name in COMPANIONS for file in folder.glob(name))
    return sorted(file for file in found if file.is_file())


def model_files(folder: Path) -> list[Path]:
    """All that is read of a model: weights, the index where they have one, and companions."""
    weights = weight_files(folder)
    index = [] if weights == [folder / SINGLE_FILE] else [folder / INDEX_FILE]
    return [*weights, *index, *companion_files(folder)]
