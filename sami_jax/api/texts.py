"""What goes into a training: principles, queries x, constitutions c. What comes of a model: responses y, and S."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float
from ml_collections import ConfigDict

from sami_jax.api.arguments import (
    UNCUT,
    Texts,
    check_batch_size,
    check_length,
    check_rows,
    checked_template,
    encode_examples,
    sampled,
)
from sami_jax.api.model import Model, check_choice
from sami_jax.contrast.likelihood import normalized
from sami_jax.contrast.scoring import score as score_batches
from sami_jax.data import queries as query_files
from sami_jax.data.replies import Reply
from sami_jax.data.templates import encode_prompt
from sami_jax.errors import UserError
from sami_jax.evaluation import explain as explaining
from sami_jax.ground.paths import path_of
from sami_jax.principles import constitutions as composing
from sami_jax.principles import files as principle_files
from sami_jax.principles.principle import Principle
from sami_jax.sampling.decoding import generate
from sami_jax.sampling.drawing import SamplingOptions
from sami_jax.sampling.rollout import seeds


def read_principles(folder: str | Path) -> tuple[Principle, ...]:
    """Every principle of a folder of YAML files, by id and version.

    Raises:
      UserError: no such folder, nothing in it, or a file that is not a principle; names the file.
    """
    return principle_files.read_principles(path_of(folder))


def read_queries(source: str | Path) -> list[str]:
    """The texts of a file's queries, in order: JSONL, CSV or Parquet, or a folder of them.

    Raises:
      UserError: no such file, or a row that cannot be used; names file and line.
    """
    return [query.text for query in query_files.read_queries(path_of(source))]


def compose(
    principles: Sequence[Principle],
    queries: int = 1,
    *,
    stated: int = 2,
    count: int = 2,
    rule: str = "complement",
    seed: int = 0,
) -> list[list[str]]:
    """Constitutions for `queries` queries, [B][C] texts: numbered lists of principles or of their antitheses.

    The C constitutions of one query are about the same principles, in the same order and wording; they differ in the sides they
    take (paper, sections 3 and 4).

    Args:
      stated: principles a constitution states.
      count: C.
      rule: complement (pairs of exact opposites) | positive_vs_rest (the authors' code) | iid (algorithm 1).
      seed: the same gives the same constitutions, whatever the number of queries.
    Raises:
      UserError: fewer principles than are to be stated, or a count that the rule cannot make.
    """
    check_choice("rule", rule, tuple(composing.RULES))
    if not 1 <= stated <= len(principles):
        raise UserError(
            f"stated={stated}: there are {len(principles)} principles; state 1 to {len(principles)} of them"
        )
    if count < 1 or (rule == "complement" and count % 2):
        raise UserError(f"count={count}: must be at least 1, and even where the rule 'complement' makes pairs")
    each = (composing.compose(principles, rule, stated, count, str(seed), index) for index in range(queries))
    return [[composing.text(constitution) for constitution in constitutions] for constitutions in each]


def sample(
    model: Model,
    queries: Sequence[str],
    constitutions: Texts,
    *,
    template: str | None = None,
    temperature: float = 1.0,
    top_p: float = 1.0,
    top_k: int = 0,
    max_new_tokens: int = 64,
    stop: Sequence[str] = (),
    seed: int = 0,
    batch_size: int = 64,
) -> list[list[str]]:
    """A response y to each query under each of its constitutions, [B][C] texts.

    The texts know the token ids that were sampled, and `score`, `explain` and `update` take these, id by id; of a text that is made from
    one of them, those that the tokenizer cuts it into.

    Args:
      queries: [B].
      constitutions: [B][C].
      template: of the prompt, with the fields {constitution} and {query}; None takes the miniature's, in a chat the query alone.
      temperature: 0 takes the likeliest token.
      top_p: smallest set of likeliest tokens whose probability reaches this; 1 keeps all.
      top_k: this many likeliest tokens; 0 keeps all.
      max_new_tokens: tokens a response has at most.
      stop: texts that end a response, and are cut off.
      seed: what is drawn depends on it and on the response's place alone.
      batch_size: responses sampled together: a matter of memory and speed.
    Raises:
      UserError: a setting out of range, or a prompt that the model's context cannot hold; says which.
    """
    template = checked_template(model, template)
    check_rows(len(queries), constitutions=constitutions)
    check_batch_size(batch_size)
    options = SamplingOptions(temperature, top_p, top_k, max_new_tokens, tuple(stop))
    prompts = []
    for b, (query, own) in enumerate(zip(queries, constitutions, strict=True)):
        for constitution in own:
            ids, _ = encode_prompt(model.files.tokenizer, template, constitution, query, UNCUT, model.files.chat)
            prompts.append(ids)
            check_length(model, len(ids) + max_new_tokens, f"queries[{b}]: prompt and max_new_tokens")
    responses = generate(
        model.params,
        model.files.config,
        prompts,
        seeds(str(seed), len(prompts)),
        options,
        end_tokens=model.files.end_tokens,
        decode=model.files.decode,
        mesh=model.mesh,
        batch_size=batch_size,
    )
    texts = iter([Reply(response.text, response.token_ids, response.finish_reason) for response in responses])
    return [[next(texts) for _ in own] for own in constitutions]


def score(
    model: Model,
    queries: Sequence[str],
    constitutions: Texts,
    responses: Texts,
    *,
    template: str | None = None,
    normalize: str = "mean",
    batch_size: int = 8,
) -> Float[np.ndarray, "B C C"]:
    """S[b, i, j] = log p(y_j | c_i, x_b) of each query, [B, C, C] float32, nats. `contrastive_loss` and `mi_lower_bound` take it,
    and `mi_posterior_bound` where it is summed.

    Args:
      queries: [B].
      constitutions: [B][C].
      responses: [B][C].
      template: of the prompt, with the fields {constitution} and {query}; None takes the miniature's, in a chat the query alone.
      normalize: mean, over a response's tokens (the authors' code) | sum, as the paper writes it.
      batch_size: queries scored together: a matter of memory and speed.
    Raises:
      UserError: lists that do not fit together, an empty response, or texts that the model's context cannot hold; says which.
      NotFinite: a log-likelihood is no number.
    """
    check_choice("normalize", normalize, ("mean", "sum"))
    check_batch_size(batch_size)
    examples = encode_examples(model, queries, constitutions, responses, template)
    count = len(constitutions[0])
    summed = np.zeros((len(examples), count, count), np.float32)
    for b, one in score_batches(model.params, model.files.config, examples, model.mesh, batch_size):
        summed[b] = one
    lengths = np.array([[len(response) for response in example.responses] for example in examples])
    return np.asarray(normalized(summed, lengths, normalize))


def explain(
    model: Model,
    queries: Sequence[str],
    constitutions: Texts,
    responses: Texts,
    *,
    template: str | None = None,
    batch_size: int = 8,
) -> list[list[list[tuple[str, float]]]]:
    """Which words of each response its constitution caused: [B][C] lists of (word, pointwise mutual information in nats).

    Args:
      queries: [B].
      constitutions: [B][C], those of one query all different, two at least.
      responses: [B][C].
      template: of the prompt, with the fields {constitution} and {query}; None takes the miniature's, in a chat the query alone.
      batch_size: responses looked at together: a matter of memory and speed.
    Raises:
      UserError: lists that do not fit together, constitutions that are equal, or texts that are too long; says which.
    """
    check_batch_size(batch_size)
    template = checked_template(model, template)
    check_rows(len(queries), constitutions=constitutions, responses=responses)
    answers = []
    for b, (query, own, said) in enumerate(zip(queries, constitutions, responses, strict=True)):
        if len(set(own)) < max(2, len(own)):
            raise UserError(
                f"constitutions[{b}]: must be different texts, two at least; nothing can be told from equal ones"
            )
        answers += [
            explaining.Answer(f"{b}", query, text, tuple(own), i, token_ids=sampled(text))
            for i, text in enumerate(said)
        ]
    prompt = ConfigDict({"training": template, "max_tokens": UNCUT})
    examples = explaining.encode_answers(answers, model.files, prompt)
    found = explaining.explain(model.files, model.params, answers, examples, {}, model.mesh, batch_size)
    words: list[list[tuple[str, float]]] = [[] for _ in answers]
    for place, one in found:
        tokens = one["tokens"]
        words[place] = explaining.by_word([token["text"] for token in tokens], [token["pmi"] for token in tokens])
    each = iter(words)
    return [[next(each) for _ in own] for own in responses]
