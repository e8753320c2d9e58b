"""Every shipped config is valid, and every field of the defaults carries its comment."""

import copy
import inspect
import math
import re
from pathlib import Path

import pytest

from sami_jax import config as config_lib
from sami_jax.config import load_config
from sami_jax.config.checks import validate
from sami_jax.contrast.family import FAMILY, Member
from sami_jax.data.queries import read_queries
from sami_jax.errors import UserError
from sami_jax.evaluation.measure import split_principles
from sami_jax.principles.files import read_principles
from sami_jax.principles.principle import own_status
from sami_jax.provenance.manifest import leaves
from sami_jax.stages.preparation import recorded

NAMES = sorted(file.stem for file in config_lib.config_folder().glob("*.py"))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("arg", ["", ":smoke"])
def test_shipped_configs_are_valid(name, arg):
    config, run_name = load_config(name + arg, [])
    validate(config)
    assert config.is_locked and run_name == name + arg.replace(":", "-")


def test_names_and_paths_find_the_same_config():
    by_name, _ = load_config("tiny", ["--config.seed=3"])
    by_path, _ = load_config(str(config_lib.config_folder() / "tiny.py"), ["--config.seed=3"])
    assert by_name.to_json() == by_path.to_json() and by_name.seed == 3


def test_paper_config_has_the_papers_numbers():
    config, _ = load_config("tldr_mistral7b", [])
    assert config.train.updates == (2, 4, 6) and config.train.batch_size == 128 and config.optim.learning_rate == 5e-7
    assert config.sampling.max_new_tokens == 350 and config.constitutions.count == 2 and config.objective.kl_weight == 0


def test_derived_config_changes_what_it_says_alone():
    configs = [load_config(name, [])[0].to_dict() for name in ("tldr_mistral7b", "tldr_mixtral8x7b")]
    mistral, mixtral = (set(leaves(config)) for config in configs)
    assert mistral ^ mixtral == {
        ("model.path", "models/mistral-7b-v0.1"),
        ("model.path", "models/mixtral-8x7b-v0.1"),
        ("model.shape", "mistral-7b"),
        ("model.shape", "mixtral-8x7b"),
        ("model.attention", "xla"),
        ("model.attention", "splash"),
        ("mesh.expert", 1),
        ("mesh.expert", 8),
        ("optim.name", "adamw"),
        ("optim.name", "rmsprop"),
        ("train.microbatches", 16),
        ("train.microbatches", 8),
    }


@pytest.mark.parametrize(
    ("name", "b2"),
    [
        ("tiny", 0.999),
        ("hh_mistral7b", 0.999),
        ("tldr_mistral7b", 0.999),
        ("tldr_mixtral8x7b", 0.99),
        ("diverse_llama3_70b", 0.99),
    ],
)
def test_a_config_is_recorded_with_the_decay_that_its_optimizer_has(name, b2):
    config, _ = load_config(name, [])
    assert recorded(config)["optim"]["b2"] == b2 and recorded(config)["optim"] == {**config.optim.to_dict(), "b2": b2}
    config.optim.name = {"adamw": "rmsprop", "rmsprop": "adamw"}[config.optim.name]
    assert recorded(config)["optim"]["b2"] == {0.999: 0.99, 0.99: 0.999}[b2]


def test_diverse_config_trains_fifteen_principles_and_holds_out_five():
    config, _ = load_config("diverse_llama3_70b", [])
    principles = read_principles(Path(config.principles.path))
    trained, held_out = split_principles(config, principles)
    assert (trained, held_out) == (list(principles[:15]), list(principles[15:])) and len(principles) == 20
    assert [updates * config.train.batch_size for updates in config.train.updates] == [512, 1024, 1536]
    assert config.prompt.training == load_config("tldr_mistral7b", [])[0].prompt.training
    assert "Think" in config.prompt.generation and "hink" not in config.prompt.training


