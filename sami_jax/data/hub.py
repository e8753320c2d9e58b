"""Datasets on the Hugging Face hub, and folders that are laid out like one. `datasets` tells which files a split is made of.

A dataset is fetched at one commit, into the hub's cache, and found there again without a network. `datasets` itself is never asked
for one by name: where the hub cannot be reached, it takes whatever revision it finds. No script is fetched, and none is run.
"""

import glob
import os
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from sami_jax.data.content import HUB, PACKED, kind_of
from sami_jax.data.sources import Source
from sami_jax.errors import UserError
from sami_jax.ground.disk import hidden
from sami_jax.ground.terminal import say

# Suffixes of files that are read, by kind; one of PACKED may follow.
KINDS = {
    ".jsonl": "json",
    ".json": "json",
    ".ndjson": "json",
    ".csv": "csv",
    ".tsv": "csv",
    ".tab": "csv",
    ".parquet": "parquet",
}
BOOKS = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json")  # of `datasets`, no data
CARDS = ("README.md", ".huggingface.yaml")  # may say which files make a split
FETCHED = [*(f"*{spelled}{end}" for kind in KINDS for end in ("", *PACKED) for spelled in (kind, kind.upper())), *CARDS]


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
    if huggingface_hub.constants.HF_HUB_CACHE.startswith("~"):
        raise UserError(f"{source.place}: no home folder is known to keep it in; set HF_HOME to a folder")
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


def split_files(folder: Path, source: Source) -> tuple[list[Path], list[str]]:
    """The files of a split, in the dataset's order, and what else there is that looks like data but is not read.

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
        splits = _by_card(root, source) if _names_files(root) else _by_names(root, source)
    except UserError:
        raise
    except Exception as error:  # of many kinds: the content of the folder is anybody's
        raise UserError(f"{source.place}: not readable as a dataset ({_first_line(error)}); mend the folder") from None
    if source.split not in splits:
        raise UserError(f"{source.place}: no split {source.split!r}; there are: {', '.join(splits)}")
    files, others = _of_one_kind(splits[source.split])
    for file in files:
        if not file.is_relative_to(root):
            raise UserError(f"{source.place}: its split {source.split!r} leads out of the dataset, to {file}; mend it")
    if not files:
        raise UserError(
            f"{source.place}: {others[0].name} is of a kind that is not read; give {', '.join(KINDS)} files"
        )
    if not source.repository:  # a hub's dataset is whole: what is in no split is meant to be in none
        named = {file for of_split in splits.values() for file in of_split}
        others += [file for file in _data_below(root / source.subset) if file not in named]
    return files, [_listed(root, others)] if others else []


def _names_files(root: Path) -> bool:
    """Whether the dataset's card says which files make a split."""
    from huggingface_hub import metadata_load

    card, bare = (root / name for name in CARDS)
    return bare.is_file() or (card.is_file() and "configs" in (metadata_load(card) or {}))


def _by_card(root: Path, source: Source) -> dict[str, list[Path]]:
    """The splits that the dataset's card names."""
    import datasets

    with tempfile.TemporaryDirectory() as own:  # its own place to write to may be missing
        shown = root
        if glob.has_magic(str(root)):  # `datasets` would take its path for a pattern
            shown = Path(own).resolve() / "data"
            _show_elsewhere(root, shown)
        names = datasets.get_dataset_config_names(str(shown))
        builder = datasets.load_dataset_builder(str(shown), cache_dir=own, **_subset(shown, source, names))
    splits = _paths(builder.config.data_files or {})
    return {
        split: [Path(os.path.normpath(root / os.path.relpath(file, shown))) for file in files]
        for split, files in splits.items()
    }


def _show_elsewhere(folder: Path, root: Path) -> None:
    """Links to the files: `datasets` would follow one to the folder."""
    for place, _, names in os.walk(folder, followlinks=True):
        here = root / Path(place).relative_to(folder)
        here.mkdir()
        for name in names:
            (here / name).symlink_to(Path(place, name))


def _by_names(root: Path, source: Source) -> dict[str, list[Path]]:
    """The splits that the names of files and folders tell."""
    from datasets import data_files

    below = root / _subset(root, source, ["default"]).get("data_dir", "")
    base = glob.escape(str(below))  # `datasets` takes it for the beginning of a pattern
    patterns = data_files.get_data_patterns(base)
    splits = _paths(data_files.DataFilesDict.from_patterns(patterns, base_path=base))
    with_data = {split: files for split, files in splits.items() if any(map(_kind, files))}
    return with_data or ({"train": data} if (data := _data_below(below)) else splits)


def _paths(data_files: dict) -> dict[str, list[Path]]:
    return {str(split): [Path(os.path.abspath(file)) for file in files] for split, files in data_files.items()}


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


def _kind(file: Path) -> str | None:
    return None if file.name in BOOKS else KINDS.get(kind_of(file.name))


def _of_one_kind(files: list[Path]) -> tuple[list[Path], list[Path]]:
    """The files of the kind that most are of, as `datasets` takes them, and the others."""
    kinds = Counter(kind for file in files if (kind := _kind(file)))
    chosen = [file for file in files if _kind(file) == kinds.most_common(1)[0][0]] if kinds else []
    return chosen, [file for file in files if file not in chosen]


def _data_below(folder: Path) -> list[Path]:
    """The files of data below a folder, but for hidden ones."""
    return [
        file
        for file in sorted(folder.rglob("*"))
        if _kind(file) and file.is_file() and not hidden(file.relative_to(folder))
    ]


def _listed(root: Path, files: list[Path]) -> str:
    names = [os.path.relpath(file, root) for file in files]
    return ", ".join(names[:4]) + f" and {len(names) - 4} more" * (len(names) > 4)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
