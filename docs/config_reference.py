"""The page on the config: every field with its default and the comment beside it in sami_jax/config/settings.py."""

import ast
import dataclasses
import importlib.util
import inspect
import io
import re
import tokenize
from pathlib import Path

from ml_collections import ConfigDict

import sami_jax.config

ROOT = "c"  # what `defaults()` calls the config
HEAD = """# Configuration

Every field of a run's config: its default, and what it means, as `sami_jax/config/settings.py` has it. This page is made from that file.
A field is changed on the command line, `sami run --config=tiny --config.optim.learning_rate=5e-5`, or in a config file that
starts from `sami_jax.config.defaults()` or from a shipped config, `derived_from("tldr_mistral7b")`. A value that cannot be is
refused in one line before a model is loaded.

Where a value comes from: **P** the paper, **R** its authors' code, **ours** a choice made here.

## Shipped configs

`:smoke` behind the name of any of them shrinks it to a run of a minute or two on a CPU.

| `--config=` | what it is |
|---|---|
"""


@dataclasses.dataclass(frozen=True)
class Field:
    """One assignment of `defaults()`."""

    name: str  # within the config, as "optim.learning_rate"
    default: object  # a ConfigDict for a group of fields
    comment: str


def fields() -> list[Field]:
    """Every field and group of fields, in the order of the file."""
    source = Path(inspect.getfile(sami_jax.config.defaults)).read_text(encoding="utf-8")
    lines = source.splitlines()
    comments = {
        token.start[0]: token.string.lstrip("# ")
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    [function] = (
        node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef) and node.name == "defaults"
    )
    config, found = sami_jax.config.defaults(), []
    for node in function.body:
        if not (isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Attribute)):
            continue
        name = ast.unparse(node.targets[0]).removeprefix(f"{ROOT}.")
        first = node.lineno
        while lines[first - 2].strip().startswith("#"):  # comments above a field are its own
            first -= 1
        texts = [comments[line] for line in range(first, node.end_lineno + 1) if line in comments]
        found.append(Field(name, _value(config, name), " ".join(texts)))
    return found


def page() -> str:
    """The page as Markdown."""
    text = HEAD + "".join(f"| `{name}` | {what} |\n" for name, what in shipped().items())
    group = None
    for field in fields():
        owner, _, name = field.name.rpartition(".")
        if isinstance(field.default, ConfigDict):
            owner, group = field.name, field.name
            text += f"\n## {owner}\n\n" + (f"{_sentence(field.comment)}\n\n" if field.comment else "") + TABLE
            continue
        if not owner and group is None:
            text += "\n## Of the whole run\n\n" + TABLE
            group = ""
        text += f"| `{name}` | {_code(field.default)} | {_cell(field.comment)} |\n"
    return text


TABLE = "| field | default | meaning |\n|---|---|---|\n"


def shipped() -> dict[str, str]:
    """Name of each shipped config -> the first line of its file."""
    found = {}
    for file in sorted(sami_jax.config.config_folder().glob("*.py")):
        spec = importlib.util.spec_from_file_location(file.stem, file)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        found[file.stem] = _cell(module.__doc__.splitlines()[0])
    return found


def _value(config: ConfigDict, name: str):
    for part in name.split("."):
        config = config[part]
    return config


def _code(default) -> str:
    """A value as one writes it in a config file, in a table's cell."""
    return f"`{default!r}`".replace("|", "\\|")


def _cell(text: str) -> str:
    """A comment in a table's cell: nothing in it is Markdown but the code that it quotes itself."""
    parts = text.split("`")
    parts[::2] = [re.sub(r"([*_<\[])", r"\\\1", part) for part in parts[::2]]
    return "`".join(parts).replace("|", "\\|")


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")