@pytest.mark.parametrize("name", ["diverse_llama3_70b", "tldr_mixtral8x7b"])
def test_one_query_of_a_microbatch_falls_on_each_of_sixteen_chips(name):
    config, _ = load_config(name, [])
    fixed = [size for size in config.mesh.values() if size != -1]
    assert 16 % math.prod(fixed) == 0 and len(fixed) < len(config.mesh)
    assert config.train.batch_size // config.train.microbatches == 16


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("model.shape=mixtral-8x7", "did you mean 'mixtral-8x7b'?"),
        (
            "filter.keep_after=Sumary:",
            "config.filter.keep_after='Sumary:': must be a text that config.prompt.generation asks for",
        ),
        ("filter.keep_after=### Task", "must be free of what sampling.stop and filter.cut_at cut at"),
    ],
)
def test_bad_values_are_named(override, words):
    config, _ = load_config("diverse_llama3_70b", [f"--config.{override}"])
    with pytest.raises(UserError, match=re.escape(words)):
        validate(config)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("train.updates=('a',)", "config.train.updates=('a',): must be a tuple, each of it a whole number"),
        ("train.updates=(1.5,)", "config.train.updates=(1.5,): must be a tuple, each of it a whole number"),
        ("train.updates=(True,)", "config.train.updates=(True,): must be a tuple, each of it a whole number"),
        ("train.updates=()", "config.train.updates=(): must be a tuple of counts, each at least 1"),
        ("train.updates=(2, 0)", "config.train.updates=(2, 0): must be a tuple of counts, each at least 1"),
        ("sampling.stop=(1,)", "config.sampling.stop=(1,): must be a tuple, each of it a text"),
        ("filter.forbidden=('',)", "config.filter.forbidden=('',): must be a tuple, each of it a text"),
        ("canaries.refusals=(None,)", "config.canaries.refusals=(None,): must be a tuple, each of it a text"),
        ("optim.learning_rate=inf", "config.optim.learning_rate=inf: must be a finite number"),
        ("optim.b2=-0.5", "config.optim.b2=-0.5: must be from 0.0 to 0.999999, or -1 for the optimizer's own"),
        ("optim.b2=1.0", "config.optim.b2=1.0: must be from 0.0 to 0.999999, or -1 for the optimizer's own"),
        (
            "optim.decay_updates=4",
            "config.optim.decay_updates=4: must be 0, or at least 16: with fewer, the last updates",
        ),
        ("optim.learning_rate=nan", "config.optim.learning_rate=nan: must be a finite number"),
        ("train.batch_size=99999999999999", "config.train.batch_size=99999999999999: must be a whole number below"),
        ("data.queries=\udcff", "config.data.queries='\\udcff': must be a text"),
        ("sampling.contrast=-1.0", "config.sampling.contrast=-1.0: must be at least 0.0"),
        ("constitutions.principles=40", "config.constitutions.principles=40: must be at least 1 and at most 16"),
    ],
)
def test_types_and_ranges_are_checked(override, words):
    config, _ = load_config("tiny", [f"--config.{override}"])
    with pytest.raises(UserError, match=re.escape(words)):
        validate(config)


@pytest.mark.parametrize("name", FAMILY)
def test_a_name_sets_its_row_of_the_objective_and_single_fields_win(name):
    def row(config):
        return Member(*(config.objective[field] for field in Member._fields))

    by_line, _ = load_config("tiny", [f"--config.objective.name={name}", "--config.prompt.bare={query}"])
    validate(by_line)
    in_file = config_lib.defaults()
    in_file.objective.name = name
    assert row(by_line) == row(in_file) == FAMILY[name] and by_line.objective.kl_weight == 0.1
    order = [f"--config.objective.name={name}", "--config.objective.beta=0.25"]
    for overrides in (order, order[::-1]):
        assert row(load_config("tiny", overrides)[0]) == FAMILY[name]._replace(beta=0.25)
    in_file.objective.name, in_file.objective.beta = "sami", 0.25
    in_file.objective.name = name
    assert row(copy.deepcopy(in_file)) == FAMILY[name]._replace(beta=0.25)


def test_a_name_on_the_command_line_wins_over_single_fields_of_a_file(tmp_path):
    file = tmp_path / "own.py"
    file.write_text(
        START + "    c.objective.row_weight = 0.9\n    c.objective.name = 'dpo'\n    return c\n", encoding="utf-8"
    )
    assert load_config(str(file), [])[0].objective.row_weight == 0.9
    changed = load_config(str(file), ["--config.objective.name=mipo"])[0].objective
    assert Member(*(changed[field] for field in Member._fields)) == FAMILY["mipo"]


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["name=dpp"], "config.objective.name='dpp': must be one of sami, sami-base, dpo, mipo, simpo, ipo, sft, distill; did you mean 'dpo'?"),
        (["beta=0.0"], "config.objective.beta=0.0: must be above 0.0"),
        (["margin=-1.0"], "config.objective.margin=-1.0: must be at least 0.0"),
        (["row_weight=0.0", "column_weight=0.0"], "config.objective.row_weight=0.0: must be above 0 where column_weight and sft_weight are 0"),
        (["name=sft", "over_base=True"], "config.objective.over_base=True: must be False where row_weight and column_weight are 0"),
        (["name=sft", "squared=True"], "config.objective.squared=True: must be False where row_weight and column_weight are 0"),
        (["name=ipo", "margin=1.0"], "config.objective.margin=1.0: must be 0 where squared is True: its target is 1/2"),
    ],
)  # fmt: skip
def test_objectives_that_contradict_themselves_are_refused(overrides, words):
    config, _ = load_config("tiny", [f"--config.objective.{override}" for override in overrides])
    with pytest.raises(UserError) as refused:
        validate(config)
    assert str(refused.value) == words


