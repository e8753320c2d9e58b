"""Explanations: by hand, exact where they must be, and right where the miniature's world knows what caused a word."""

import json
import math
import random
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import tokenizers
import transformers
from support import fabricated_run
from support.scripted_model import write_scripted_model
from support.small_model import SMALL

from sami_jax import miniature
from sami_jax.cli import main
from sami_jax.config import load_config
from sami_jax.contrast.scoring import score, score_tokens
from sami_jax.data.batches import ContrastExample
from sami_jax.data.jsonl import read_jsonl, write_jsonl
from sami_jax.data.pairs import clean
from sami_jax.evaluation.explain import Answer, by_word, encode_answers, explain, pmi, read_answers, token_texts
from sami_jax.miniature import judge, world
from sami_jax.miniature.untrained import write_random_bytes_model
from sami_jax.models.pretrained import open_model
from sami_jax.principles import constitutions as composing
from sami_jax.principles.files import read_principles
from sami_jax.provenance.manifest import RunRecord


def test_pmi_by_hand():
    logprobs = np.log(np.array([[0.5, 0.2], [0.1, 0.2], [0.3, 0.8]], np.float32))
    np.testing.assert_allclose(pmi(logprobs, 0), [math.log(0.5 / 0.3), math.log(0.2 / 0.4)], rtol=1e-5)
    # Nothing overflows, and no constitution can tell more than its being one of C.
    np.testing.assert_allclose(pmi(np.array([[-1.0], [-900.0]], np.float32), 0), [math.log(2)], rtol=1e-5)


def test_tokens_sum_to_what_score_gives(small_params, mesh):
    rng = np.random.default_rng(0)

    def text(longest: int) -> tuple[int, ...]:
        return tuple(rng.integers(0, SMALL.vocab_size, rng.integers(1, longest)).tolist())

    examples = [ContrastExample((text(12), text(12)), (text(9), text(9))) for _ in range(3)]
    expected = dict(score(small_params, SMALL, examples, mesh, 2))
    for j in (0, 1):
        # Three prompts and one response: more prompts than responses.
        alone = [ContrastExample((*e.prompts, text(12)), e.responses[j : j + 1]) for e in examples]
        for place, logprobs in score_tokens(small_params, SMALL, alone, mesh, 2):
            assert logprobs.shape == (3, len(examples[place].responses[j]))
            np.testing.assert_allclose(logprobs.sum(axis=1)[:2], expected[place][:, j], atol=1e-4)


