"""Datasets on the Hugging Face hub, and folders that are laid out like one. `datasets` tells which files a split is made of.

A dataset is fetched at one commit, into the hub's cache, and found there again without a network. `datasets` itself is never asked
for one by name: where the hub cannot be reached, it takes whatever revision it finds. No script is fetched, and none is run.
"""

import os
import sys
from pathlib import Path
from typing import Any

from sami_jax.data.rows import HUB
from sami_jax.data.sources import Source
from sami_jax.errors import UserError
from sami_jax.ground.terminal import say

KINDS = (".jsonl", ".json", ".csv", ".parquet")  # of files that are read; .gz may follow
# What is fetched: those, and what may say which of them make a split.
FETCHED = [*(f"*{kind}{end}" for kind in KINDS for end in ("", ".gz")), "README.md", ".huggingface.yaml"]


def fetch(source: Source) -> Path:
    """The folder of a hub dataset at `source.revision`, fetched unless this machine has it.

    Raises:
      UserError: it cannot be had.
    """
    import huggingface_hub
    from huggingface_hub import errors
    from huggingface_hub.utils import disable_progress_bars, logging

    logging.set_verbosity_error()  # else it tells of each try
    if not sys.stderr.isatty():
        disable_progress_bars()
    name, revision = source.repository, source.revision
    say(f"{source.place}: revision {revision}, from the hub or from this machine's cache of it")
    try:
        return Path(
            huggingface_hub.snapshot_download(name, repo_type="dataset", revision=revision, allow_patterns=FETCHED)
        )
    except errors.RevisionNotFoundError:
        raise UserError(
            f"{source.place}: has no commit {revision}; copy one from 'Files and versions' on the dataset's page"
        ) from None
    except errors.RepositoryNotFoundError:
        raise UserError(
            f"{source.place}: no such dataset on the hub, or none that you may read; check the name, or log in with `hf auth login`"
        ) from None
    except FileNotFoundError:  # the hub's own errors of files that are not in its cache, or not all of them
        raise UserError(
            f"{source.place}: the hub cannot be reached (or HF_HUB_OFFLINE is set), and revision {revision} is not whole in this "
            "machine's cache; fetch it where there is a network, or give a folder with its files"
        ) from None
    except errors.HfHubHTTPError as error:
        raise UserError(f"{source.place}: the hub refuses ({_first_line(error)}); try again later") from None


def split_files(folder: Path, source: Source) -> list[Path]:
    """The files of a split, in the dataset's order.

    Raises:
      UserError: no such subset or split, no data, or files that are not read here.
    """
    try:
        import datasets
    except ImportError:
        raise UserError(f"{source.place}: folders and hub datasets need the datasets package: {HUB}") from None
    datasets.disable_progress_bars()
    # Absolute, else a folder called "csv", or one that is not there, would be something else.
    root = Path(os.path.abspath(folder))
    try:
        names = datasets.get_dataset_config_names(str(root))
        chosen = _subset(root, source, names)
        builder = datasets.load_dataset_builder(str(root), **chosen)
        splits = {
            str(split): [Path(file) for file in files] for split, files in (builder.config.data_files or {}).items()
        }
    except UserError:
        raise
    except Exception as error:  # of many kinds: the content of the folder is anybody's
        raise UserError(f"{source.place}: not readable as a dataset ({_first_line(error)}); mend the folder") from None
    if source.split not in splits:
        raise UserError(f"{source.place}: no split {source.split!r}; there are: {', '.join(splits)}")
    files = [Path(os.path.abspath(file)) for file in splits[source.split]]
    for file in files:
        if not file.is_relative_to(root):
            raise UserError(f"{source.place}: its split {source.split!r} leads out of the dataset, to {file}; mend it")
        if not file.name.removesuffix(".gz").endswith(KINDS):
            raise UserError(f"{source.place}: {file.name} is of a kind that is not read; give {', '.join(KINDS)} files")
    return files


def _subset(root: Path, source: Source, names: list[str]) -> dict[str, Any]:
    """How `datasets` is told which subset: a configuration's name, or a folder."""
    if source.subset in names:
        return {"name": source.subset}
    if source.subset and (root / source.subset).is_dir():
        return {"data_dir": source.subset}
    if source.subset or len(names) > 1:
        raise UserError(
            f"config.data.subset={source.subset!r}: {source.place} has the subsets {', '.join(names)}; name one, or a folder in it"
        )
    return {}


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
