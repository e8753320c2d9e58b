"""Which words of a response its constitution caused, and which of its principles: pointwise mutual information, by token.

pmi_t = log p(y_t | c_i, x, y_<t) - log mean_k p(y_t | c_k, x, y_<t), nats, where k goes over the C different constitutions under
which query x was answered; at most log C. The mean weighs all of them alike, whatever the words before have given away,
lest only the first telling word of a response count. So the tokens' values do not sum to the response's information.

A principle's share is what the response loses in log-probability, in nats, when its line is taken out of the constitution.
Prompts are those of training, as in the mutual information of the evaluation.
"""

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from sami_jax.contrast.scoring import score_tokens, tracked
from sami_jax.data.batches import ContrastExample
from sami_jax.data.dialogue import Message, of_row
from sami_jax.data.fields import BadRow, id_of
from sami_jax.data.pairs import clean, encode_pairs
from sami_jax.data.queries import Query
from sami_jax.data.replies import sampled_ids
from sami_jax.data.rows import read_rows
from sami_jax.data.templates import say_cut
from sami_jax.errors import UserError
from sami_jax.models.pretrained import ModelFolder
from sami_jax.principles import constitutions as composing

KEYS = ("id", "query", "constitution", "response")


@dataclasses.dataclass(frozen=True)
class Answer:
    """A response, and what its likelihood is compared with."""

    id: str
    query: str
    response: str
    constitutions: tuple[str, ...]  # C different texts; the response's own is among them
    own: int  # its place
    turns: tuple[Message, ...] = ()  # of a query that is a dialogue
    token_ids: tuple[int, ...] = ()  # of the response, as it was sampled, where that is known

    @property
    def statements(self) -> list[str]:
        return composing.statements(self.constitutions[self.own])

    @property
    def contexts(self) -> list[str]:
        """The C constitutions, then the own one without each of its K statements."""
        stated = self.statements
        return [*self.constitutions, *(composing.numbered(stated[:k] + stated[k + 1 :]) for k in range(len(stated)))]


def read_answers(file: Path, config: ConfigDict) -> list[Answer]:
    """Reads {"id", "query", "constitution", "response"} lines, with "token_ids" or without, in order; lines of one id are answers to one query.

    Args:
      config: a run's `filter`; responses are cleaned as for training.
    Raises:
      UserError: a line that lacks a text, an id with one line or with two queries; names file and line.
    """

    def checked(row: dict) -> dict:
        if wrong := next((key for key in KEYS[1:] if not isinstance(row[key], str)), None):
            raise BadRow(f"{wrong!r} must be a text", "; mend the line")
        return row | {"id": id_of(row), "turns": of_row(row), "token_ids": sampled_ids(row.get("token_ids"))}

    rows = read_rows(file, (*KEYS, "turns", "token_ids"), KEYS, checked)
    groups: dict[str, list[tuple[int, dict]]] = {}
    for number, row in rows:
        groups.setdefault(row["id"], []).append((number, row))
    for id, ((first, row), *others) in groups.items():
        if not others:
            raise UserError(
                f"{file}:{first}: id {id!r} has this line only; add the query's answer under another constitution"
            )
        if other := next((number for number, another in others if another["query"] != row["query"]), None):
            raise UserError(f"{file}:{other}: id {id!r} has another query on line {first}; give each query its own id")
    answers = []
    for _, row in rows:
        constitutions = tuple(dict.fromkeys(other["constitution"] for _, other in groups[row["id"]]))
        own = constitutions.index(row["constitution"])
        response = clean(row["response"], config)
        asked = (row["id"], row["query"], response, constitutions, own)
        answers.append(Answer(*asked, row["turns"], tuple(row["token_ids"])))
    return answers


def encode_answers(
    answers: Sequence[Answer], model: ModelFolder, prompt: ConfigDict, prefix: str = ""
) -> list[ContrastExample]:
    """One example an answer: its response behind a training prompt for each of its contexts.

    Args:
      prefix: a run's `filter.prefix`, which responses begin with.
    Raises:
      UserError: a text that the model's context cannot hold.
    """
    rows = [
        {
            **Query(a.id, a.query, turns=a.turns).row,
            "constitutions": a.contexts,
            "responses": [a.response],
            "finish_reasons": ["stop"],
            "token_ids": [a.token_ids],
        }
        for a in answers
    ]
    encoded = encode_pairs(rows, model.replies(None, prefix), prompt.training, prompt.max_tokens)
    say_cut(prompt, encoded.cut, "the prompts that are compared")
    for answer, example in zip(answers, encoded.examples, strict=True):
        if example.longest_text > model.config.max_positions:
            raise UserError(
                f"id {answer.id!r}: prompt and response of {example.longest_text} tokens exceed the model's context of {model.config.max_positions}; shorten them"
            )
    return encoded.examples


