"""Published shapes have as many parameters as their publishers say, and pass through config.json and back."""

import math

import jax
import pytest

from sami_jax.models.config import ModelConfig
from sami_jax.models.decoder import abstract_params
from sami_jax.models.published import SHAPES

BILLIONS = {
    "mistral-7b": 7.24,
    "mixtral-8x7b": 46.7,
    "llama-3-8b": 8.03,
    "llama-3.1-8b": 8.03,
    "llama-3-70b": 70.6,
    "llama-3.1-70b": 70.6,
    "qwen-2.5-7b": 7.62,
}


@pytest.mark.parametrize("name", SHAPES)
def test_parameters(name):
    count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(abstract_params(SHAPES[name])))
    assert count == pytest.approx(BILLIONS[name] * 1e9, rel=1e-3)


@pytest.mark.parametrize("name", SHAPES)
def test_config_json_keeps_the_shape(name):
    assert ModelConfig.from_hf(SHAPES[name].to_hf(), name) == SHAPES[name]
