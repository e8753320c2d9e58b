"""Finds a config by name or file and applies `--config.FIELD=VALUE` overrides."""

import difflib
import importlib.util
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict, config_flags

from sami_jax.config import config_folder
from sami_jax.errors import UserError


def load_config(spec: str, overrides: list[str]) -> tuple[ConfigDict, str]:
    """Loads NAME, NAME:ARG, FILE.py or FILE.py:ARG and applies overrides; the result is locked.

    Returns:
      the config and its name, for example "tiny" or "hh_mistral7b-smoke".
    Raises:
      UserError: no such config, or an override of an unknown field or with a value of another type.
    """
    path, _, arg = spec.partition(":")
    file = Path(path) if path.endswith(".py") else _shipped_file(path)
    if not file.is_file():
        known = sorted(f.stem for f in config_folder().glob("*.py"))
        raise UserError(f"--config={spec}: no such config; give a .py file or one of {', '.join(known)}")
    config = _load_module(file).get_config(arg or None)
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
    argv, values = ["sami", *overrides], flags.FlagValues()
    config_flags.DEFINE_config_dict("config", config, flag_values=values, lock_config=True, sys_argv=argv)
    try:
        values(argv)
    except (flags.Error, ValueError, TypeError, KeyError, AttributeError, SyntaxError) as error:
        raise UserError(f"--config: {' '.join(str(error).split())[:200]}; give a value of the field's type") from None
    return values["config"].value, file.stem + (f"-{arg}" if arg else "")


def derived_from(name: str) -> ConfigDict:
    """A shipped config, for a config file that says only what it changes."""
    return _load_module(_shipped_file(name)).get_config()


def _shipped_file(name: str) -> Path:
    return config_folder() / f"{name}.py"


def _load_module(file: Path):
    spec = importlib.util.spec_from_file_location("sami_jax_config", file)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (SyntaxError, ImportError, NameError) as error:
        raise UserError(f"{file}: cannot be loaded ({error}); mend the file") from None
    return module


def _fields(config: ConfigDict, prefix: str = "") -> list[str]:
    fields = []
    for name, value in config.items():
        fields += _fields(value, f"{prefix}{name}.") if isinstance(value, ConfigDict) else [prefix + name]
    return fields
