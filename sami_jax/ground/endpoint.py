"""Any server that speaks the OpenAI protocol: OpenAI's own, vLLM, `transformers serve`, llama.cpp, and others."""

import os
from typing import Any

from sami_jax.errors import UserError
from sami_jax.ground.redaction import redact

APIS = ("chat", "completions")


class Refused(UserError):
    """The server answers, but not to this request: too long for the model, or filtered."""


class Endpoint:
    """One model behind an OpenAI-compatible server.

    A request that meets a 408, 409, 429 or 5xx answer, no answer in time or no connection is tried again, with growing
    pauses, `retries` times at most.
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
          key_variable: environment variable that holds the key; servers without keys need none.
          timeout: seconds a request may take.
        Raises:
          UserError: the openai package is missing, or the address is no URL.
        """
        try:
            import openai
        except ImportError:
            raise UserError("an endpoint needs the openai package: pip install 'sami_jax[openai]'") from None
        if not base_url.startswith(("http://", "https://")):
            raise UserError(
                f"{base_url}: not an address; give the server's base URL, for example http://localhost:8000/v1"
            )
        self._errors = openai
        self._tries = retries + 1
        self._api, self._model, self._key_variable = api, model, key_variable
        self.where = f"{base_url}, model {model}"
        key = os.environ.get(key_variable, "").strip() or "none"  # a mounted secret ends in a newline
        self._client = openai.OpenAI(base_url=base_url, api_key=key, timeout=timeout, max_retries=retries)

    def complete(self, prompt: str, *, temperature: float, max_tokens: int, seed: int) -> str:
        """The model's reply.

        Raises:
          UserError: the server did not give one, after all tries; one line that says why. `Refused`, if it would answer others.
        """
        options: dict[str, Any] = {
            "model": self._model,
            "temperature": temperature,
            "max_tokens": max_tokens,
            "seed": seed,
        }
        try:
            if self._api == "chat":
                message: list[Any] = [{"role": "user", "content": prompt}]
                return _text(
                    self._client.chat.completions.create(messages=message, **options).choices[0].message.content
                )
            return _text(self._client.completions.create(prompt=prompt, **options).choices[0].text)
        except self._errors.APIStatusError as error:
            kind = Refused if error.status_code in (400, 413, 422) else UserError
            raise kind(f"{self.where}: {self._status(error.status_code)}") from None
        except self._errors.APITimeoutError:
            raise UserError(
                f"{self.where}: no answer in time, {self._tries} times; check the server, or give --timeout more seconds"
            ) from None
        except self._errors.APIConnectionError as error:
            cause = error.__cause__ or error
            raise UserError(
                f"{self.where}: no connection ({redact(str(cause))[:120]}), {self._tries} times; check the address and the server"
            ) from None
        except (self._errors.APIError, ValueError, AttributeError, TypeError, LookupError):
            raise UserError(
                f"{self.where}: the answer is not of the OpenAI protocol; check the address and --api"
            ) from None

    def _status(self, code: int) -> str:
        if code in (401, 403):
            return f"not let in (status {code}); put the key into the environment variable {self._key_variable}"
        if code == 404:
            return "no such model or address (status 404); check the model's name, the base URL and --api"
        if code == 429:
            return f"too many requests (status 429), {self._tries} times; wait, or use another key"
        if code >= 500:
            return f"the server failed (status {code}), {self._tries} times; see its log"
        return f"the request was refused (status {code}); check the model's name and --api"


def _text(content: Any) -> str:
    """What a message says: a text, nothing, or parts of which those that are text count; thoughts are none.

    Raises:
      TypeError: anything else.
    """
    if isinstance(content, list):
        said = [part["text"] for part in content if part.get("type") in ("text", "output_text")]
        return "".join(map(_text, said))
    if not isinstance(content, str | None):
        raise TypeError(f"no text: {content!r:.40}")
    return content or ""
