"""The shipped base model, and the recipe that makes it."""

import jax
import numpy as np
import pytest

from sami_jax.miniature import BASE, recipe, world
from sami_jax.miniature import tokenizer as tokenizer_lib
from sami_jax.models.pretrained import open_model


@pytest.fixture(scope="module")
def tokenizer():
    return tokenizer_lib.build(recipe.corpus_words())


def test_recipe_makes_the_shipped_tokenizer_and_shape(tokenizer):
    shipped = open_model(BASE)
    assert shipped.tokenizer.get_vocab() == tokenizer.get_vocab()
    assert shipped.config == recipe.model_config(len(tokenizer))
    assert sum(file.stat().st_size for file in BASE.iterdir()) < 5e6


def test_chats_as_the_world_writes(tokenizer):
    messages = [
        {"role": "system", "content": "1. Say hello first."},
        {"role": "user", "content": "How do I fix the bike?"},
    ]
    for chats in (tokenizer, open_model(BASE).tokenizer):
        text = chats.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        assert text == world.PROMPT.format(constitution="1. Say hello first.", query="How do I fix the bike?")


def test_tokenizer_gives_text_back(tokenizer):
    text = "Constitution:\n1. Say hello first.\n\nHuman: How do I fix the bike?\n\nAssistant: Hello. Surely you can, my friend!"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.unk_token_id not in tokenizer.encode(text)


@pytest.mark.slow
def test_recipe_is_the_same_bit_for_bit_and_learns(tokenizer, monkeypatch):
    monkeypatch.setattr(recipe, "BATCH", 8)
    monkeypatch.setattr(recipe, "WARMUP", 1)
    config = recipe.model_config(len(tokenizer))
    runs = [recipe.pretrain(tokenizer, config, 12, seed=0) for _ in range(2)]
    jax.tree.map(np.testing.assert_array_equal, *runs)
    tokens, weights = next(recipe.batches(tokenizer, 1, seed=5))
    before = recipe.language_model_loss(recipe.pretrain(tokenizer, config, 2, seed=0), config, tokens, weights)
    assert float(recipe.language_model_loss(runs[0], config, tokens, weights)) < float(before) - 0.3
