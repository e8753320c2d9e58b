"""S of many examples: few programs, whatever their lengths and numbers, and the same values as each alone."""

import jax
import numpy as np
import pytest
from support.small_model import SMALL, mesh_of

from sami_jax.contrast import scoring
from sami_jax.contrast.likelihood import plain_likelihoods
from sami_jax.contrast.scoring import BUCKET, SHAPES, _batches, score, score_tokens, together
from sami_jax.data.batches import ContrastExample, pack, shape_for


def example(rng, count: int, longest: int = 12, responses: int | None = None) -> ContrastExample:
    def texts(number: int) -> tuple[tuple[int, ...], ...]:
        lengths = np.minimum(rng.lognormal(np.log(longest / 3), 0.7, number).astype(int) + 1, longest)
        return tuple(tuple(rng.integers(0, SMALL.vocab_size, length).tolist()) for length in lengths)

    return ContrastExample(texts(count), texts(responses or count))


@pytest.fixture(scope="module")
def alone(small_params):
    """S of one example by a row for each pair."""
    program = jax.jit(lambda batch: plain_likelihoods(small_params, SMALL, batch))
    return lambda one: np.asarray(program(pack([one], shape_for([one], 64))))[0]


@pytest.mark.parametrize("shapes", [8, 1])
def test_s_is_that_of_each_alone(small_params, mesh, alone, shapes, monkeypatch):
    """With one shape for all, fewer prompts and responses than others' are made up to as many, and cut off again."""
    monkeypatch.setattr(scoring, "SHAPES", shapes)
    rng = np.random.default_rng(0)
    examples = [example(rng, count) for count in (2, 3, 2)]
    programs = {(len(filled[0].prompts), shape) for _, filled, shape in _batches(examples, 2)}
    assert len(programs) == min(shapes, 2)
    found = dict(score(small_params, SMALL, examples, mesh, 2))
    assert sorted(found) == [0, 1, 2]
    for place, one in enumerate(examples):
        np.testing.assert_allclose(found[place], alone(one), atol=1e-5, rtol=1e-5)


def test_tokens_of_any_number_of_prompts_are_scored_together(small_params, mesh, alone, monkeypatch):
    monkeypatch.setattr(scoring, "SHAPES", 1)
    rng = np.random.default_rng(1)
    examples = [example(rng, count, responses=1) for count in (2, 3)]
    for place, found in score_tokens(small_params, SMALL, examples, mesh, 2):
        one = examples[place]
        assert found.shape == (len(one.prompts), len(one.responses[0]))
        whole = [alone(ContrastExample((prompt,), one.responses))[0, 0] for prompt in one.prompts]
        np.testing.assert_allclose(found.sum(axis=1), whole, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("counts", [(2,), (2, 3, 4), range(1, 15)])
def test_few_programs_are_compiled_for_any_lengths(counts, monkeypatch):
    rng = np.random.default_rng(0)
    examples = [example(rng, rng.choice(list(counts)), longest=800) for _ in range(250)]
    compiled, order = set(), []

    def kernel(params, batch):
        compiled.add((batch.tokens.shape, batch.response_lengths.shape, batch.sizes))
        order.append(batch.tokens.shape[2])
        return np.zeros(batch.tokens.shape[:1])

    mesh = mesh_of(1, 1, 1)
    places = [place for place, _ in scoring._in_batches(kernel, {}, examples, mesh, 8)]
    assert sorted(places) == list(range(250))
    assert 1 < len(compiled) <= SHAPES
    assert order == sorted(order, reverse=True)  # longest first
    assert all(row % BUCKET == 0 for row in order)


def test_nothing_is_scored_of_nothing(small_params, mesh):
    assert list(score(small_params, SMALL, [], mesh, 2)) == []


@pytest.mark.parametrize(
    ("queries", "count", "row", "shards", "expected"),
    [(8, 2, 64, 1, 2), (8, 6, 512, 1, 3), (8, 8, 4096, 1, 1), (8, 8, 4096, 8, 4), (1, 7, 4096, 1, 1)],
)
def test_constitutions_are_computed_together_as_far_as_there_is_room(queries, count, row, shards, expected):
    prompts = ((1,) * (row - count * 2),) * count
    batch = pack(
        [ContrastExample(prompts, ((1, 1),) * count)] * queries,
        shape_for([ContrastExample(prompts, ((1, 1),) * count)], row),
    )
    assert batch.tokens.shape == (queries, count, row)
    assert together(batch, shards) == expected


def test_s_does_not_depend_on_how_many_are_computed_together(small_params, alone):
    one = example(np.random.default_rng(2), 2)
    found = scoring.summed(small_params, pack([one], shape_for([one], 32)), config=SMALL, at_once=1)
    np.testing.assert_allclose(found[0], alone(one), atol=1e-5, rtol=1e-5)
