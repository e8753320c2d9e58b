"""Folders as people publish them: opened, scored, sampled, exported and opened again, here and by transformers, to the same ids and
likelihoods."""

import json
import re

import numpy as np
import pytest
import sentencepiece
import tokenizers
import torch
import transformers
import zoo_forms
from support.complaint import complaint
from support.torch_models import our_logits, torch_logits
from zoo_forms import FORMS
from zoo_texts import TEXTS

import sami_jax
from sami_jax.export.huggingface import companions
from sami_jax.models.pretrained import open_model

LONGEST = 48  # tokens of a text whose likelihood is compared
QUICK = [form for form in FORMS if form.name in (
    "SmolLM's, digits by name of GPT2Tokenizer", "closed", "closed as BERT does", "tokenizer.model, closed",
    "vocab.json and merges.txt of a Qwen", "[PAD] beyond the vocabulary",
)]  # fmt: skip


def named(form) -> str:
    return form.name


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "model").mkdir()
    return tmp_path / "model"


def right_ids(form, folder) -> dict[str, list[int]]:
    """By who tells them, as the table says."""
    if form.ids == "transformers":
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        return {text: tokenizer.encode(text) for text in TEXTS}
    if form.ids == "tokenizer.json":
        own = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        own.no_truncation()
        settings = json.loads((folder / "tokenizer_config.json").read_text())
        for token in settings.get("added_tokens_decoder", {}).values():
            own.add_special_tokens([token["content"]])
        before = [own.token_to_id(token) for token in form.before]
        return {text: before + own.encode(text, add_special_tokens=False).ids for text in TEXTS}
    own = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    before = [own.piece_to_id(token) for token in form.before]
    # To sentencepiece, control tokens in a text are letters; "legacy": false leaves the space before a space out.
    plain = [text for text in TEXTS if not re.search(r"<s>|</s>|<unk>", text) and not text.startswith(" ")]
    return {text: before + own.encode(text) for text in plain}


def likelihoods(logits, rows) -> np.ndarray:
    """Mean log-likelihood of each row's tokens after its first."""
    logits = np.asarray(logits, np.float64)
    logits -= logits.max(-1, keepdims=True)
    log = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return np.array([np.mean([log[n, t, id] for t, id in enumerate(row[1:])]) for n, row in enumerate(rows)])


def padded(rows) -> np.ndarray:
    return np.array([[*row, *[0] * (LONGEST - len(row))] for row in rows])


def highest_id(folder) -> int:
    """In what of an export names ids: tokens, and the ids of config.json and generation_config.json."""
    state = json.loads((folder / "tokenizer.json").read_text())
    found = [token["id"] for token in state["added_tokens"]]
    found += transformers.AutoTokenizer.from_pretrained(folder).get_vocab().values()
    for name in ("config.json", "generation_config.json"):
        for key, value in json.loads((folder / name).read_text()).items():
            if key.endswith("_token_id") and value is not None:
                found += value if isinstance(value, list) else [value]
    return max(found)


def check_ids(form, folder, output) -> dict[str, list[int]]:
    """Here, and by transformers from what is exported."""
    right = right_ids(form, folder)
    model = open_model(folder)
    (output).mkdir()
    companions(model)(output)
    again = transformers.AutoTokenizer.from_pretrained(output)
    here = {text: model.tokenizer.encode(text) for text in right}
    assert here == right
    assert {text: again.encode(text) for text in right} == right
    for ids in right.values():
        assert again.decode(ids) == model.tokenizer.decode(ids)
    assert (again.chat_template, again.eos_token) == (model.tokenizer.chat_template, model.tokenizer.eos_token)
    assert highest_id(output) < model.config.vocab_size
    return right


@pytest.mark.parametrize("form", QUICK, ids=named)
def test_ids_of_a_folder_and_of_its_export(form, folder, tmp_path):
    form.build(folder)
    check_ids(form, folder, tmp_path / "export")


