"""Texts that name places."""

import os
from pathlib import Path

from sami_jax.errors import UserError


def path_of(place: str | os.PathLike[str]) -> Path:
    """The path that a user's text means: itself, but for a home folder at its beginning (`~`, `~name`), which shells put in place
    only where a word begins with it. A name that the locale cannot spell is spelled in UTF-8, as on disk.

    Raises:
      UserError: no such home folder.
    """
    text = os.fspath(place)
    if text.startswith("~"):
        name = text.partition("/")[0]
        home = os.path.expanduser(name)
        if home.startswith("~"):  # HOME is not set, and the system has no entry of the user
            raise UserError(f"{text}: no home folder is known for {name}; write the path in full")
        text = home + text.removeprefix(name)
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        text = os.fsdecode(text.encode("utf-8", "surrogateescape"))
    return Path(text)


def may_be_written(place: Path) -> bool:
    """Whether a folder is one that may be written to, or may be made."""
    try:
        there = next(one for one in (place, *place.absolute().parents) if os.path.exists(one))
    except OSError:  # the folder we are in is gone
        return False
    return os.path.isdir(there) and os.access(there, os.W_OK)