def byte_pairs(texts: list[str]) -> transformers.PreTrainedTokenizerFast:
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.train_from_iterator(texts, tokenizers.trainers.BpeTrainer(vocab_size=150, show_progress=False))
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def with_marked_spaces(texts: list[str]) -> transformers.PreTrainedTokenizerFast:
    """As SentencePiece does it: a mark before each word, one added at the start."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(byte_fallback=True, unk_token="<unk>"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=100, special_tokens=["<unk>"], show_progress=False)
    tokenizer.train_from_iterator(texts[:1], trainer)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer)


@pytest.mark.parametrize("make", ["bytes", "byte pairs", "marked spaces", "words"])
def test_token_texts_join_to_the_response(make, tmp_path):
    texts = [" Surely you can, my friend!", "naïve café ☕", "三つの原則 👩‍🔬", " a\n\n  b\t", " ", ""]
    if make == "bytes":
        write_random_bytes_model(tmp_path / "model", 64, 0)
        tokenizer = open_model(tmp_path / "model").tokenizer
    elif make == "words":
        tokenizer = open_model(miniature.BASE).tokenizer
    else:
        tokenizer = {"byte pairs": byte_pairs, "marked spaces": with_marked_spaces}[make](texts)
    for text in texts:
        pieces = token_texts(tokenizer, text)
        assert "".join(pieces) == text
        assert len(pieces) == len(tokenizer.encode(text, add_special_tokens=False))


def test_words_are_cut_at_white_space():
    assert by_word([" He", "llo", ".", "\nYou", ""], [1, 2, 3, 4, 5]) == [(" Hello.", 6), ("\nYou", 9)]
    assert by_word(["\n", " ", " He", "llo", " "], [1, 2, 3, 4, 5]) == [("\n  Hello", 10), (" ", 5)]
    assert by_word([], []) == []


LINES = [
    {"id": "a", "query": "q", "constitution": "1. Be calm.\n2. Be brief.", "response": " one two"},
    {"id": "b", "query": "r", "constitution": "Be calm.", "response": " two"},
    {"id": "a", "query": "q", "constitution": "1. Be wild.\n2. Be long.", "response": " two"},
    {"id": "b", "query": "r", "constitution": "Be wild.", "response": " one"},
    {"id": "b", "query": "r", "constitution": "Be wild.", "response": " two"},
]


def test_answers_are_compared_with_each_other_and_without_each_principle(tmp_path):
    write_jsonl(tmp_path / "in.jsonl", LINES)
    config, _ = load_config("tiny", ["--config.filter.cut_at=('two',)"])
    first, other, *_, last = read_answers(tmp_path / "in.jsonl", config.filter)
    assert first.response == clean(" one two", config.filter) == " one"
    assert first.contexts == [LINES[0]["constitution"], LINES[2]["constitution"], "1. Be brief.", "1. Be calm."]
    assert other.contexts == ["Be calm.", "Be wild.", ""] and (last.own, last.constitutions[1]) == (1, "Be wild.")


def test_a_model_that_heeds_nothing_has_nothing_explained(tmp_path, mesh):
    write_scripted_model(tmp_path / "model", ["one", "two"])
    model = open_model(tmp_path / "model")
    config, _ = load_config("tiny", [])
    answers = [
        Answer("a", "q", "one two", ("1. Be calm.\n2. Be brief.", "1. Be wild.\n2. Be long."), own) for own in (0, 1)
    ]
    examples = encode_answers(answers, model, config.prompt)
    rows = [row for _, row in explain(model, model.load(mesh), answers, examples, {"Be calm.": "calm"}, mesh, 2)]
    assert [p["id"] for row in rows for p in row["principles"]] == ["calm", None, None, None]
    for row in rows:
        assert [token["text"] for token in row["tokens"]] == ["one", " two"]
        assert [token["pmi"] for token in row["tokens"]] == pytest.approx([0, 0], abs=1e-5)
        assert [p["share"] for p in row["principles"]] == pytest.approx([0, 0], abs=1e-5)


def judged(rows: list[dict]) -> tuple[float, float, float]:
    """What explanations of miniature responses are worth, against the world's own knowledge.

    A unit is a phrase by which a reply words an attribute, stated or not, or any other single word; its score is the sum of
    its tokens' pmi. It is caused where the constitution states just what the phrase does. What a reply follows by leaving words out
    has no unit.

    Returns:
      the area under the ROC curve of finding the caused units by score; their mean score, nats; and the share of them for
      which the principle of the largest share is the one that states them.
    """
    sides = {
        text: (p.id, side == 0)
        for p in read_principles(miniature.PRINCIPLES)
        for phrasing in p.phrasings
        for side, text in enumerate(phrasing)
    }
    scores, caused, named = [], [], []
    for row in rows:
        stated = dict(sides[p["text"]] for p in row["principles"])
        expressed = judge.expressed(row["query"], row["response"], stated)
        for name, places in units(row):
            scores.append(sum(row["tokens"][place]["pmi"] for place in places))
            caused.append(name in expressed)
            if name in expressed:
                shares = {p["id"]: sum(p["tokens"][place] for place in places) for p in row["principles"]}
                named.append(max(shares, key=shares.get) == name)
    scores, caused = np.array(scores), np.array(caused)
    wins = scipy.stats.mannwhitneyu(scores[caused], scores[~caused]).statistic
    return wins / (caused.sum() * (~caused).sum()), scores[caused].mean(), np.mean(named)


def units(row: dict) -> list[tuple[str | int, list[int]]]:
    """(attribute, or the place of a word that words none; places of its tokens) of a reply; none where it is not whole."""
    spans = world.wordings(row["query"], row["response"])
    found, start = {}, 0
    for place, token in enumerate(row["tokens"]):
        name = next((name for name, (first, end) in spans.items() if first <= start < end), place)
        found.setdefault(name, []).append(place)
        start += len(token["text"])
    return list(found.items()) if spans else []


def test_the_base_knows_which_phrases_a_constitution_causes(mesh):
    """On replies of the world's attentive authors. Its few nats are what SAMI raises."""
    config, _ = load_config("tiny", [])
    principles, rng = read_principles(miniature.PRINCIPLES), random.Random(0)
    answers = []
    for index, query in enumerate(rng.sample(world.queries("held_out"), 16)):
        pair = composing.compose(principles, "complement", 3, 2, "explain", index)
        for own, constitution in enumerate(pair):
            attributes = {name: rng.random() < share for name, share in world.UNPROMPTED.items()}
            reply = world.reply(query, attributes | composing.stated(constitution), rng)
            answers.append(Answer(str(index), query.text, reply, tuple(map(composing.text, pair)), own))
    model = open_model(miniature.BASE)
    ids = {text: p.id for p in principles for phrasing in p.phrasings for text in phrasing}
    examples = encode_answers(answers, model, config.prompt)
    rows = [row for _, row in explain(model, model.load(mesh), answers, examples, ids, mesh, 16)]
    for row in rows:
        assert "".join(token["text"] for token in row["tokens"]) == row["response"]
        for p in row["principles"]:
            assert p["share"] == pytest.approx(sum(p["tokens"]), abs=1e-4)
    area, _, named = judged(rows)
    assert area >= 0.9 and named >= 0.9


