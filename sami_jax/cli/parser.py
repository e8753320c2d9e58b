"""The parser of the whole command line."""

import argparse

from sami_jax.cli import (
    completion,
    desk,
    doctor,
    importing,
    planning,
    principles,
    proof,
    pushing,
    studying,
    verbs,
    watching,
)
from sami_jax.cli.options import Parser
from sami_jax.ground.version import VERSION

# The verbs as `sami --help` shows them, in the order in which they are wanted.
GROUPS = {
    "prepare": ("doctor", "import", "principles", "desk", "plan", "completion"),
    "train": ("run", "train", "study"),
    "use": ("sample", "score", "export", "push"),
    "prove": ("evaluate", "compare", "judge", "rate", "winrate", "rank", "explain"),
    "account for it": ("verify", "report"),
    "after the launch": ("watch",),
}


def new_parser() -> Parser:
    parser = Parser(
        prog="sami",
        usage="sami VERB [options]",
        description="Teach a language model to follow written principles, without labels.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"sami_jax {VERSION}")
    sub = parser.add_subparsers(
        dest="verb", required=True, metavar="VERB", parser_class=Parser, prog="sami", help=argparse.SUPPRESS
    )
    verbs.add_verbs(sub)
    studying.add_verbs(sub)
    planning.add_verbs(sub)
    proof.add_verbs(sub)
    principles.add_verbs(sub)
    desk.add_verbs(sub)
    doctor.add_verbs(sub)
    completion.add_verbs(sub, parser)
    pushing.add_verbs(sub)
    importing.add_verbs(sub)
    watching.add_verbs(sub)
    lines = []
    for title, names in GROUPS.items():
        lines += [f"{title}:", *(f"  {name:<11} {sub.choices[name].description}" for name in names), ""]
    parser.epilog = "\n".join([*lines, "sami VERB --help: every option of a verb, with an example"])
    return parser
