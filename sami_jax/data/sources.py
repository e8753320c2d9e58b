"""Where queries stand: a file, a folder laid out like a hub's dataset, or a dataset on the Hugging Face hub."""

import dataclasses
import os
import re
from pathlib import Path

from ml_collections import ConfigDict

from sami_jax.errors import UserError
from sami_jax.ground.paths import path_of

HUB = "hub:"
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SPLIT = re.compile(r"\w+(\.\w+)*", re.ASCII)


@dataclasses.dataclass(frozen=True)
class Source:
    """One set of queries."""

    place: str  # path, or hub:OWNER/NAME
    column: str = ""  # of the query; "" takes the first known one
    id_column: str = "id"
    subset: str = ""  # of a folder or hub dataset
    split: str = "train"  # likewise
    revision: str = ""  # commit of a hub dataset

    def __post_init__(self):
        """
        Raises:
          UserError: a hub dataset without a commit.
        """
        if self.repository and not _COMMIT.fullmatch(self.revision):
            raise UserError(
                f"{self.place}: revision {self.revision!r} is no commit (40 hex digits); hub datasets are read at one alone, which a "
                "run's config names in config.data.revision"
            )

    @property
    def repository(self) -> str:
        """OWNER/NAME of a hub dataset; "" elsewhere."""
        return self.place.removeprefix(HUB) if self.place.startswith(HUB) else ""


def sources(data: ConfigDict) -> dict[str, Source]:
    """What a run's `data` names, by field: "queries" and, if it is set to another place, "eval_queries"."""
    shared = {name: data[name] for name in ("column", "id_column", "subset", "revision")}
    splits = {"queries": data.split, "eval_queries": data.eval_split}
    named = {name: Source(_place(data[name]), split=split, **shared) for name, split in splits.items() if data[name]}
    if one_file(data):
        del named["eval_queries"]
    return {name: one if one.repository else dataclasses.replace(one, revision="") for name, one in named.items()}


def _place(given: str) -> str:
    return given if given.startswith(HUB) else str(path_of(given))


def one_file(data: ConfigDict) -> bool:
    """Whether one file is named both to train on and to evaluate on, by whatever names."""
    own = _place(data.queries)
    return bool(data.eval_queries) and os.path.isfile(own) and _same(own, _place(data.eval_queries))


def check_sources(data: ConfigDict, judged: bool) -> None:
    """Checks what can be checked without reading anything.

    Args:
      judged: whether a judge tells how well the queries to evaluate on are answered. Without one, a file that is named for both
        is taken as if it was named once.
    Raises:
      UserError: names the field, its value, and what it may be.
    """

    def check(field: str, holds: bool, wanted: str) -> None:
        if not holds:
            raise UserError(f"config.data.{field}={data[field]!r}: must be {wanted}")

    for field in ("split", "eval_split"):
        check(field, bool(_SPLIT.fullmatch(data[field])), "the name of a split, such as train")
    subset = Path(data.subset)
    check("subset", not subset.is_absolute() and ".." not in subset.parts, "a name, or a folder inside the dataset")
    on_hub = [field for field in ("queries", "eval_queries") if data[field].startswith(HUB)]
    for field in on_hub:
        check(field, bool(_REPOSITORY.fullmatch(data[field].removeprefix(HUB))), f"{HUB}OWNER/NAME")
        pinned = "the commit (40 hex digits) of the hub dataset to read: names such as 'main' can move"
        check("revision", bool(_COMMIT.fullmatch(data.revision)), pinned)
    check("revision", bool(on_hub) or not data.revision, f"'' where no dataset on the hub ({HUB}OWNER/NAME) is read")
    if len(on_hub) == 2:
        same = data.eval_queries == data.queries
        check("eval_queries", same, "the dataset of data.queries, whose revision it shares; fetch others to a folder")
    if one_file(data):
        wanted = "another file than data.queries, or '', which holds out the last data.eval_fraction of it"
        check("eval_queries", not judged, wanted)
    elif data.eval_queries and _same(_place(data.queries), _place(data.eval_queries)):
        check(
            "eval_split",
            data.eval_split != data.split,
            "another than data.split, where both are of one dataset: queries trained on would be evaluated on",
        )


def _same(one: str, other: str) -> bool:
    """Whether two places are one, by whatever names."""
    try:
        return one == other or os.path.samefile(one, other)
    except (OSError, ValueError):  # one of them is no path here
        return False