def test_contrastive_decoding_wants_opposites():
    config, _ = load_config("tiny", ["--config.constitutions.rule=iid", "--config.sampling.contrast=0.5"])
    with pytest.raises(UserError, match=r"contrast=0.5: must be 0 where constitutions.rule is not 'complement'"):
        validate(config)


@pytest.mark.parametrize(
    "override",
    ["seed=1.5", "prompt.shuffle=2", "optim.learning_rate=True+", "=1", "optim=1", "seed", ".=", "seed.x=1"],
)  # fmt: skip
def test_overrides_that_cannot_be_read_are_refused(override):
    with pytest.raises(UserError, match=r"^--config") as refused:
        validate(load_config("tiny", [f"--config.{override}"])[0])
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["tiny", "tldr_mixtral8x7b"])
def test_an_unknown_argument_of_a_config_is_refused(name):
    with pytest.raises(UserError, match="'smokee' behind the colon is not known; write :smoke"):
        load_config(f"{name}:smokee", [])


START = "from sami_jax.config import defaults\n\ndef get_config(arg=None):\n    c = defaults()\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x = (", "SyntaxError"),
        ("import nothing_like_it", "ModuleNotFoundError"),
        ("raise KeyError('k')", "KeyError: 'k'"),
        ("raise SystemExit(0)", "SystemExit"),
        ("def get_config(arg=None):\n    return get_config(arg)", "RecursionError"),
        ("x = 1", "has no attribute 'get_config'"),
        ("def get_config():\n    pass", "TypeError"),
        ("def get_config(arg=None):\n    return {'seed': 1}", "gives {'seed': 1}, not a ConfigDict"),
        ("def get_config(arg=None):\n    pass", "gives None, not a ConfigDict"),
        (START + "    c.seed = 'one'\n    return c", "TypeError"),
        (START + "    c.optim.learning_rat = 1.0\n    return c", "did you mean config.optim.learning_rate?"),
        (START + "    c.zzz = 1.0\n    return c", "config.zzz: no such field; take it out"),
        (START + "    del c.optim.b1\n    return c", "config.optim.b1: is missing"),
        (START + "    c.train.updates = (1, 'a')\n    return c", "each of it a whole number"),
        (b"\xff\x00\xfe", "cannot be loaded"),
        (None, "no such config"),
    ],
)
def test_bad_config_files_are_one_line(tmp_path, text, words):
    file = tmp_path / "mine.py"
    file.mkdir() if text is None else file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=re.escape(words)) as refused:
        validate(load_config(str(file), [])[0])
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("function", [config_lib.defaults, config_lib.paper_training])
def test_every_field_says_what_it_is(function):
    for line in inspect.getsource(function).splitlines():
        if " = " in line and "ConfigDict()" not in line:
            assert "  # " in line, line


def test_of_a_field_given_twice_the_last_holds():
    config, _ = load_config("tiny", ["--config.train.updates=(3,3)", "--config.seed=1", "--config.train.updates=(4,)"])
    assert config.train.updates == (4,) and config.seed == 1


def test_the_real_model_is_tuned_on_other_queries_and_other_held_out_principles():
    final, validation = (load_config(name, [])[0] for name in ("smollm2", "smollm2:validation"))
    for config in (final, validation):
        validate(config)
    assert not set(final.principles.held_out) & set(validation.principles.held_out)
    files = {final.data.queries, final.data.eval_queries, validation.data.eval_queries}
    texts = [query.text for file in files for query in read_queries(Path(file))]
    assert len(files) == 3 and len(texts) == len(set(texts)) == 400
    principles = read_principles(Path(final.principles.path))
    assert len(principles) >= 10 and all(principle.check for principle in principles)
    assert all(own_status(principle) == "approved" for principle in principles)
