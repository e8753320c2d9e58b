"""sami_jax from Python: the same numbers as torch and as the command, bad input as UserError, `run` in any thread."""

import json
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
import transformers
from support.flags import environment
from support.short_run import SHORT, arguments, assert_same, half_of

import sami_jax
from sami_jax import miniature
from sami_jax.api.arguments import encode_examples
from sami_jax.data.replies import Reply
from sami_jax.data.templates import render
from sami_jax.ground.stopping import at_once, gracefully
from sami_jax.miniature.world import PROMPT

QUERIES = [f"How do I {verb} the bike?" for verb in ("fix", "cut", "move", "clean")]
RESPONSES = [[" Hello. You can use soap.", f" Surely you can {verb} it."] for verb in ("fix", "cut", "move", "clean")]
UPDATE = {"train__microbatches": 1, "objective__kl_weight": 0.0, "optim__learning_rate": 1e-3, "train__remat": "none"}


@pytest.fixture(scope="module")
def principles():
    return sami_jax.read_principles(miniature.PRINCIPLES)


@pytest.fixture(scope="module")
def model(mesh):
    return sami_jax.load(miniature.BASE, mesh=mesh)


def config(**fields):
    return sami_jax.load_config("tiny:smoke", **(UPDATE | fields))


def test_importing_it_takes_no_jax():
    code = "import sami_jax, sys; assert 'jax' not in sys.modules; print(sorted(set(sami_jax.__all__) - set(dir(sami_jax))))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
    assert all(getattr(sami_jax, name) is not None for name in sami_jax.__all__)
    with pytest.raises(AttributeError, match="no attribute 'samples'"):
        _ = sami_jax.samples


def test_responses_are_scored_by_the_ids_that_were_sampled(model):
    responses = sami_jax.sample(model, QUERIES[:1], [["1. Say hello first.", "1. Never say hello."]], max_new_tokens=8)
    (said, other), tokenizer = responses[0], model.files.tokenizer
    letters = [tokenizer.convert_tokens_to_ids(letter) for letter in tokenizer.tokenize(" ".join("hello"))]
    odd = Reply(tokenizer.decode(letters), letters, "length")
    [example] = encode_examples(model, QUERIES[:1], [["a"] * 4], [[said, other, odd, f"{odd}"]], None, end_token=7)
    ends = model.files.end_tokens
    assert example.responses[:2] == tuple(
        text.token_ids + (7,) * (text.finish_reason == "stop" and text.token_ids[-1] not in ends)
        for text in (said, other)
    )
    assert example.responses[2] == tuple(letters)
    assert example.responses[3] == (*tokenizer.encode(f"{odd}", add_special_tokens=False), 7)


def test_constitutions(principles):
    composed = sami_jax.compose(principles, 3, stated=2, count=4, seed=7)
    assert sami_jax.compose(principles, 2, stated=2, count=4, seed=7) == composed[:2]
    assert sami_jax.compose(principles, 2, stated=2, count=4, seed=8) != composed[:2]
    assert [len(set(constitutions)) for constitutions in composed] == [4, 4, 4]
    assert all(text.startswith("1. ") and "\n2. " in text for constitutions in composed for text in constitutions)


def test_samples_depend_on_seed_and_place_alone(model, principles):
    constitutions = sami_jax.compose(principles, len(QUERIES))
    responses = sami_jax.sample(model, QUERIES, constitutions, max_new_tokens=24)
    assert [len(own) for own in responses] == [2] * 4 and all(text for own in responses for text in own)
    again = sami_jax.sample(model, QUERIES[:2], constitutions[:2], max_new_tokens=24, batch_size=1)
    assert again == responses[:2]
    assert sami_jax.sample(model, QUERIES, constitutions, max_new_tokens=24, seed=1) != responses


@pytest.mark.parametrize("normalize", ["mean", "sum"])
def test_scores_are_those_of_torch(model, principles, normalize):
    constitutions = sami_jax.compose(principles, len(QUERIES))
    s = sami_jax.score(model, QUERIES, constitutions, RESPONSES, normalize=normalize)
    assert s.shape == (4, 2, 2)
    other = transformers.AutoModelForCausalLM.from_pretrained(miniature.BASE)
    tokenizer = model.files.tokenizer
    for (b, i, j), found in np.ndenumerate(s[:2]):
        before = tokenizer.encode(render(PROMPT, constitutions[b][i], QUERIES[b]))
        ids = tokenizer.encode(RESPONSES[b][j], add_special_tokens=False)
        with torch.no_grad():
            logprobs = other(torch.tensor([before + ids])).logits[0].log_softmax(-1)
        expected = sum(logprobs[len(before) + t - 1, token].item() for t, token in enumerate(ids))
        assert found == pytest.approx(expected / (len(ids) if normalize == "mean" else 1), abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [{}, {"lora__rank": 4, "optim__learning_rate": 1e-2, "objective__kl_weight": 0.1}],
    ids=["weights", "adapters"],
)
def test_updates_lower_the_loss_and_leave_the_base(model, principles, tmp_path, changes):
    constitutions = sami_jax.compose(principles, len(QUERIES))
    batch = (QUERIES, constitutions, RESPONSES)
    before = sami_jax.score(model, *batch)
    training = sami_jax.begin(model, config(**changes))
    np.testing.assert_allclose(sami_jax.score(training.model, *batch), before, atol=1e-5)
    training, first = sami_jax.update(training, *batch)
    assert first["loss"] == pytest.approx(float(sami_jax.contrastive_loss(before).mean()), abs=1e-5)
    assert first["mi_lower_bound"] == pytest.approx(float(sami_jax.mi_lower_bound(before).mean()), abs=1e-5)
    after_one = training.model
    for _ in range(3):
        training, last = sami_jax.update(training, *batch)
    assert last["loss"] < first["loss"] - 1e-3
    assert int(training.state.step) == 4
    np.testing.assert_array_equal(sami_jax.score(model, *batch), before)  # the base is as it was

    # Adapters are computed beside the base, as they are trained, until somebody saves them or begins anew with them.
    assert (after_one.files.config.adapter is not None) == bool(changes)
    np.testing.assert_allclose(sami_jax.score(after_one.merged, *batch), sami_jax.score(after_one, *batch), atol=1e-5)
    again, metrics = sami_jax.update(sami_jax.begin(after_one, config()), *batch)
    assert metrics["loss"] < first["loss"] and again.base.files.config.adapter is None

    sami_jax.save(after_one, tmp_path / "model")
    assert (tmp_path / "model" / "generation_config.json").is_file()
    loaded = sami_jax.load(tmp_path / "model", mesh=model.mesh)
    np.testing.assert_allclose(sami_jax.score(loaded, *batch), sami_jax.score(after_one, *batch), atol=1e-5)


