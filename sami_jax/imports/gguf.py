"""`sami import`: a GGUF file to a Hugging Face model folder, which appears whole or not at all."""

import contextlib
import os
import shutil
from pathlib import Path
from typing import NamedTuple

from sami_jax.data.jsonl import write_json, write_text
from sami_jax.errors import UserError
from sami_jax.ground.digests import file_digest
from sami_jax.ground.disk import check_space
from sami_jax.ground.display import doing
from sami_jax.imports.card import card
from sami_jax.imports.header import read_header
from sami_jax.imports.shape import read_shape
from sami_jax.imports.tokenizer import read_tokenizer
from sami_jax.imports.weights import common_dtype, planned, write_weights
from sami_jax.models.files import check_replaceable
from sami_jax.models.pretrained import GENERATION, open_model
from sami_jax.models.tensors import SINGLE_FILE


class Imported(NamedTuple):
    architecture: str
    weights: int  # how many
    dtype: str
    sha256: str  # of the file


def import_gguf(file: Path, output: Path) -> Imported:
    """Writes the folder, opens it as every verb will, and only then puts it in its place.

    Raises:
      UserError: what is not known of the file, or does not fit; a folder that is there and holds no model; a disk without room.
    """
    check_replaceable(output)
    try:
        import gguf  # noqa: F401 - without it, none of the rest
    except ImportError:
        raise UserError("GGUF files need the gguf package: pip install 'sami_jax[gguf]'") from None
    header = read_header(file)
    config = read_shape(file, header)
    read = read_tokenizer(file, header.metadata)
    plan = planned(file, header, config)
    partial = output.with_name(output.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        check_space(partial, sum(one.nbytes for one in plan.values()), "the model")
        with doing(f"reading {file}"):
            digest = file_digest(file)
            made = config.to_hf() | read.ids | {"dtype": common_dtype(plan)}
            write_json(partial / "config.json", made)
            write_json(partial / GENERATION, read.ids)
            # The name that transformers 4 and 5 read: tokenizer.json as it stands, by the rules of no class.
            settings = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
            write_json(
                partial / "tokenizer_config.json", settings | read.settings | {"model_max_length": config.max_positions}
            )
            write_text(partial / "tokenizer.json", read.tokenizer.to_str(pretty=True) + "\n")
            write_text(partial / "README.md", card(file, header, config, digest))
            write_weights(file, plan, partial / SINGLE_FILE)
        with doing(f"opening {output}"), _told_of(file, partial):
            open_model(partial)
        shutil.rmtree(output, ignore_errors=True)
        os.rename(partial, output)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return Imported(
        config.family, sum(one.nbytes // one.stored[0].itemsize for one in plan.values()), made["dtype"], digest
    )


@contextlib.contextmanager
def _told_of(file: Path, folder: Path):
    """Complaints about the folder, which is gone when they are read, are of the file that it was made from."""
    try:
        yield
    except UserError as error:
        raise UserError(str(error).replace(str(folder), str(file))) from None
