"""The two kinds of writer model: a local folder through our own sampler, and an endpoint. Both are `ask(prompt, attempt)`."""

from collections.abc import Callable
from pathlib import Path

from sami_jax.errors import UserError
from sami_jax.ground.endpoint import Endpoint, Unusable
from sami_jax.models.pretrained import open_model
from sami_jax.principles.writer import PRIME
from sami_jax.sampling.decoding import generate
from sami_jax.sampling.drawing import SamplingOptions
from sami_jax.sampling.rollout import seeds
from sami_jax.sharding import ALL_DEVICES, make_mesh

Ask = Callable[[str, int], str]


def endpoint_writer(endpoint: Endpoint, api: str, temperature: float, max_tokens: int, seed: int) -> Ask:
    """A writer behind a server; with api "completions" it completes a primed prompt."""

    def ask(prompt: str, attempt: int) -> str:
        options = {"temperature": temperature, "max_tokens": max_tokens, "seed": seed + attempt}
        if api == "chat":
            return endpoint.complete(prompt, **options)
        try:
            return PRIME + endpoint.complete(f"{prompt}\n{PRIME}", **options)
        except Unusable as none:
            none.text = PRIME + none.text if none.text else ""
            raise

    return ask


def local_writer(folder: Path, temperature: float, max_tokens: int, seed: int, chat: bool = True) -> Ask:
    """A model folder on this machine. It completes a primed prompt, or chats where its tokenizer has a chat template.

    Args:
      chat: let it.
    Raises:
      UserError: no usable model in the folder; when asked: a prompt that leaves no room to answer. `Unusable`: a reply that was cut off.
    """
    model = open_model(folder).chatting_if_it_can() if chat else open_model(folder)
    mesh = make_mesh(ALL_DEVICES)
    params = model.load(mesh, "float32")

    def ask(prompt: str, attempt: int) -> str:
        ids = model.chat.prompt("", prompt) if model.chat else model.tokenizer.encode(f"{prompt}\n{PRIME}")
        room = model.config.max_positions - len(ids)
        if room < 1:
            raise UserError(
                f"{folder}: the prompt's {len(ids)} tokens fill the model's context of {model.config.max_positions}; "
                "shorten the task, give fewer examples, or use a writer with a longer context"
            )
        limit = min(max_tokens, room)
        options = SamplingOptions(temperature=temperature, max_new_tokens=limit)
        drawn = seeds(f"{seed}/draft/{attempt}", 1)
        context = {"end_tokens": model.end_tokens, "decode": model.decode, "mesh": mesh, "batch_size": 1}
        [response] = generate(params, model.config, [ids], drawn, options, **context)
        text = response.text if model.chat else PRIME + response.text
        if response.finish_reason == "length":
            raise Unusable(str(folder), f"cut off at {limit} tokens", text=text)
        return text

    return ask