def test_words_that_a_constitution_caused(model):
    constitutions = [["1. Say hello first.", "1. Never say hello."]]
    responses = [[" Hello. Surely you can fix the bike with glue.", " Surely you can fix the bike with glue."]]
    [[greeted, plain]] = sami_jax.explain(model, QUERIES[:1], constitutions, responses)
    assert "".join(word for word, _ in greeted) == responses[0][0]
    assert max(greeted, key=lambda word: word[1])[0].strip() == "Hello."
    assert len(plain) == len(responses[0][1].split())


THREAD = """
import json, sys, threading
import sami_jax
small = sami_jax.load_config(**json.loads(sys.argv[1]))
found = []
thread = threading.Thread(target=lambda: found.extend(sami_jax.run(small, "run")))
thread.start()
thread.join()
assert [set(one) >= {"trained", "held_out_principles"} for one in found] == [True] * 3
assert 0 <= found[2]["trained"]["following"] <= 1
"""


@pytest.mark.slow
def test_a_run_goes_on_in_a_thread(tmp_path, undisturbed):
    """Through every stage of its second iteration, to the same bits as the command's."""
    half_of(undisturbed, tmp_path / "run")
    done = subprocess.run(
        [sys.executable, "-c", THREAD, json.dumps(arguments(SHORT))],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert_same(tmp_path / "run", undisturbed.workdir)
    assert (tmp_path / "run/report.html").exists()


def test_signals_outside_the_main_thread():
    """Python lets no other thread set handlers: nothing is set there, and nothing fails."""
    entered = []

    def enter():
        for context in (at_once, gracefully):
            with context():
                entered.append(context)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert entered == [at_once, gracefully]


PAIR = ([["a", "b"]], [["c", "d"]])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda m, p: sami_jax.load("nowhere"), "nowhere: no such model folder"),
        (
            lambda m, p: sami_jax.load(miniature.BASE, dtype="float8"),
            "dtype='float8': must be one of float32, bfloat16",
        ),
        (
            lambda m, p: sami_jax.begin(
                m, config(prompt__chat=True, prompt__training="{query}", prompt__generation="{query}")
            ),
            "config.prompt.chat=True",
        ),
        (lambda m, p: sami_jax.load_config("tinny"), "no such config"),
        (lambda m, p: sami_jax.load_config("tiny", optim__rate=1), "no such field; did you mean"),
        (lambda m, p: sami_jax.compose(p, stated=13), "stated=13: there are 12 principles"),
        (lambda m, p: sami_jax.compose(p, count=3), "count=3: must be at least 1, and even"),
        (lambda m, p: sami_jax.compose(p, rule="iit"), "rule='iit': must be one of complement"),
        (lambda m, p: sami_jax.sample(m, ["x"], [["a"]], temperature=-1), "temperature=-1: must be at least 0"),
        (lambda m, p: sami_jax.sample(m, ["x"], ["a"]), "constitutions: must be a list for each query"),
        (lambda m, p: sami_jax.sample(m, ["x " * 400], [["a"]]), r"queries\[0\]: prompt and max_new_tokens take"),
        (lambda m, p: sami_jax.sample(m, ["x"], [["a"]], template="{query}"), "template: the template lacks"),
        (lambda m, p: sami_jax.score(m, [], [], []), "queries: there are none"),
        (lambda m, p: sami_jax.score(m, ["x", "y"], *PAIR), "constitutions: 1 lists for 2 queries"),
        (
            lambda m, p: sami_jax.score(m, ["x"], [["a", "b"]], [["c"]]),
            "the same number of constitutions and responses",
        ),
        (lambda m, p: sami_jax.score(m, ["x"], [["a", "b"]], [["c", " "]]), r"responses\[0\]: one is empty"),
        (
            lambda m, p: sami_jax.score(m, ["x"], [["a", "b"]], [["c", "d " * 300]]),
            r"queries\[0\]: prompt and response",
        ),
        (lambda m, p: sami_jax.score(m, ["x"], *PAIR, normalize="max"), "normalize='max'"),
        (lambda m, p: sami_jax.explain(m, ["x"], [["a", "a"]], [["c", "d"]]), r"constitutions\[0\]: must be different"),
        (lambda m, p: sami_jax.begin(m, config(optim__b1=2.0)), "config.optim.b1=2.0"),
        (lambda m, p: sami_jax.save(m, miniature.FOLDER), "holds no model that could be replaced"),
    ],
)
def test_bad_input_is_one_line(model, principles, call, words):
    with pytest.raises(sami_jax.UserError, match=words) as error:
        call(model, principles)
    assert "\n" not in str(error.value)
