"""`sami push`: its options, and what it prints."""

import argparse

from sami_jax.cli.options import add_verb, any_path, tell_programs, with_results
from sami_jax.errors import UserError


def add_verbs(verbs) -> None:
    push = add_verb(
        verbs,
        "push",
        _push,
        "a model folder to the Hugging Face hub, with its card",
        "sami push runs/tiny/iteration_3/model --to my-team/greeter --private --dry_run",
    )
    push.add_argument("folder", type=any_path, help="model folder in Hugging Face format")
    push.add_argument(
        "--to", required=True, metavar="OWNER/NAME", help="the hub's repository; made where there is none"
    )
    push.add_argument("--private", action="store_true", help="for the owner alone; a public repository is refused")
    push.add_argument("--dry_run", action="store_true", help="check and list what would be sent; no network, no token")
    with_results(push)


def _push(arguments: argparse.Namespace) -> None:
    import dataclasses

    from sami_jax.export.push import CARD, REPOSITORY, model_files, push
    from sami_jax.ground.terminal import say, show

    folder = arguments.folder
    if not REPOSITORY.fullmatch(arguments.to) or ".." in arguments.to or "--" in arguments.to:
        raise UserError(f"--to {arguments.to!r}: must be OWNER/NAME of letters, digits, '-', '_' and '.'")
    files = model_files(folder)
    card = (folder / CARD).read_text(encoding="utf-8", errors="replace") if (folder / CARD).is_file() else None
    told = {"repository": arguments.to, "private": arguments.private, "dry_run": arguments.dry_run}
    told |= {"files": [dataclasses.asdict(file) for file in files]}
    if card is None:
        say(f"WARNING: {folder} has no model card, {CARD}: who finds the model learns nothing of its principles")
    if arguments.dry_run:
        tell_programs(arguments, told | {"card": card})
        _show_files(files)
        show(f"Nothing was sent. The card:\n\n{card}" if card else "Nothing was sent.")
        return
    url = push(folder, files, arguments.to, arguments.private)
    tell_programs(arguments, told | {"url": url})
    show(f"{len(files)} files, {_size(sum(file.bytes for file in files))}: {url}")


def _show_files(files) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from sami_jax.export.push import RECORDED
    from sami_jax.ground.terminal import cell, show_table

    table = Table(box=box.SIMPLE_HEAD, show_footer=True)
    table.add_column("file", "together", overflow="fold")
    table.add_column("size", _size(sum(file.bytes for file in files)), justify="right", no_wrap=True)
    table.add_column("state", overflow="fold")
    for file in files:
        style = "" if file.state == RECORDED else "yellow"
        table.add_row(cell(file.name), _size(file.bytes), Text(file.state, style))
    show_table(table)


def _size(nbytes: int) -> str:
    for unit, name in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if nbytes >= unit:
            return f"{nbytes / unit:.1f} {name}"
    return f"{nbytes} bytes"