def test_what_is_mended_is_said(folder, capsys):
    zoo_forms.smol(folder)
    open_model(folder)
    told = capsys.readouterr().err
    assert (
        "GPT2Tokenizer" in told and "tokenizer_config.json" in told and "than tokenizer.json, which is followed" in told
    )
    zoo_forms.closed(folder)
    open_model(folder)
    assert "puts </s> behind every text" in capsys.readouterr().err


def test_an_end_that_a_text_itself_has_stays(folder):
    zoo_forms.closed(folder)
    tokenizer = open_model(folder).tokenizer
    ids = tokenizer.encode("a</s>")
    assert ids[-1] == tokenizer.eos_token_id and ids[:-1] == tokenizer.encode("a")
    assert ids[1:] == tokenizer.encode("a</s>", add_special_tokens=False)


def test_a_chat_is_asked_as_ever(folder):
    """What closes every text is not the end of turn, and no prompt for a reply ends with it."""
    zoo_forms.closed_as_bert(folder)
    chat = open_model(folder).chatting().chat
    assert chat is not None
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    turns = [{"role": "user", "content": "Why?"}]
    assert chat.prompt("", "Why?") == tokenizer.apply_chat_template(
        turns, add_generation_prompt=True, return_dict=False
    )


PAIRS = {
    "a prompt": {"prompts": ["a [PAD]", "b"], "responses": ["c", "d"]},
    "a response": {"prompts": ["a", "b"], "responses": ["c", "d[PAD]"]},
}


@pytest.mark.parametrize("row", PAIRS.values(), ids=PAIRS)
def test_a_text_that_holds_a_token_beyond_the_vocabulary_is_refused(row, folder, tmp_path, capsys):
    zoo_forms.pad_beyond(folder)
    (tmp_path / "pairs.jsonl").write_text(json.dumps({"id": 1} | row) + "\n")
    line = complaint(
        capsys,
        "score",
        "--model",
        str(folder),
        "--input",
        str(tmp_path / "pairs.jsonl"),
        "--output",
        str(tmp_path / "s.jsonl"),
    )
    assert "pairs.jsonl:1: " in line and "'[PAD]', token 440" in line


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS, ids=named)
def test_a_folder_goes_through(form, folder, tmp_path, mesh):
    form.build(folder)
    rows = [ids[:LONGEST] for ids in check_ids(form, folder, tmp_path / "ids").values() if len(ids) > 1]
    assert len(rows) >= 100
    theirs = likelihoods(torch_logits(transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), padded(rows)), rows)  # fmt: skip
    model = sami_jax.load(folder, mesh=mesh)
    ours = likelihoods(our_logits(model.files.config, model.params, padded(rows)), rows)
    np.testing.assert_allclose(ours, theirs, atol=2e-4)

    output = tmp_path / "export"
    sami_jax.save(model, output)
    served = transformers.AutoModelForCausalLM.from_pretrained(output)
    np.testing.assert_allclose(likelihoods(torch_logits(served, padded(rows)), rows), theirs, atol=2e-4)
    again = sami_jax.load(output, mesh=mesh)
    assert not again.files.tokenizer_files  # nothing is left to mend
    np.testing.assert_array_equal(our_logits(again.files.config, again.params, padded(rows[:8])), our_logits(model.files.config, model.params, padded(rows[:8])))  # fmt: skip

    tokenizer = transformers.AutoTokenizer.from_pretrained(output)
    ids = torch.tensor([tokenizer.encode("def x = 20")])
    wanted = served.generate(ids, do_sample=False, max_new_tokens=6, attention_mask=torch.ones_like(ids))[
        0, ids.shape[1] :
    ]
    [[said]] = sami_jax.sample(again, ["= 20"], [["def x"]], template="{constitution} {query}", temperature=0, max_new_tokens=6)  # fmt: skip
    assert said == tokenizer.decode(wanted, skip_special_tokens=True)
