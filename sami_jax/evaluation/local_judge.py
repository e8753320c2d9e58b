"""A judge on this machine: a model folder through our own kernels."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from sami_jax.contrast.scoring import score
from sami_jax.data.batches import ContrastExample
from sami_jax.evaluation.asking import LikelihoodJudge
from sami_jax.ground.endpoint import Unusable
from sami_jax.models.pretrained import open_model
from sami_jax.sharding import ALL_DEVICES, make_mesh

ANSWERS = (" A", " B")
PRIME = "Final Response:"


def local_judge(folder: Path, batch_size: int, dtype: str, chat: bool = True) -> LikelihoodJudge:
    """Asks which of A and B the model would write after "Final Response:", of its reply where its tokenizer has a chat template.

    Its weights are in memory while it is asked.

    Args:
      chat: use that template.
    Raises:
      UserError: no usable model.
    """
    model = open_model(folder).chatting_if_it_can() if chat else open_model(folder)
    mesh = make_mesh(ALL_DEVICES)
    answers = tuple(tuple(model.tokenizer.encode(answer, add_special_tokens=False)) for answer in ANSWERS)
    limit = model.config.max_positions - max(map(len, answers))

    def encoded(prompt: str) -> tuple[int, ...]:
        if model.chat:
            ids = model.chat.prompt("", prompt) + model.tokenizer.encode(PRIME, add_special_tokens=False)
        else:
            ids = model.tokenizer.encode(f"{prompt}\n{PRIME}")
        return tuple(ids)

    def scores(prompts: Sequence[str]) -> Iterator[tuple[int, tuple[float, float] | Unusable]]:
        questions, places = list(map(encoded, prompts)), []
        for place, ids in enumerate(questions):
            if len(ids) <= limit:
                places.append(place)
            else:
                words = f"{len(ids)} tokens, and it reads {limit} at most"
                yield place, Unusable(str(folder), "a question longer than the judge's context", words)
        params = model.load(mesh, dtype) if places else {}
        examples = [ContrastExample((ids, ids), answers) for ids in map(questions.__getitem__, places)]
        for number, summed in score(params, model.config, examples, mesh, batch_size):
            yield places[number], (float(summed[0, 0]), float(summed[0, 1]))

    # Replies are kept under the judge's name: asked by plain text, it is another.
    plain = not model.chat and getattr(model.tokenizer, "chat_template", None)
    return LikelihoodJudge(f"{folder}, completions" if plain else str(folder), scores)
