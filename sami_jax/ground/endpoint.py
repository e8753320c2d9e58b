"""Any server that speaks the OpenAI protocol: OpenAI's own, vLLM, `transformers serve`, llama.cpp, and others."""

import copy
import json
import os
import re
import threading
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeVar

from sami_jax.errors import TryAgain, UserError
from sami_jax.ground import credentials
from sami_jax.ground.redaction import public_address, redact
from sami_jax.ground.refusals import LONGEST, Refusal, error_in, one_line, read_refusal
from sami_jax.ground.server_replies import NoReply, NotOfProtocol, read_answer, read_reply
from sami_jax.ground.terminal import say

T = TypeVar("T")

APIS = ("chat", "completions")
# What a request can do without, the least needed first. Newer models of OpenAI's take the last two's other name.
OPTIONAL = ("seed", "temperature", "max_tokens", "max_completion_tokens")
_OTHER_NAME = {"max_tokens": "max_completion_tokens"}
_NOT_ABOUT_OPTIONS = (401, 403, 404, 408, 409, 429, 502, 503, 504)


class Unusable(UserError):
    """The server answered this request without a reply that can be used; it may answer others, or this one another time."""

    def __init__(self, where: str, reason: str, words: str = "", advice: str = "", text: str = ""):
        """
        Args:
          reason: what such answers are counted under; `words` are the server's own, already redacted.
          text: what came before a reply was cut off.
        """
        quoted = f': "{words}"' if words else ""
        self.reason, self.told, self.text = reason, f"{reason}{quoted}" + (f"; {advice}" if advice else ""), text
        super().__init__(f"{where}: {self.told}")


class Refused(Unusable):
    """The server will not answer this request however often it is asked."""


