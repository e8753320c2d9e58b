"""Finds a config by name or file and applies `--config.FIELD=VALUE` overrides."""

import difflib
import importlib.machinery
import types
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from sami_jax.config.settings import config_folder
from sami_jax.contrast.family import FAMILY
from sami_jax.errors import UserError
from sami_jax.ground.paths import path_of

OBJECTIVE = "--config.objective.name"


def load_config(spec: str, overrides: list[str]) -> tuple[ConfigDict, str]:
    """Loads NAME, NAME:ARG, FILE.py or FILE.py:ARG and applies overrides; the result is locked.

    Returns:
      the config and its name, for example "tiny" or "hh_mistral7b-smoke".
    Raises:
      UserError: no such config, one that fails, or an override of an unknown field or with a value of another type.
    """
    own, ends, arg = spec.partition(".py:") if ".py:" in spec else (spec.removesuffix(".py"), spec.endswith(".py"), "")
    if ends:  # a path, which may hold colons too
        file = path_of(f"{own}.py")
    else:
        name, _, arg = spec.partition(":")
        file = _shipped_file(name)
    if not file.is_file():
        known = sorted(f.stem for f in config_folder().glob("*.py"))
        raise UserError(f"--config={spec}: no such config; give a .py file or one of {', '.join(known)}")
    config = _get_config(file, arg or None)
    known = _fields(config)
    for override in overrides:
        field = override.removeprefix("--config.").partition("=")[0]
        if "=" not in override:
            raise UserError(f"{override}: no value; write --config.{field}=VALUE")
        if field not in known:
            close = difflib.get_close_matches(field, known, n=1, cutoff=0.4)
            raise UserError(
                f"--config.{field}: no such field" + (f"; did you mean --config.{close[0]}?" if close else "")
            )
    # Of a field that is given twice the last holds, as for any option; tuples would be joined.
    last = {override.partition("=")[0]: override for override in overrides}
    name = last.get(OBJECTIVE, "").partition("=")[2]
    if name in FAMILY:  # all of its row, whatever a file says of single fields; those given here still win
        config.objective.update(FAMILY[name]._asdict())
    argv, values = ["sami", *last.values()], flags.FlagValues()
    config_flags.DEFINE_config_dict("config", config, flag_values=values, lock_config=True, sys_argv=argv)
    try:
        values(argv)
    except Exception as error:  # a foreign parser on the user's text: it raises many types
        raise UserError(f"--config: {_one_line(error)}; give a value of the field's type") from None
    overridden: Any = values["config"].value
    return overridden, file.stem + (f"-{arg}" if arg else "")


def derived_from(name: str) -> ConfigDict:
    """A shipped config, for a config file that says only what it changes."""
    return _get_config(_shipped_file(name), None)


def _get_config(file: Path, arg: str | None) -> ConfigDict:
    """Runs the user's code: whatever it raises is the file's to mend."""
    loader = importlib.machinery.SourceFileLoader("sami_jax_config", str(file))
    module = types.ModuleType(loader.name)
    module.__file__ = str(file)
    try:
        loader.exec_module(module)
        config = module.get_config(arg)
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        raise UserError(
            f"{file}: cannot be loaded ({type(error).__name__}: {_one_line(error)}); mend the file"
        ) from None
    if not isinstance(config, ConfigDict):
        raise UserError(
            f"{file}: get_config gives {config!r:.40}, not a ConfigDict; start from sami_jax.config.defaults()"
        )
    return config


def _shipped_file(name: str) -> Path:
    return config_folder() / f"{name}.py"


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]


def _fields(config: ConfigDict, prefix: str = "") -> list[str]:
    fields = []
    for name, value in config.items():
        fields += _fields(value, f"{prefix}{name}.") if isinstance(value, ConfigDict) else [prefix + name]
    return fields
