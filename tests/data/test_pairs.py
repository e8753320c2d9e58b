"""Pairs: cleaned texts, and training examples."""

import pytest
import transformers

from sami_jax import miniature
from sami_jax.config import defaults
from sami_jax.data.pairs import clean, encode_pairs, set_apart
from sami_jax.data.replies import Replies
from sami_jax.data.templates import encode_prompt, render
from sami_jax.errors import UserError


@pytest.fixture
def config():
    config = defaults()
    config.filter.prefix = "The post"
    config.filter.cut_at = ("Human: ", "###")
    config.filter.forbidden = ("[insert", "]")
    config.filter.end_with = (".",)
    return config


@pytest.fixture(scope="module")
def tokenizer():
    return transformers.AutoTokenizer.from_pretrained(miniature.BASE)


def test_clean_primes_and_cuts_at_the_first_mark(config):
    assert clean(" is about love.\n\nHuman: Thanks ### more", config.filter) == "The post is about love."
    assert clean(" is about love.", config.filter) == "The post is about love."


@pytest.mark.parametrize(
    ("text", "thinking", "response"),
    [
        (" Be brief. Summary: The post is short.", " Be brief. Summary: ", "The post is short."),
        (
            " A Summary: must rhyme.\n\nSummary:\n\nThe post.\n",
            " A Summary: must rhyme.\n\nSummary:\n\n",
            "The post.\n",
        ),
        # What follows a cut is nobody's: the next turn is no response.
        ("Summary: One. ### Next\nSummary: Two.", "Summary: ", "One. ### Next\nSummary: Two."),
        (" I only think. ### Next\nSummary: Two.", " I only think. ### Next\nSummary: Two.", ""),
        (" Summary: ", " Summary: ", ""),
        (" Summary: ### Next", " Summary: ### Next", ""),
        ("", "", ""),
    ],
)
def test_thinking_is_set_apart(config, text, thinking, response):
    config.filter.keep_after = "Summary:"
    assert set_apart(text, config.filter) == (thinking, response) and thinking + response == text


def test_encoded_pairs_score_the_end_of_text_only_where_the_model_ended(config, tokenizer):
    config.prompt.training = "Constitution:\n{constitution}\n\nHuman: {query}\n\nAssistant:"
    row = {"query": "Is that clear?", "constitutions": ["1. Say hello first.", "1. Never say hello."]}
    row |= {"responses": [" Hello.", " Maybe."], "finish_reasons": ["stop", "length"]}
    ends = (tokenizer.eos_token_id,)
    encoded = encode_pairs(
        [row], Replies(tokenizer, None, len(tokenizer), ends, *ends), config.prompt.training, config.prompt.max_tokens
    )
    [example] = encoded.examples
    assert (encoded.cut, encoded.anew) == (0, 0)
    assert (
        tokenizer.decode(example.prompts[1])
        == "Constitution:\n1. Never say hello.\n\nHuman: Is that clear?\n\nAssistant:"
    )
    assert [tokenizer.decode(ids) for ids in example.responses] == [" Hello.</s>", " Maybe."]
    [example] = encode_pairs(
        [row], Replies(tokenizer, None, len(tokenizer), ends, None), config.prompt.training, config.prompt.max_tokens
    ).examples
    assert [tokenizer.decode(ids) for ids in example.responses] == [" Hello.", " Maybe."]


def test_templates_fill_fields_once():
    assert render("{constitution}|{query}", "a {query} b", "c {constitution} d") == "a {query} b|c {constitution} d"


def test_too_long_a_query_is_cut_and_counted_never_the_template(tokenizer):
    template = "Constitution:\n{constitution}\n\nHuman: {query}\n\nAssistant:"
    whole, cut = encode_prompt(tokenizer, template, "1. Be calm.", "I want to fix the tent.", 100)
    assert cut == 0
    ids, cut = encode_prompt(tokenizer, template, "1. Be calm.", "I want to fix the tent.", len(whole) - 2)
    assert len(ids) == len(whole) - 2 and cut == 2
    assert tokenizer.decode(ids) == "Constitution:\n1. Be calm.\n\nHuman: I want to fix the\n\nAssistant:"
    with pytest.raises(UserError, match="template and constitution alone"):
        encode_prompt(tokenizer, template, "1. Be calm.", "I want to fix the tent.", 5)
