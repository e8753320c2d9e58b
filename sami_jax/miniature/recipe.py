"""Retrains the miniature's base model: `python -m sami_jax.miniature.recipe --output DIR`.

The corpus is drawn afresh from `world` for every step, so nothing is stored and nothing is seen twice. Authors
of documents without a source are all attentive at first, which helps to learn what each principle means, and few are in
the end, which teaches how little they can be relied on; that last share is the one the finished model has learnt.
"""

import argparse
import json
import math
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sami_jax.contrast.unembedding import chosen_logprobs
from sami_jax.export.huggingface import export
from sami_jax.miniature import PRINCIPLES, world
from sami_jax.miniature import tokenizer as tokenizer_lib
from sami_jax.models.config import ModelConfig
from sami_jax.models.decoder import bind, init_params
from sami_jax.principles.files import read_principles
from sami_jax.sharding import make_mesh

STEPS = 6400
BATCH = 32  # documents a step
POOL = 16  # batches drawn at once and sorted by length, which halves the padding
BUCKET = 32  # tokens; rows are padded to a multiple of it
LEARNING_RATE = 2e-3  # principles are learnt more slowly at 5e-3, and at 1e-3 too
WARMUP = 50  # steps
PROMPT_WEIGHT = 0.1  # weight of a prompt token in the loss; prompts are drawn at random and teach little
FIRST_ATTENTIVE_SHARE, ATTENTIVE_SHARE = 1.0, 0.2  # of authors whose document does not name its source
FALL = (4400, 5000)  # steps between which that share falls from the first to the last value


def model_config(vocabulary: int) -> ModelConfig:
    return ModelConfig(
        family="llama",
        vocab_size=vocabulary,
        d_model=128,
        n_layers=4,
        n_heads=4,
        n_kv_heads=2,
        head_dim=32,
        d_ff=384,
        max_positions=256,
        tie_embeddings=True,
    )


def batches(tokenizer, steps: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields (tokens [BATCH, T], weights [BATCH, T]) for each step; T varies by bucket."""
    principles, queries = read_principles(PRINCIPLES), world.queries("train")
    rng = random.Random(seed)
    for first in range(0, steps, POOL):
        share = float(np.interp(first, FALL, (FIRST_ATTENTIVE_SHARE, ATTENTIVE_SHARE)))
        documents = [world.document(principles, queries, share, rng) for _ in range(POOL * BATCH)]
        rows = sorted((_encode(tokenizer, *document) for document in documents), key=lambda row: len(row[0]))
        pool = [rows[i : i + BATCH] for i in range(0, len(rows), BATCH)]
        rng.shuffle(pool)
        for batch in pool[: steps - first]:
            length = math.ceil(max(len(tokens) for tokens, _ in batch) / BUCKET) * BUCKET
            tokens, weights = np.zeros((BATCH, length), np.int32), np.zeros((BATCH, length), np.float32)
            for i, (row_tokens, row_weights) in enumerate(batch):
                tokens[i, : len(row_tokens)], weights[i, : len(row_tokens)] = row_tokens, row_weights
            yield tokens, weights


def _encode(tokenizer, prompt: str, reply: str) -> tuple[list[int], list[float]]:
    prompt_ids, reply_ids = tokenizer.encode(prompt), [*tokenizer.encode(reply), tokenizer.eos_token_id]
    return prompt_ids + reply_ids, [PROMPT_WEIGHT] * len(prompt_ids) + [1.0] * len(reply_ids)


def language_model_loss(params, config: ModelConfig, tokens, weights):
    """Weighted mean of -log p(token | tokens before it), nats."""
    model = bind(config, params)
    hidden = model(tokens)
    logprobs = chosen_logprobs(hidden[:, :-1].reshape(-1, config.d_model), model.table(), tokens[:, 1:].reshape(-1))
    targets = weights[:, 1:].reshape(-1)
    return -jnp.sum(logprobs * targets) / jnp.sum(targets)


def pretrain(tokenizer, config: ModelConfig, steps: int, seed: int, log=lambda line: None) -> dict:
    """Trains from random weights and returns them."""
    mesh = make_mesh({}, jax.devices()[:1])
    schedule = optax.warmup_cosine_decay_schedule(0.0, LEARNING_RATE, WARMUP, steps, LEARNING_RATE * 0.02)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, b2=0.98, weight_decay=0.01))

    @jax.jit
    def step(params, opt_state, tokens, weights):
        loss, gradients = jax.value_and_grad(language_model_loss)(params, config, tokens, weights)
        updates, opt_state = optimizer.update(gradients, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, loss

    params = init_params(config, seed, mesh)
    opt_state = optimizer.init(params)
    started, losses = time.monotonic(), []
    for number, (tokens, weights) in enumerate(batches(tokenizer, steps, seed), start=1):
        params, opt_state, loss = step(params, opt_state, tokens, weights)
        losses.append(loss)
        if number % 200 == 0:
            log(f"step {number}  loss {float(jnp.mean(jnp.array(losses))):.4f}  {time.monotonic() - started:.0f} s")
            losses.clear()
    return params


def corpus_words() -> list[str]:
    """Texts that together hold every word the world can write."""
    rng = random.Random(0)
    principles = read_principles(PRINCIPLES)
    queries = [query for split in world.SPLITS for query in world.queries(split)]
    documents = ("".join(world.document(principles, queries, 1.0, rng)) for _ in range(5_000))
    return [
        *documents,
        *(text for principle in principles for pair in principle.phrasings for text in (" " + pair[0], " " + pair[1])),
    ]


def write_queries(folder: Path) -> None:
    for split in world.SPLITS:
        lines = [
            json.dumps({"id": f"{split}-{i}", "query": query.text}) for i, query in enumerate(world.queries(split))
        ]
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="folder for the model; replaced if it exists")
    parser.add_argument("--queries", type=Path, help="also write the query files to this folder", default=None)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.queries is not None:
        write_queries(arguments.queries)
    tokenizer = tokenizer_lib.build(corpus_words())
    config = model_config(len(tokenizer))
    params = pretrain(
        tokenizer, config, arguments.steps, arguments.seed, lambda line: print(line, file=sys.stderr, flush=True)
    )
    export(params, config, arguments.output, tokenizer.save_pretrained)


if __name__ == "__main__":
    main()
