"""Completions of prompts' token ids by a server, as token ids: what servers of the OpenAI protocol take and give differs.

    vLLM           ids in; "token_ids" where `return_token_ids` asks for them, before that "token_id:7" as names in its log-probs
    llama.cpp      ids in; ids in its log-probs' "content", but for those that end within a character, and those of a stop text;
                   all of them in "__verbose" where it is told to be verbose
    SGLang         ids in; texts
    transformers   texts in, texts out; samples only where a whole generation config says so

So a request asks for ids in each of these ways, and leaves out what a server refuses. Where a text comes, it is encoded again: it counts as what was
sampled only if it reads as it came, in as many tokens as the server counted.
"""

import json
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from sami_jax.errors import UserError
from sami_jax.ground.endpoint import Endpoint, Refused
from sami_jax.ground.server_replies import CUT_OFF, NoReply, NotOfProtocol
from sami_jax.models.pretrained import ModelFolder
from sami_jax.sampling.decoding import Response, response_of
from sami_jax.sampling.drawing import SamplingOptions

ENDED = ("stop", "eos", "eos_token", "stop_sequence", "end_turn")  # reasons why a text ended by itself
TOP_SEED = 2**31  # above it, seeds mean other things to some servers
_ID_NAME = "token_id:"


class Answer(NamedTuple):
    """What a server said, as far as it did."""

    text: str
    ids: tuple[int, ...] | None  # as sampled; the one that ended it may be among them
    logprobs: tuple[float, ...] | None  # of the ids; of the model itself, before temperature and nucleus
    finish_reason: str  # stop | length
    tokens: int | None  # that were sampled


class Completion(NamedTuple):
    response: Response  # with no ids where those that were sampled are not known
    logprobs: tuple[float, ...] | None  # of its ids


class Completions:
    """One model behind one server."""

    def __init__(self, endpoint: Endpoint, model: ModelFolder, takes_ids: bool = True):
        """
        Args:
          takes_ids: whether the server does; else texts. See `try_out`.
        """
        self._endpoint, self._model, self._takes_ids = endpoint, model, takes_ids

    def try_out(self, prompt: Sequence[int]) -> bool:
        """Has one token sampled; whether the server takes ids.

        Raises:
          UserError: it takes neither these nor texts; `TryAgain`, if it may yet.
        """
        options = SamplingOptions(max_new_tokens=1)
        self._takes_ids = True
        try:
            self.complete(prompt, 0, options, self._model.decode)
        except Refused as refused:
            self._takes_ids = False
            try:
                self.complete(prompt, 0, options, self._model.decode)
            except Refused as again:
                raise UserError(f"{refused}; and of a text: {again.told}") from None
        return self._takes_ids

    def complete(
        self, prompt: Sequence[int], seed: int, options: SamplingOptions, decode: Callable[[list[int]], str]
    ) -> Completion:
        """
        Raises:
          UserError: the server did not answer, after all tries.
        """
        question: dict[str, Any] = {
            "prompt": list(prompt) if self._takes_ids else self._as_text(prompt),
            "max_tokens": options.max_new_tokens,
            "temperature": float(options.temperature),
        }
        if options.temperature:
            question["top_p"] = float(options.top_p)
        if options.stop:
            question["stop"] = list(options.stop)
        # Of a request that can do without; the least needed first. Defaults of servers, as of a folder's generation config, are switched off.
        extras: dict[str, Any] = {
            "samplers": ["temperature", "top_k", "top_p"],  # of llama.cpp, in our order
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "return_tokens_as_token_ids": True,  # token ids are no passwords  # nosec B105
            "return_token_ids": True,  # nosec B105
            "return_tokens": True,
            "logprobs": 1,
            "seed": seed % TOP_SEED,
        }
        if self._takes_ids:
            (question if options.top_k else extras)["top_k"] = options.top_k or -1
        else:
            (question if options.top_k else extras)["generation_config"] = self._generation_config(options)
        answer = self._endpoint.completion(question, extras, self._read)
        return _completion(answer, options, decode, self._model)

    def _generation_config(self, options: SamplingOptions) -> str:
        """Of transformers, which takes it whole or not at all."""
        ends = list(self._model.end_tokens)
        drawn = {"do_sample": True, "top_k": options.top_k} if options.temperature else {"do_sample": False}
        return json.dumps({**drawn, "eos_token_id": ends, "pad_token_id": ends[0]})

    def _as_text(self, ids: Sequence[int]) -> str:
        """
        Raises:
          UserError: no text has these ids.
        """
        tokenizer = self._model.tokenizer
        for kept in (ids, ids[1:]):  # a first token that the tokenizer puts there itself
            text = tokenizer.decode(list(kept), skip_special_tokens=False)
            if list(tokenizer.encode(text)) == list(ids):
                return text
        raise UserError(
            f"{self._endpoint.where}: takes texts alone, and no text has the tokens of a prompt; use a server that takes token ids"
        )

    def _read(self, content: Any) -> Answer:
        """
        Raises:
          NotOfProtocol, NoReply: it is no completion.
        """
        choices = content.get("choices") if isinstance(content, dict) else None
        choice = choices[0] if isinstance(choices, list) and choices else None
        if not isinstance(choice, dict) or not isinstance(choice.get("text"), str):
            raise NotOfProtocol("it has no choice with a text")
        finish = str(choice.get("finish_reason") or "").lower()
        if finish not in (*CUT_OFF, *ENDED):
            raise NoReply("broken off by the server", f"finish_reason {finish}")
        verbose = content.get("__verbose")
        ids, logprobs = _ids_and_logprobs(choice, verbose.get("tokens") if isinstance(verbose, dict) else None)
        if ids is not None and not all(type(id) is int and 0 <= id < self._model.config.vocab_size for id in ids):
            raise NotOfProtocol("token ids that the model has not")
        usage = content.get("usage")
        tokens = usage.get("completion_tokens") if isinstance(usage, dict) else None
        return Answer(choice["text"], ids, logprobs, "length" if finish in CUT_OFF else "stop", tokens)


