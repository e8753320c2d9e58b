"""The same conversation put to a server of the OpenAI protocol and to our own sampler."""

from pathlib import Path

import jax

from sami_jax.models.pretrained import open_model
from sami_jax.sampling.decoding import generate
from sami_jax.sampling.drawing import SamplingOptions


def ask(url: str, folder: Path, messages: list[dict], max_tokens: int):
    """The served model's most likely answer, as a choice of the client that everybody uses."""
    from openai import OpenAI

    client = OpenAI(base_url=url, api_key="none", timeout=120)
    answer = client.chat.completions.create(
        model=str(folder), messages=messages, max_tokens=max_tokens, temperature=0.0
    )
    return answer.choices[0]


def greedy(folder: Path, messages: list[dict], max_tokens: int, mesh: jax.sharding.Mesh) -> str:
    """The most likely answer of the model in the same folder by our sampler."""
    model = open_model(folder)
    prompt = model.tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    options = SamplingOptions(temperature=0.0, max_new_tokens=max_tokens)
    how = dict(end_tokens=model.end_tokens, decode=model.decode, mesh=mesh, batch_size=1)
    [answer] = generate(model.load(mesh), model.config, [prompt], [0], options, **how)
    return answer.text
