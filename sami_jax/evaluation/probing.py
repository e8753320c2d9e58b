"""What a study asks of each model besides its evaluation: how much several replies to one prompt differ, and how likely it finds texts
that were not trained on."""

import math
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from sami_jax.contrast.scoring import score, tracked
from sami_jax.data.batches import ContrastExample
from sami_jax.errors import UserError
from sami_jax.evaluation.diversity import distinct, entropy
from sami_jax.evaluation.measure import EvaluationSet, answered
from sami_jax.models.pretrained import ModelFolder
from sami_jax.sampling.samplers import OwnSampler

QUERIES, REPLIES = 16, 8  # of an evaluation set; to each of its prompts
LONGEST = 1024  # tokens that are read of a text


def diversity(
    config: ConfigDict,
    model: ModelFolder,
    params: dict,
    evaluation_set: EvaluationSet,
    mesh: jax.sharding.Mesh,
    folder: Path,
) -> dict[str, float]:
    """Means over prompts of Ent-2, nats, and distinct-2 of REPLIES replies to one prompt, in words.

    Args:
      params: weights in the compute dtype.
      evaluation_set: the first QUERIES of its queries are asked, under each of their constitutions.
      folder: where replies are kept, in several.jsonl.
    """
    queries, constitutions = evaluation_set.queries[:QUERIES], evaluation_set.constitutions[:QUERIES]
    several = EvaluationSet("several", queries, [own * REPLIES for own in constitutions])
    sampler = OwnSampler(model, params, mesh, config.sampling.batch_size)
    rows, _ = answered(config, sampler, several, folder)
    words = [row["response"].split() for row in rows]
    count = len(constitutions[0])
    groups = [
        words[start : start + count * REPLIES][place::count]
        for start in range(0, len(words), count * REPLIES)
        for place in range(count)
    ]
    return {
        "entropy_2": float(np.mean([entropy(group) for group in groups])),
        "distinct_2_of_a_prompt": float(np.mean([distinct(group) for group in groups])),
    }


def perplexity(
    model: ModelFolder, params: dict, texts: Sequence[str], mesh: jax.sharding.Mesh, batch_size: int
) -> float:
    """exp of the mean negative log-likelihood a token, of all tokens but the first of each text, which begins with what the tokenizer
    begins texts with.

    Args:
      params: weights in the compute dtype.
      texts: of each the first LONGEST tokens are read, or as many as the model takes.
    Raises:
      UserError: no text has a second token.
    """
    longest = min(LONGEST, model.config.max_positions)
    ids = [tuple(model.tokenizer.encode(text))[:longest] for text in texts]
    examples = [ContrastExample((one[:1],), (one[1:],)) for one in ids if len(one) > 1]
    if not examples:
        raise UserError("--text: no text of two tokens or more; give a file with texts")
    scored = tracked(score(params, model.config, examples, mesh, batch_size), "texts", examples)
    total = sum(float(summed[0, 0]) for _, summed in scored)
    return math.exp(-total / sum(len(example.responses[0]) for example in examples))