class Endpoint:
    """One model behind an OpenAI-compatible server.

    A request that meets a 408, 409, 429 or 5xx answer, no answer in time or no connection is tried again, with growing
    pauses, `retries` times at most. An option that the server refuses is left out from then on, which is said once.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        api: str = "chat",
        key_variable: str = "OPENAI_API_KEY",
        timeout: float = 120.0,
        retries: int = 4,
    ):
        """
        Args:
          api: "chat" for /chat/completions, "completions" for /completions, which base models need.
          key_variable: name of the environment variable that holds the key; servers without keys need none.
          timeout: seconds a request may take.
        Raises:
          UserError: the openai package is missing, the address is no URL, or the key none that can be sent.
        """
        try:
            import openai
        except ImportError:
            raise UserError("an endpoint needs the openai package: pip install 'sami_jax[openai]'") from None
        self.where = f"{public_address(base_url)}, model {model}"
        if not base_url.startswith(("http://", "https://")):
            raise UserError(
                f"{base_url.rpartition('@')[2]}: not an address; give the server's base URL, for example http://localhost:8000/v1"
            )
        self._errors = openai
        self._api, self._model, self._key_variable = api, model, key_variable
        key = _key(key_variable)
        # What was sent and may come back in the server's words.
        self._sent = [key] if len(key) > 3 and not credentials.is_placeholder(key) else []
        for secret in (*self._sent, *credentials.passwords(base_url)):
            credentials.give(secret)
        try:
            self._client = openai.OpenAI(base_url=base_url, api_key=key or "none", timeout=timeout, max_retries=retries)
        except Exception as error:  # of an address or a proxy, of many types
            raise UserError(
                f"{public_address(base_url)}: cannot be asked ({self._shown(str(error))}); mend it"
            ) from None
        self._left_out: dict[str, str] = {}  # option -> the server's reason
        self._untold: list[str] = []
        self._changing = threading.Lock()

    def with_retries(self, retries: int) -> "Endpoint":
        """The same, with what is known of the options that it takes, and with so many tries after the first."""
        other = copy.copy(self)
        other._client = self._client.with_options(max_retries=retries)
        return other

    def complete(self, prompt: str, *, temperature: float, max_tokens: int, seed: int) -> str:
        """The model's reply.

        Raises:
          UserError: the server did not give one, after all tries; one line that says why. `Unusable`, if others may fare better.
        """
        options = {"temperature": temperature, "max_tokens": max_tokens, "seed": seed}
        if self._api == "chat":
            question = {"messages": [{"role": "user", "content": prompt}]}
            return self._ask("/chat/completions", question, options, OPTIONAL, read_reply)
        return self._ask("/completions", {"prompt": prompt}, options, OPTIONAL, read_reply)

    def completion(self, question: dict[str, Any], options: dict[str, Any], read: Callable[[Any], T]) -> T:
        """What `read` makes of the answer to a request of /completions.

        Args:
          options: of the request, all such as it can do without.
          read: takes the answer's JSON; raises `NotOfProtocol` where it is not what was asked for.
        Raises:
          UserError: as `complete`.
        """
        return self._ask("/completions", question, options, tuple(options), read)

    def post(self, address: str, body: dict[str, Any]) -> None:
        """Something that the protocol has no name for.

        Args:
          address: whole, beginning with http.
        Raises:
          UserError: the server refused it, or failed.
        """
        status, answer, tries = self._post(address, body)
        if status >= 300:
            self._refuse(status, read_refusal(answer), tries)

    def _ask(
        self,
        path: str,
        question: dict[str, Any],
        options: dict[str, Any],
        optional: Sequence[str],
        read: Callable[[Any], T],
    ) -> T:
        while True:  # with fewer options each time that the server does not know one
            taken = self._taken(options)
            status, answer, tries = self._post(path, {"model": self._model, **question, **taken})
            content = None
            try:
                if status == 200 and not error_in(content := read_answer(answer)):
                    self._tell_left_out()
                    return read(content)
            except NoReply as none:
                self._give_up(none, taken)
            except NotOfProtocol as wrong:
                reason = f"the answer is not of the OpenAI protocol ({wrong})"
                words = self._shown(one_line(answer))
                raise Refused(self.where, reason, words, "check the address and --api") from None
            refusal = read_refusal(json.dumps(content) if content else answer)
            option = None if status in _NOT_ABOUT_OPTIONS else refusal.unknown_option(taken, optional)
            if option is None:
                self._refuse(status, refusal, tries)
            self._leave_out(option, refusal)

    def _post(self, path: str, body: dict[str, Any]) -> tuple[int, str, int]:
        """The status and text of the answer, and after how many tries it came."""
        try:
            return 200, self._client.post(path, body=body, cast_to=str), 1
        except self._errors.APIStatusError as error:
            return error.status_code, error.response.text, _tries(error)
        except self._errors.APITimeoutError as error:
            raise TryAgain(
                f"{self.where}: no answer in time, {_tries(error)} times; check the server, or give --timeout more seconds"
            ) from None
        except self._errors.APIConnectionError as error:
            cause = self._shown(str(error.__cause__ or error))
            raise TryAgain(
                f"{self.where}: no connection ({cause}), {_tries(error)} times; check the address and the server"
            ) from None
        except (self._errors.OpenAIError, ValueError, TypeError) as error:
            raise UserError(
                f"{self.where}: the request cannot be sent ({self._shown(str(error))}); check the address"
            ) from None

    def _taken(self, options: dict[str, Any]) -> dict[str, Any]:
        """The options that the server takes, as far as is known."""
        with self._changing:
            taken = {}
            for name, value in options.items():
                while name in self._left_out and name in _OTHER_NAME:
                    name = _OTHER_NAME[name]
                if name not in self._left_out:
                    taken[name] = value
            return taken

    def _leave_out(self, option: str, refusal: Refusal) -> None:
        """Leaves an option out from now on."""
        with self._changing:
            if option not in self._left_out:
                self._left_out[option] = self._shown(refusal.words)
                self._untold.append(option)

    def _tell_left_out(self) -> None:
        with self._changing:
            told, self._untold = self._untold, []
            if told:
                instead = [
                    f"{new} in place of {old}" for old, new in _OTHER_NAME.items() if old in told and new not in told
                ]
                without = [name for name in told if name not in _OTHER_NAME or _OTHER_NAME[name] in told]
                how = [f"without {' and '.join(without)}"] * bool(without) + [f"with {one}" for one in instead]
                say(f'{self.where}: asked {", ".join(how)}: the server refused: "{self._left_out[told[0]]}"')

    def _give_up(self, none: NoReply, taken: dict[str, Any]) -> NoReturn:
        """Says why an answer holds no reply."""
        if not none.cut_off:
            raise Unusable(self.where, none.reason, self._shown(none.words), text=none.text) from None
        limit = next((taken[name] for name in ("max_tokens", "max_completion_tokens") if name in taken), None)
        reason = f"cut off at {limit} tokens" if limit else "cut off by the server"
        raise Unusable(self.where, reason, advice="give more by --max_tokens", text=none.text) from None

    def _refuse(self, code: int, refusal: Refusal, tries: int) -> NoReturn:
        words = self._shown(refusal.words)
        said = f': "{words}"' if words else ""
        if refusal.too_long or code == 413:
            raise Refused(
                self.where, f"too long for the model (status {code})", words, "use a model with a longer context"
            )
        if refusal.filtered and code not in (401, 429):
            raise Refused(self.where, f"withheld by the server's filter (status {code})", words)
        if code in (401, 403):
            advice = f"put the key into the environment variable {self._key_variable}"
            raise UserError(f"{self.where}: not let in (status {code}){said}; {advice}")
        if code == 404:
            advice = "check the model's name, the base URL and --api"
            raise UserError(f"{self.where}: no such model or address (status 404){said}; {advice}")
        if code == 429:
            raise TryAgain(
                f"{self.where}: too many requests (status 429), {tries} times{said}; wait, or use another key"
            )
        if code >= 500:
            raise TryAgain(f"{self.where}: the server failed (status {code}), {tries} times{said}; see its log")
        reason = "an error in place of a reply" if code == 200 else f"the request was refused (status {code})"
        about_length = any(name in refusal.words for name in ("max_tokens", "max_completion_tokens"))
        advice = "give fewer by --max_tokens" if about_length else "check the model's name and --api"
        raise Refused(self.where, reason, words, advice)

    def _shown(self, words: str) -> str:
        """A text of others in one short line. Secrets go first: a cut could halve one."""
        words = " ".join(redact(words, *self._sent).encode("utf-8", "replace").decode().split())
        return words if len(words) <= LONGEST else words[: LONGEST - 1] + "\u2026"


def _key(variable: str) -> str:
    """The key; a mounted secret ends in a newline.

    Raises:
      UserError: it holds what no header can carry; says where. Or the name is none, and may be the key itself.
    """
    if not re.fullmatch(r"[A-Za-z_]\w*", variable) or (variable not in os.environ and variable != variable.upper()):
        raise UserError("--key_variable: no variable of that name is set; give the name of the variable, not the key")
    key = os.environ.get(variable, "").strip()
    for place, char in enumerate(key, start=1):
        if not (char.isascii() and char.isprintable()):
            raise UserError(
                f"{variable}: the key's character {place} of {len(key)} is one that cannot be sent; copy the key anew"
            )
    return key


def _tries(error: Any) -> int:
    return int(error.request.headers.get("x-stainless-retry-count", 0)) + 1
