"""What is wrong with the names of queries is told before anything is read."""

import re
from pathlib import Path

import pytest

from sami_jax.config import load_config
from sami_jax.config.checks import validate
from sami_jax.data.sources import Source, sources
from sami_jax.errors import UserError

ROOT = Path(__file__).parent.parent.parent
HH = "hub:Anthropic/hh-rlhf"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
TINY = str(load_config("tiny", [])[0].data.queries)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ([f"queries={HH}"], "config.data.revision='': must be the commit (40 hex digits) of the hub dataset"),
        ([f"queries={HH}", "revision=main"], "config.data.revision='main': must be the commit (40 hex digits)"),
        ([f"queries={HH}", "revision=0123456"], "config.data.revision='0123456': must be the commit"),
        ([f"eval_queries={HH}"], "config.data.revision='': must be the commit (40 hex digits)"),
        ([f"revision={COMMIT}"], "must be '' where no dataset on the hub (hub:OWNER/NAME) is read"),
        (["queries=hub:hh-rlhf", f"revision={COMMIT}"], "config.data.queries='hub:hh-rlhf': must be hub:OWNER/NAME"),
        (["queries=hub:a/../b", f"revision={COMMIT}"], "config.data.queries='hub:a/../b': must be hub:OWNER/NAME"),
        (["split=train[:10]"], "config.data.split='train[:10]': must be the name of a split"),
        (["eval_split="], "config.data.eval_split='': must be the name of a split"),
        (["subset=../other"], "config.data.subset='../other': must be a name, or a folder inside the dataset"),
        (
            [f"queries={'x' * 300}", f"eval_queries={'x' * 300}", "eval_split=train"],
            "config.data.eval_split='train': must be another than data.split",
        ),
        (["subset=/etc"], "config.data.subset='/etc': must be a name, or a folder inside the dataset"),
        ([f"queries={HH}", "eval_queries=hub:a/b", f"revision={COMMIT}"], "must be the dataset of data.queries"),
        (
            [f"queries={HH}", f"eval_queries={HH}", f"revision={COMMIT}", "eval_split=train"],
            "config.data.eval_split='train': must be another than data.split",
        ),
    ],
)
def test_bad_names_are_refused(overrides, words):
    config, _ = load_config("tiny", [f"--config.data.{override}" for override in overrides])
    with pytest.raises(UserError, match=re.escape(words)) as refused:
        validate(config)
    assert "\n" not in str(refused.value)


def test_both_splits_of_a_dataset_or_one_of_it_and_a_file():
    options = [f"queries={HH}", f"revision={COMMIT}", "subset=helpful-base", "column=chosen"]
    config, _ = load_config("tiny", [f"--config.data.{option}" for option in [*options, f"eval_queries={HH}"]])
    validate(config)
    trained = Source(HH, "chosen", "id", "helpful-base", "train", COMMIT)
    held_out = Source(HH, "chosen", "id", "helpful-base", "test", COMMIT)
    assert sources(config.data) == {"queries": trained, "eval_queries": held_out}
    config, _ = load_config("tiny", [f"--config.data.{option}" for option in [*options, f"eval_queries={TINY}"]])
    validate(config)
    assert sources(config.data)["queries"] == trained and sources(config.data)["eval_queries"].revision == ""
    config, _ = load_config("tiny", ["--config.data.eval_queries="])
    assert list(sources(config.data)) == ["queries"]


def test_a_folder_of_queries_may_be_the_one_we_are_in():
    config, _ = load_config(
        "tiny", ["--config.data.queries=.", "--config.data.eval_queries=", "--config.data.eval_split=train"]
    )
    validate(config)


@pytest.mark.parametrize("revision", ["", "main", "refs/convert/parquet"])
def test_no_source_on_the_hub_is_without_its_commit(revision):
    with pytest.raises(UserError, match=r"is no commit .40 hex digits.; hub datasets are read at one alone"):
        Source(HH, revision=revision)


def test_the_recipe_of_the_documentation_is_a_config(tmp_path):
    [text] = re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs/data.md").read_text(), flags=re.DOTALL | re.MULTILINE)
    (tmp_path / "tldr.py").write_text(text.replace("COMMIT", COMMIT))
    config, _ = load_config(str(tmp_path / "tldr.py"), [])
    validate(config)
    held_out = Source("hub:openai/summarize_from_feedback", "info.post", "id", "comparisons", "validation", COMMIT)
    assert sources(config.data)["eval_queries"] == held_out
    assert "POST: {query}" in config.prompt.training and "POST: {query}" in config.prompt.generation
