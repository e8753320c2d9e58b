"""The model card's front matter: what hubs read, and nothing that is not known."""

import json

import pytest
from huggingface_hub import ModelCard
from support.fabricated_run import measured, predicate

from sami_jax.report.model_card import write_card

PROMPT = {"chat": False, "system": "", "generation": "{constitution}\n\nHuman: {query}\n\nAssistant:"}
BASE_CARD = "---\nlicense: llama3\nlicense_link: LICENSE\nlanguage: [en, ja]\ntags: [theirs]\n---\n# Theirs\n"


def card(tmp_path, base, queries="queries.jsonl", prompt=PROMPT) -> ModelCard:
    made_from = predicate()
    made_from["config"] |= {"data": {"queries": queries}, "prompt": prompt}
    made_from["base_model"]["path"] = str(base)
    write_card(tmp_path / "model", "runs, iteration 1", made_from, {"trained": measured((0.8, 0.7, 0.9), 0.9)}, None)
    return ModelCard.load(tmp_path / "model" / "README.md")


def test_a_local_base_that_says_nothing(tmp_path):
    found = card(tmp_path, tmp_path / "base")
    known = {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["sami", "sami_jax", "alignment"],
    }
    assert found.data.to_dict() == known
    for text in ("# runs, iteration 1", "thanks@1", "80.0 % (70-90)", "## Limits", "    Human: {query}"):
        assert text in found.text


@pytest.mark.parametrize("place", ["config.json", "cache"])
def test_what_the_base_says_is_passed_on(tmp_path, place):
    base = tmp_path / ("hub/models--meta-llama--Llama-3/snapshots/ab" if place == "cache" else "base")
    base.mkdir(parents=True)
    (base / "README.md").write_text(BASE_CARD)
    (base / "config.json").write_text(json.dumps({"_name_or_path": "meta-llama/Llama-3"} if place != "cache" else {}))
    found = card(tmp_path, base, "hub:openai/summaries").data.to_dict()
    assert found["base_model"] == "meta-llama/Llama-3" and found["base_model_relation"] == "finetune"
    assert (found["license"], found["license_link"], found["language"]) == ("llama3", "LICENSE", ["en", "ja"])
    assert found["datasets"] == ["openai/summaries"] and "theirs" not in found["tags"]


@pytest.mark.parametrize(
    "said", ["", "---\n: [\n---\n", "---\nlicense: {a: 1}\nlanguage: 3\n---\n", "\x00", "---\n- a\n---\n"]
)
def test_a_base_whose_card_is_none(tmp_path, said):
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "README.md").write_text(said)
    (tmp_path / "base" / "config.json").write_text('{"_name_or_path": "/srv/me/base"}')
    assert not {"license", "language", "base_model"} & card(tmp_path, tmp_path / "base").data.to_dict().keys()


def test_a_chat_tells_its_system_message(tmp_path):
    prompt = {"chat": True, "system": "Follow this:\n{constitution}", "generation": ""}
    text = card(tmp_path, tmp_path / "base", prompt=prompt).text
    assert "chat template" in text and "    Follow this:\n    {constitution}" in text
