"""The parser of the whole command line, and what its verbs share."""

import argparse
from collections.abc import Callable


class Parser(argparse.ArgumentParser):
    """Errors in one line, without the usage text."""

    def error(self, message: str):
        self.exit(2, f"sami: {message}; see `{self.prog} --help`\n")


def new_parser() -> Parser:
    from sami_jax.cli import planning, principles, proof, verbs

    parser = Parser(prog="sami", description="Teach a language model to follow written principles, without labels.")
    sub = parser.add_subparsers(dest="verb", required=True, metavar="VERB", parser_class=Parser)
    verbs.add_verbs(sub)
    planning.add_verbs(sub)
    proof.add_verbs(sub)
    principles.add_verbs(sub)
    return parser


def add_verb(sub, name: str, call: Callable | None, summary: str, example: str) -> Parser:
    """Adds a verb whose help ends in an example.

    Args:
      call: takes the parsed arguments; None for a verb that has verbs of its own.
    """
    parser = sub.add_parser(
        name,
        help=summary,
        description=summary,
        epilog=f"example: {example}",
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(call=call)
    return parser


def with_config(sub: argparse.ArgumentParser) -> None:
    """Lets a verb take --config and its overrides."""
    sub.add_argument(
        "--config",
        default="tiny",
        metavar="NAME|FILE[:ARG]",
        help="a config by name or file; change fields with --config.FIELD=VALUE",
    )


def with_endpoint(sub: argparse.ArgumentParser) -> None:
    """Lets a verb ask a model behind a server."""
    sub.add_argument("--endpoint", metavar="URL", help="base URL of a server that speaks the OpenAI protocol")
    sub.add_argument(
        "--api", choices=("chat", "completions"), default="chat", help="of the endpoint; completions for base models"
    )
    sub.add_argument(
        "--key_variable", default="OPENAI_API_KEY", metavar="NAME", help="environment variable that holds the key"
    )
    sub.add_argument("--timeout", type=float, default=120.0, help="seconds a request may take")
