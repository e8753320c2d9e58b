"""Batches: packing, few shapes, and a data order that is a function of the seed and the update's number."""

import itertools
import json
import os
from pathlib import Path

import numpy as np
import pytest
import tokenizers
import transformers

from sami_jax.config import load_config
from sami_jax.data.batches import ContrastExample, TrainingBatches, few_lengths, pack, shape_for
from sami_jax.data.pairs import encode_pairs
from sami_jax.data.replies import Replies


def example(n: int) -> ContrastExample:
    return ContrastExample(((n, n), (n,)), ((n, n, n), (n, n)))


def batches(examples, *, updates=6, batch_size=4, microbatches=1, seed=0, shapes=8, bucket=4) -> TrainingBatches:
    return TrainingBatches(
        examples,
        updates=updates,
        batch_size=batch_size,
        microbatches=microbatches,
        seed=seed,
        shapes=shapes,
        bucket=bucket,
    )


def test_packing():
    shape = shape_for([example(1)], 4)
    assert shape.row == 8 and shape.sizes == (4, 4, 8)
    batch = pack([example(1), example(2)], shape)
    assert batch.prefix_lengths.tolist() == [[2, 1], [2, 1]] and batch.response_lengths.tolist() == [[3, 2], [3, 2]]
    assert batch.tokens[1].tolist() == [[2, 2, 2, 2, 2, 2, 2, 0], [2, 2, 2, 2, 2, 2, 0, 0]]
    assert example(1).tokens == int((batch.tokens[0] == 1).sum())


@pytest.mark.parametrize("count", [1, 2, 3, 10])
def test_few_lengths_are_the_best_of_all_choices(count):
    lengths = np.random.default_rng(count).integers(1, 12, 30).tolist()

    def padding(chosen) -> int:
        return sum(min(c for c in chosen if c >= length) - length for length in lengths)

    distinct = sorted(set(lengths))
    choices = itertools.chain.from_iterable(itertools.combinations(distinct, n) for n in range(1, count + 1))
    chosen = few_lengths(lengths, count)
    assert len(chosen) <= count
    assert padding(chosen) == min(padding(choice) for choice in choices if choice[-1] == distinct[-1])


def test_microbatches_hold_like_lengths_in_few_shapes():
    rng = np.random.default_rng(0)
    examples = [
        ContrastExample(((1,) * int(p), (1,) * int(p)), ((1,) * int(a), (1,) * int(b)))
        for p, a, b in zip(rng.integers(50, 300, 96), rng.integers(1, 60, 96), rng.integers(1, 60, 96), strict=True)
    ]
    one = batches(examples, batch_size=48, microbatches=1, shapes=1, bucket=16)
    few = batches(examples, batch_size=48, microbatches=12, shapes=4, bucket=16)
    assert len(one.shapes) == 1 and len(few.shapes) == 4
    assert few.padded_share(0) < 0.15 < one.padded_share(0)
    made = few[0]
    assert {batch.tokens.shape[2] for batch in made} <= {shape.row for shape in few.shapes}
    real = sum(int((batch.tokens != 0).sum()) for batch in made)
    assert real == few.tokens(0)
    assert few.padded_share(0) == pytest.approx(1 - real / sum(batch.tokens.size for batch in made))


def order(made: TrainingBatches, update: int) -> list[int]:
    return [n for batch in made[update] for n in batch.tokens[:, 0, 0].tolist()]


def test_every_epoch_holds_each_example_once_in_another_order():
    made = batches([example(n) for n in range(12)], microbatches=2)
    epochs = [[n for update in range(3 * e, 3 * e + 3) for n in order(made, update)] for e in range(2)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(12))
    assert epochs[0] != epochs[1]


def test_an_update_finds_its_batch_by_number_alone():
    one, two, other = (batches([example(n) for n in range(12)], seed=seed, updates=8) for seed in (0, 0, 1))
    assert order(one, 7) == order(two, 7)
    assert [order(one, u) for u in range(3)] != [order(other, u) for u in range(3)]


def word_pieces(texts: list[str]):
    """A byte-pair tokenizer of these texts, whose tokens are about as long as those of large models."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=8000, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer)


@pytest.mark.skipif("SAMI_REFERENCE" not in os.environ, reason="needs the public reference data")
def test_real_posts_have_little_padding_under_the_published_settings():
    """250 posts, their published summaries, the paper's batch of 128 in 16 microbatches."""
    reference = Path(os.environ["SAMI_REFERENCE"]) / "tldr"

    def lines(name: str) -> list[dict]:
        return [json.loads(line) for line in (reference / name).read_text(encoding="utf-8").splitlines()]

    base, trained = (lines(f"responses/mistral-opus/{name}.jsonl") for name in ("base", "it1"))
    constitutions = [json.loads(file.read_text()) for file in sorted((reference / "constitutions_opus").glob("*.json"))]
    rows = [
        {
            "query": post["prompt"],
            "constitutions": [chosen["positive"], chosen["negative"]],
            "responses": [one["response"], other["response"]],
            "finish_reasons": ["stop", "stop"],
        }
        for post, one, other, chosen in zip(
            lines("queries.jsonl"), base, trained, itertools.cycle(constitutions), strict=False
        )
    ]
    config, _ = load_config("tldr_mistral7b", [])
    tokenizer = word_pieces([text for row in rows for text in (row["query"], *row["responses"])])
    examples = encode_pairs(
        rows, Replies(tokenizer, None, len(tokenizer), (), None), config.prompt.training, config.prompt.max_tokens
    ).examples
    train = config.train
    made = batches(
        examples,
        updates=6,
        batch_size=train.batch_size,
        microbatches=train.microbatches,
        shapes=train.shapes,
        bucket=train.bucket,
    )
    assert len(made.shapes) <= train.shapes
    shares = [made.padded_share(update) for update in range(len(made))]
    print(f"padded share {np.mean(shares):.3f}, rows of {[shape.row for shape in made.shapes]} tokens")
    assert np.mean(shares) < 0.15