def explain(
    model: ModelFolder,
    params: dict,
    answers: Sequence[Answer],
    examples: Sequence[ContrastExample],
    ids: Mapping[str, str],
    mesh: jax.sharding.Mesh,
    batch_size: int,
) -> Iterator[tuple[int, dict]]:
    """Yields each answer's place and its explanation as `sami explain` writes it.

    Args:
      examples: of the answers, by `encode_answers`.
      ids: statement -> id of its principle.
    """
    for place, logprobs in score_tokens(params, model.config, examples, mesh, batch_size):
        answer, (response,) = answers[place], examples[place].responses
        by_ids = model.chat or answer.token_ids
        texts = said_texts(model.tokenizer, response) if by_ids else token_texts(model.tokenizer, answer.response)
        yield place, explanation(answer, texts, logprobs, ids)


def explain_all(
    model: ModelFolder,
    params: dict,
    answers: Sequence[Answer],
    config: ConfigDict,
    ids: Mapping[str, str],
    mesh: jax.sharding.Mesh,
    batch_size: int,
) -> list[dict]:
    """The explanations of all answers, in order, behind a progress bar.

    Args:
      config: a run's; its `prompt` and `filter` are what counts.
    Raises:
      UserError: what `encode_answers` and `token_texts` raise.
    """
    examples = encode_answers(answers, model, config.prompt, config.filter.prefix)
    explained = explain(model, params, answers, examples, ids, mesh, batch_size)
    found = dict(tracked(explained, "explaining", examples))
    return [found[place] for place in range(len(answers))]


def explanation(answer: Answer, texts: Sequence[str], logprobs: np.ndarray, ids: Mapping[str, str]) -> dict:
    """An answer's explanation.

    Args:
      texts: of its L tokens.
      logprobs: [C + K, L] of each token under each of the answer's contexts.
    """
    count = len(answer.constitutions)
    shares = logprobs[answer.own] - logprobs[count:]
    return {
        "id": answer.id,
        "query": answer.query,
        "constitution": answer.constitutions[answer.own],
        "response": answer.response,
        "tokens": [
            {"text": text, "pmi": value}
            for text, value in zip(texts, pmi(logprobs[:count], answer.own).tolist(), strict=True)
        ],
        "principles": [
            {"id": ids.get(text), "text": text, "share": float(share.sum()), "tokens": share.tolist()}
            for text, share in zip(answer.statements, shares, strict=True)
        ],
    }


def pmi(logprobs: np.ndarray, own: int) -> np.ndarray:
    """Pointwise mutual information of each token with constitution `own`, [L] nats, from log-probs [C, L]."""
    return logprobs[own] - (np.logaddexp.reduce(logprobs, axis=0) - np.log(np.float32(len(logprobs))))


def token_texts(tokenizer, text: str) -> list[str]:
    """The text cut into what each of its tokens stands for; joined, they are the text.

    A token takes what lies between the end of the one before and its own, so the space before a word belongs to the word
    whatever the tokenizer reports; of the tokens that share a character, the first takes it, and the others are "".

    Raises:
      UserError: a tokenizer that does not tell where its tokens lie.
    """
    if not tokenizer.is_fast:
        raise UserError(f"{tokenizer.name_or_path}: the tokenizer tells no places of tokens; save it as tokenizer.json")
    offsets = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    ends = list(itertools.accumulate((end for _, end in offsets), max))
    ends[-1:] = [len(text)] * bool(ends)
    return [text[start:end] for start, end in itertools.pairwise([0, *ends])]


def said_texts(tokenizer, ids: Sequence[int]) -> list[str]:
    """What each token adds to the text that the tokens before it spell, for ids that no text was cut into.

    Of the tokens that share a character, the last takes it, and the others are ""; so are special tokens, which no text shows.
    """
    texts, before = [], ""
    for end in range(1, len(ids) + 1):
        spelt = tokenizer.decode(ids[:end], skip_special_tokens=True, clean_up_tokenization_spaces=False)
        whole = end == len(ids) or not spelt.endswith("\ufffd")
        texts.append(spelt[len(before) :] if whole else "")
        before = spelt if whole else before
    return texts


def by_word(texts: Sequence[str], values: Sequence[float]) -> list[tuple[str, float]]:
    """Tokens joined to words, each with the white space before it, their values summed: of log-ratios, the whole word's."""
    words: list[tuple[str, float]] = []
    for text, value in zip(texts, values, strict=True):
        if words and (words[-1][0].isspace() or not text[:1].isspace()):
            before, sum_before = words.pop()
            text, value = before + text, sum_before + value
        words.append((text, value))
    return words
