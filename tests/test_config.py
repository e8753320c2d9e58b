"""Every shipped config is valid, and every field of the defaults carries its comment."""

import inspect

import pytest

from sami_jax import config as config_lib
from sami_jax.config_file import load_config

NAMES = sorted(file.stem for file in config_lib.config_folder().glob("*.py"))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("arg", ["", ":smoke"])
def test_shipped_configs_are_valid(name, arg):
    config, run_name = load_config(name + arg, [])
    config_lib.validate(config)
    assert config.is_locked and run_name == name + arg.replace(":", "-")


def test_names_and_paths_find_the_same_config():
    by_name, _ = load_config("tiny", ["--config.seed=3"])
    by_path, _ = load_config(str(config_lib.config_folder() / "tiny.py"), ["--config.seed=3"])
    assert by_name.to_json() == by_path.to_json() and by_name.seed == 3


def test_paper_config_has_the_papers_numbers():
    config, _ = load_config("tldr_mistral7b", [])
    assert config.train.updates == (2, 4, 6) and config.train.batch_size == 128 and config.optim.learning_rate == 5e-7
    assert config.sampling.max_new_tokens == 350 and config.constitutions.count == 2 and config.objective.kl_weight == 0


@pytest.mark.parametrize("function", [config_lib.defaults, config_lib.paper_training])
def test_every_field_says_what_it_is(function):
    for line in inspect.getsource(function).splitlines():
        if " = " in line and "ConfigDict()" not in line:
            assert "  # " in line, line
