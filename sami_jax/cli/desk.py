"""`sami desk`: pages on which people decide, rate, and follow runs."""

import argparse

from sami_jax.cli.options import add_verb, any_path
from sami_jax.errors import UserError

PORT = 8700


def add_verbs(verbs) -> None:
    desk = add_verb(
        verbs,
        "desk",
        _desk,
        "pages to decide about principles, rate pairs, follow runs",
        "sami desk --principles principles --ratings ratings --runs runs",
    )
    desk.add_argument("--principles", type=any_path, metavar="DIR", help="of principle files")
    desk.add_argument("--ratings", type=any_path, metavar="DIR", help="that `sami rate export` wrote")
    desk.add_argument("--verdicts", type=any_path, metavar="FILE", help="a judge's on the same pairs")
    desk.add_argument("--runs", type=any_path, metavar="DIR", help="in which run folders are")
    desk.add_argument("--model", type=any_path, metavar="DIR", help="a model folder, to be asked about principles")
    desk.add_argument("--port", type=int, default=PORT, help=f"default {PORT}; 0 takes any that is free")
    desk.add_argument(
        "--host",
        metavar="ADDRESS",
        help="listen there, for others too, who get in by a token; default: this machine alone",
    )


def _desk(arguments: argparse.Namespace) -> None:
    if not (arguments.principles or arguments.ratings or arguments.runs):
        raise UserError("nothing to show; give --principles, --ratings or --runs")
    if arguments.verdicts and not arguments.ratings:
        raise UserError("--verdicts: give --ratings too, the pairs that they are on")
    if arguments.model and not arguments.principles:
        raise UserError("--model: give --principles too, which it is asked about")

    from sami_jax.desk.pages import Places
    from sami_jax.desk.serve import serve
    from sami_jax.evaluation.verdicts import read_verdicts
    from sami_jax.principles.files import principle_files

    if arguments.principles:
        principle_files(arguments.principles)
    if arguments.verdicts:
        read_verdicts(arguments.verdicts)
    if arguments.model:
        from sami_jax.models.pretrained import open_model

        open_model(arguments.model)
    names = ("principles", "ratings", "runs", "verdicts", "model")
    serve(Places(**{name: getattr(arguments, name) for name in names}), arguments.host, arguments.port)