@pytest.mark.slow
def test_explain_finds_the_words_that_the_constitution_caused(improved, commands, tmp_path):
    def explained(output: Path, *more: str) -> list[dict]:
        status, told = commands.run("explain", str(improved.workdir), "--output", str(output), *more)
        assert status == 0 and "nats" in told and "preparation" in told, told
        return read_jsonl(output)

    found = {}
    for iteration in ("0", "1"):
        rows = explained(tmp_path / f"{iteration}.jsonl", "--iteration", iteration)
        answered = read_jsonl(improved.workdir / f"iteration_{iteration}" / "evaluation" / "trained.jsonl")
        assert [row["response"] for row in rows] == [row["response"] for row in answered]
        assert all("".join(token["text"] for token in row["tokens"]) == row["response"] for row in rows)
        found[iteration] = judged(rows)
    area, mean, named = found["1"]
    assert area >= 0.85 and named >= 0.95
    assert mean > 1.5 * found["0"][1]
    # The last iteration is the default, and a limit explains the first responses alike.
    first = explained(tmp_path / "some.jsonl", "--limit", "3")
    assert len(first) == 3
    for one, other in zip(first, rows, strict=False):
        assert [t["pmi"] for t in one["tokens"]] == pytest.approx([t["pmi"] for t in other["tokens"]], abs=1e-4)


@pytest.fixture
def run(tmp_path) -> Path:
    """As much of a run's folder as explaining the base's responses takes."""
    config, _ = load_config("tiny", [])
    predicate = fabricated_run.predicate() | {
        "config": json.loads(config.to_json()),
        "principles": [fabricated_run.principle("calm", "trained", ("Be calm.", "Be wild."))],
        "base_model": {"path": str(miniature.BASE), "files": {}},
    }
    folder = tmp_path / "run"
    RunRecord(folder, predicate, {"kind": "cpu", "count": 1, "processes": 1})
    return folder


def test_explain_shows_control_characters_and_writes_what_it_shows(run, tmp_path, capsys):
    lines = [line | {"response": " Surely\x1b[2J you can."} for line in LINES]
    write_jsonl(tmp_path / "in.jsonl", lines)
    argv = ["explain", str(run), "--responses", str(tmp_path / "in.jsonl"), "--output", str(tmp_path / "out.jsonl")]
    assert main(argv) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out and "Surely\\x1b[2J you can." in out
    rows = read_jsonl(tmp_path / "out.jsonl")
    assert [(row["id"], row["constitution"]) for row in rows] == [(line["id"], line["constitution"]) for line in LINES]
    assert [p["id"] for p in rows[0]["principles"]] == ["calm", None]
    assert "".join(token["text"] for token in rows[0]["tokens"]) == lines[0]["response"]


@pytest.mark.parametrize(
    ("lines", "more", "words"),
    [
        ([LINES[0]], [], "in.jsonl:1: id 'a' has this line only; add"),
        ([LINES[0], LINES[2] | {"query": "r"}], [], "in.jsonl:2: id 'a' has another query on line 1"),
        ([LINES[0], LINES[2] | {"response": None}], [], "in.jsonl:2: key 'response' is missing"),
        ([LINES[0], {"id": "a"}], [], "in.jsonl:2: key 'query' is missing"),
        ([LINES[0], LINES[2] | {"response": " you" * 250}], [], "exceed the model's context of 256; shorten them"),
        (LINES, ["--limit", "0"], "--limit 0: must be at least 1"),
        (LINES, ["--batch_size", "0"], "--batch_size 0: must be at least 1"),
        (LINES, ["--iteration", "2"], "--iteration 2: "),
    ],
)
def test_bad_input_is_one_line(run, tmp_path, capsys, lines, more, words):
    write_jsonl(tmp_path / "in.jsonl", lines)
    assert main(["explain", str(run), "--responses", str(tmp_path / "in.jsonl"), *more]) == 2
    complaint = capsys.readouterr().err.strip().splitlines()
    assert len(complaint) == 1 and complaint[0].startswith("sami: ") and words in complaint[0]


def test_no_run_and_no_such_set_are_one_line(run, tmp_path, capsys):
    assert main(["explain", str(tmp_path / "none")]) == 2
    assert "run.json: No such file; give the folder of a run" in capsys.readouterr().err
    assert main(["explain", str(run), "--set", "held_out_principles"]) == 2
    assert "iteration_0/evaluation/held_out_principles.jsonl: No such file" in capsys.readouterr().err
