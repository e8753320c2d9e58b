"""What a study asks besides: against torch, and by hand."""

import math

import pytest
import torch
import transformers

from sami_jax import miniature
from sami_jax.config import defaults
from sami_jax.data.queries import Query
from sami_jax.errors import UserError
from sami_jax.evaluation import probing
from sami_jax.evaluation.diversity import entropy
from sami_jax.evaluation.measure import EvaluationSet
from sami_jax.evaluation.probing import QUERIES, REPLIES, diversity, perplexity
from sami_jax.models.pretrained import open_model

TEXTS = ["Hello. Thank you for the book.", "The dog is very big."]


def test_perplexity_is_torchs(mesh):
    model = open_model(miniature.BASE)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(miniature.BASE, dtype=torch.float32)
    total, tokens = 0.0, 0
    for text in TEXTS:
        ids = torch.tensor([model.tokenizer.encode(text)])
        total += theirs(ids, labels=ids).loss.item() * (ids.shape[1] - 1)
        tokens += ids.shape[1] - 1
    found = perplexity(model, model.load(mesh), ["", *TEXTS], mesh, 2)
    assert found == pytest.approx(math.exp(total / tokens), rel=1e-4)
    with pytest.raises(UserError, match="no text of two tokens"):
        perplexity(model, {}, [""], mesh, 2)


def test_replies_to_one_prompt_are_compared(monkeypatch):
    """Under each query's first constitution all are the same, under its second all are different."""
    asked = []

    def answered(config, sampler, evaluation_set: EvaluationSet, folder):
        asked.append(evaluation_set)
        texts = [text for n in range(REPLIES) for text in ("a b", f"a {n}")]
        return [{"response": text} for _ in evaluation_set.queries for text in texts], 0

    monkeypatch.setattr(probing, "answered", answered)
    many = EvaluationSet("trained", [Query(str(n), "q") for n in range(QUERIES + 1)], [((), ())] * (QUERIES + 1))
    found = diversity(defaults(), None, {}, many, None, None)  # pyright: ignore[reportArgumentType]
    assert len(asked[0].queries) == QUERIES and all(len(each) == 2 * REPLIES for each in asked[0].constitutions)
    assert found["distinct_2_of_a_prompt"] == pytest.approx((1 / REPLIES + 1) / 2)
    assert found["entropy_2"] == pytest.approx(math.log(REPLIES) / 2) == entropy([["a", str(n)] for n in range(8)]) / 2
