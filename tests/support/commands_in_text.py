"""Commands that stand in the documentation: in blocks, in sentences, in tables."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from sami_jax.cli.parser import new_parser
from sami_jax.config import load_config
from sami_jax.config.checks import validate

ROOT = Path(__file__).parents[2]
LANGUAGES = ("sh", "text", "bibtex", "json", "yaml", "math", "python")
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)


def blocks(text: str) -> dict[str, list[str]]:
    """Heading -> the commands of the shell blocks below it. Every block says what it is, so that no command escapes."""
    found: dict[str, list[str]] = {}
    for section in re.split(r"^## ", text, flags=re.MULTILINE):
        heading = section.partition("\n")[0]
        for language, body in BLOCK.findall(section):
            assert language in LANGUAGES, f"{heading}: a block of {language or 'no language'}"
            if language == "sh":
                found.setdefault(heading, []).extend(body.splitlines())
    return found


def check_all(text: str) -> None:
    """Each command is one that its program would take: by the real parser, with fields that the config has."""
    inline = re.findall(r"`((?:sami|make|pip|launch/\w+\.sh) [^`]*)`", BLOCK.sub("", text))
    for command in inline + [line for lines in blocks(text).values() for line in lines]:
        program, *argv = shlex.split(command.replace("\\|", "|"), comments=True)
        if program.startswith("launch/"):
            assert (ROOT / program).exists(), command
        else:
            {"sami": _check_sami, "make": _check_make, "pip": _check_pip}[program](argv)


def _check_sami(argv: list[str]) -> None:
    """A whole command, or a verb alone, as sentences name it."""
    if argv in (["VERB", "--help"], ["--help"], ["--version"], ["VERB"]):
        return
    parser = new_parser()
    named = [word for word in argv if not word.startswith("-")] == argv and len(argv) <= 2
    try:
        arguments, rest = parser.parse_known_args(argv)
    except SystemExit:
        assert named or argv[-1].startswith("--"), f"sami {shlex.join(argv)}: not as the parser wants it"
        words = [word for word in argv if not word.startswith("-")]
        with pytest.raises(SystemExit) as exit:
            parser.parse_args([*words[: 2 if words[0] in ("principles", "rate") else 1], "--help"])
        assert exit.value.code == 0, argv
        return
    assert all(word.startswith("--config.") for word in rest), f"sami {shlex.join(argv)}: {rest}"
    if rest and "=VALUE" not in " ".join(rest) and not arguments.config.endswith(".py"):
        config, _ = load_config(arguments.config, rest)
        validate(config)


def _check_make(argv: list[str]) -> None:
    assert subprocess.run(["make", "--dry-run", *argv], cwd=ROOT, capture_output=True).returncode == 0, argv


def _check_pip(argv: list[str]) -> None:
    """An extra that is asked for is one that setup.py has."""
    for extra in re.findall(r"(?:\.|sami_jax)(\w+)$", argv[-1]):
        assert f'"{extra}": ' in (ROOT / "setup.py").read_text(encoding="utf-8"), argv
