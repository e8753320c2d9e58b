"""Batches: padding, and a data order that is a function of the seed and the update's number."""

import numpy as np

from sami_jax.data.batches import ContrastExample, pad, padded_sizes, training_batches


def example(n: int) -> ContrastExample:
    return ContrastExample(((n, n), (n,)), ((n, n, n), (n, n)))


def test_padding():
    batch = pad([example(1), example(2)], *padded_sizes([example(1)], 4))
    assert batch.prefixes.shape == batch.responses.shape == (2, 2, 4)
    assert batch.prefix_lengths.tolist() == [[2, 1], [2, 1]] and batch.response_lengths.tolist() == [[3, 2], [3, 2]]
    assert batch.responses[1].tolist() == [[2, 2, 2, 0], [2, 2, 0, 0]]


def order(dataset, update: int) -> list[int]:
    return dataset[update].prefixes[..., 0, 0].ravel().tolist()


def test_every_epoch_holds_each_example_once_in_another_order():
    dataset = training_batches([example(n) for n in range(12)], 4, 2, seed=0, bucket=4)
    assert dataset[0].prefixes.shape == (2, 2, 2, 4)
    epochs = [[n for update in range(3 * e, 3 * e + 3) for n in order(dataset, update)] for e in range(2)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(12))
    assert epochs[0] != epochs[1]


def test_an_update_finds_its_batch_by_number_alone():
    one, two, other = (training_batches([example(n) for n in range(12)], 4, 1, seed, 4) for seed in (0, 0, 1))
    assert order(one, 7) == order(two, 7)
    assert [order(one, u) for u in range(3)] != [order(other, u) for u in range(3)]
    for a, b in zip(one[5], two[5], strict=True):
        np.testing.assert_array_equal(a, b)
