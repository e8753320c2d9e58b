"""`sami completion`: what a shell needs to complete verbs, options and paths."""

import argparse
import functools

from sami_jax.cli.options import add_verb, any_path, new_file, new_folder

SHELLS = ("bash", "zsh", "tcsh")


def add_verbs(verbs, whole: argparse.ArgumentParser) -> None:
    """
    Args:
      whole: the parser that is completed, with all its verbs once it is used.
    """
    completion = add_verb(
        verbs,
        "completion",
        functools.partial(_completion, whole),
        "completion of verbs, options and paths for your shell",
        'eval "$(sami completion bash)"',
    )
    completion.add_argument("shell", choices=SHELLS)


def _completion(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    import shtab

    for action in _actions(parser):
        if action.type in (any_path, new_file, new_folder):
            setattr(action, "complete", shtab.FILE)  # noqa: B010 - as shtab wants it
        if isinstance(action.choices, dict):
            action.help = "verb"  # shtab passes over what help leaves out
    print(shtab.complete(parser, arguments.shell))


def _actions(parser: argparse.ArgumentParser):
    for action in parser._actions:
        yield action
        if isinstance(action.choices, dict):
            for sub in action.choices.values():
                yield from _actions(sub)