def _ids_and_logprobs(choice: dict, all_ids: Any) -> tuple[tuple[int, ...] | None, tuple[float, ...] | None]:
    """In whatever shape they came.

    Args:
      all_ids: of a llama.cpp server that is told to be verbose.
    """
    ids, found = choice.get("token_ids", all_ids), choice.get("logprobs")
    ids = ids if isinstance(ids, list) else None
    logprobs = None
    if isinstance(found, dict) and isinstance(found.get("content"), list):
        parts = found["content"]
        if ids is None and all(isinstance(part, dict) and "id" in part for part in parts):
            ids = [part["id"] for part in parts]
        logprobs = [part.get("logprob") for part in parts if isinstance(part, dict)]
    elif isinstance(found, dict) and isinstance(found.get("tokens"), list):
        names = found["tokens"]
        if ids is None and all(isinstance(name, str) and name.startswith(_ID_NAME) for name in names):
            ids = [int(name.removeprefix(_ID_NAME)) for name in names]
        logprobs = found.get("token_logprobs")
    numbers = [float(x) for x in logprobs or () if isinstance(x, int | float) and math.isfinite(x)]
    whole = isinstance(logprobs, list) and len(numbers) == len(logprobs)
    return None if ids is None else tuple(ids), tuple(numbers) if whole else None


def _completion(
    answer: Answer, options: SamplingOptions, decode: Callable[[list[int]], str], model: ModelFolder
) -> Completion:
    """The response as our own sampler would give it."""
    sampled = answer.ids
    if sampled is None:
        sampled = tuple(model.tokenizer.encode(answer.text, add_special_tokens=False)) if answer.text else ()
    response = response_of(list(sampled), options, decode, model.end_tokens)
    if answer.finish_reason == "stop":  # also by a token, or a stop text, that the server kept to itself
        response = response._replace(finish_reason="stop")
    cuts = [answer.text.find(stop) for stop in options.stop if stop in answer.text]
    text = answer.text[: min(cuts)] if cuts else answer.text
    if not _spells(answer, sampled, response.text.strip() == text.strip()):
        return Completion(response._replace(text=text, token_ids=()), None)
    logprobs = answer.logprobs if answer.logprobs and len(answer.logprobs) >= len(response.token_ids) else None
    return Completion(response, logprobs and logprobs[: len(response.token_ids)])


def _spells(answer: Answer, ids: Sequence[int], same: bool) -> bool:
    """Whether the ids are those that were sampled. A text that is encoded may have others, and llama.cpp loses those that end within a
    character.

    Args:
      ids: the answer's, or of its text.
      same: whether they read as the text does.
    """
    if answer.tokens is None:
        return same
    missing, ended = answer.tokens - len(ids), answer.finish_reason == "stop"
    if answer.ids is not None:
        return missing == 0 or (missing > 0 and ended and same)
    return same and 0 <= missing <= ended
