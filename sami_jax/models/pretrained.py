"""A model ready for use: its shape, its weights on a mesh, its tokenizer and the ids that end a text."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from sami_jax.data.chat import DATE, Chat
from sami_jax.data.replies import Replies
from sami_jax.data.shape import misfit, read_shaped
from sami_jax.errors import UserError
from sami_jax.ground.display import doing
from sami_jax.ground.finite import check_finite
from sami_jax.ground.terminal import say
from sami_jax.models.config import ModelConfig
from sami_jax.models.huggingface import check_weights, load_params, read_config, tied_as_stored
from sami_jax.models.peft import base_of, holds_adapters, load_adapters, read_adapter
from sami_jax.models.stack import joined

GENERATION = "generation_config.json"  # what servers read beside config.json: the tokens that end a text


@dataclasses.dataclass(frozen=True)
class ModelFolder:
    """A checked model folder whose weights are not loaded yet."""

    folder: Path
    config: ModelConfig
    tokenizer: Any  # transformers' PreTrainedTokenizerBase
    end_tokens: tuple[int, ...]  # ids that end a text; the first doubles as padding
    chat: Chat | None = None  # how an instruct model is asked; None: by plain text
    # What an export holds in place of the folder's own tokenizer, by name; empty where that is as it should be.
    tokenizer_files: Mapping[str, str] = dataclasses.field(default_factory=dict)
    held: str = ""  # how the blocks' matrices lie in memory, as `config.lora.base` has it; "" is as all the others do
    adapter: Path | None = None  # folder of adapters beside these weights, as peft keeps them; `config` has them too

    def load(self, mesh: jax.sharding.Mesh, dtype="float32") -> dict:
        """The weights, cast to `dtype`, in their shards on `mesh`.

        Raises:
          NotFinite: one of them is no number.
        """
        with doing(f"loading {self.place}"):
            plain = dataclasses.replace(self.config, adapter=None)
            params = load_params(self.folder, plain, mesh, jnp.dtype(dtype), self.held)
            if self.adapter:
                params = joined(params, load_adapters(self.adapter, self.config, mesh, jnp.dtype(dtype)))
            check_finite(params, str(self.place))
        return params

    @property
    def place(self) -> Path:
        """The folder that was asked for: of the adapters, where there are some."""
        return self.adapter or self.folder

    def with_adapter(self, folder: Path) -> "ModelFolder":
        """This model with adapters beside it, never merged: so it is computed as it was trained.

        Args:
          folder: as peft keeps them.
        Raises:
          UserError: adapters of another kind, or of another model.
        """
        return dataclasses.replace(self, config=read_adapter(folder, self.config), adapter=folder)

    def decode(self, ids: Sequence[int], behind: str = "") -> str:
        """The text of ids.

        Args:
          behind: the words that they follow; without any, some tokenizers take the space off the first of them.
        """
        before = self.tokenizer.encode(behind, add_special_tokens=False) if behind else []
        text = self.tokenizer.decode([*before, *ids], skip_special_tokens=True)
        return text[len(self.tokenizer.decode(before, skip_special_tokens=True)) :] if before else text

    def replies(self, scored_end: int | None, prefix: str = "") -> Replies:
        """How replies to this model's prompts become ids.

        Args:
          scored_end: see `scored_end`; None scores no end.
          prefix: the primed words that texts begin with, and which were not sampled.
        """
        return Replies(self.tokenizer, self.chat, self.config.vocab_size, self.end_tokens, scored_end, prefix)

    def chatting(self, system: str = "", date: str = DATE) -> "ModelFolder":
        """The same model, asked through its tokenizer's chat template, whose end of turn ends a text too.

        Args:
          system: the system's message, with the field {constitution}; "" sends none.
          date: what the template is told where it asks for the day, YYYY-MM-DD.
        Raises:
          UserError: no chat template, or one that cannot be rendered.
        """
        chat = Chat(self.tokenizer, str(self.folder), system, date)
        if chat.date:
            say(f"{self.folder}: its chat template asks for the day; on any day it is told {chat.date}")
        ends = dict.fromkeys([*self.end_tokens, *([] if chat.end_of_turn is None else [chat.end_of_turn])])
        return dataclasses.replace(self, end_tokens=tuple(ends), chat=chat)

    def chatting_if_it_can(self) -> "ModelFolder":
        """The same model, chatting where its tokenizer has a chat template, for questions that hold no constitution."""
        return self.chatting() if getattr(self.tokenizer, "chat_template", None) else self

    def scored_end(self, score_eos: bool) -> int | None:
        """The id scored after a response that ended by itself: of the end of text, if `score_eos`; of the end of turn, in any chat,
        whose template closes each reply with it."""
        if self.chat:
            return self.chat.end_of_turn
        return self.end_tokens[0] if score_eos else None


def open_model(folder: Path | str, attention: str = "xla", prompt: ConfigDict | None = None) -> ModelFolder:
    """Reads and checks a folder in Hugging Face format, all but the weights themselves; or one of adapters, with their base.

    Args:
      attention: one of `kernels.BACKENDS`.
      prompt: a run's `prompt`: whether and how the model chats; None asks it by plain text.
    Raises:
      UserError: what `read_config` and `check_weights` raise; no tokenizer; no end-of-text token; no chat template where the
        model is to chat, or one that tells no reply from its prompt.
    """
    folder = Path(folder)
    if holds_adapters(folder):
        return open_model(base_of(folder), attention, prompt).with_adapter(folder)
    config = tied_as_stored(folder, dataclasses.replace(read_config(folder), attention=attention))
    check_weights(folder, config)
    _say_what_is_left_over(folder)
    model = without_weights(folder, config)
    if prompt and prompt.chat:
        model = model.chatting(prompt.system, prompt.date)
        if model.chat:
            model.chat.check_replies()
    return model


def without_weights(folder: Path, config: ModelConfig) -> ModelFolder:
    """A model whose weights need not be in the folder, as of a checkpoint.

    Raises:
      UserError: no tokenizer; no end-of-text token.
    """
    from sami_jax.models.tokenizer import load_tokenizer  # heavy import, only needed once a model is opened

    tokenizer, filed = load_tokenizer(folder, config.vocab_size)
    return ModelFolder(
        folder, config, tokenizer, _end_tokens(folder, tokenizer, config.vocab_size), tokenizer_files=filed
    )


def _say_what_is_left_over(folder: Path) -> None:
    """What another program would make of the folder, and we do not."""
    if (folder / "adapter_config.json").is_file():
        say(
            f"WARNING: {folder}: the adapters that adapter_config.json names are not applied: the weights are taken as they are"
        )
    if "quantization_config" in read_shaped(folder / "config.json", {}, "export the model again"):
        say(
            f"WARNING: {folder}: config.json has a quantization_config, and the weights are not quantized: it is passed over"
        )


def _end_tokens(folder: Path, tokenizer, vocab_size: int) -> tuple[int, ...]:
    """The generation config's, else the model config's, else the tokenizer's end-of-text ids."""
    ids = []
    for name in (GENERATION, "config.json"):
        file = folder / name
        if file.is_file() and not ids:
            found = read_shaped(file, {}, "save the model again").get("eos_token_id")
            ids = [] if found is None else found if isinstance(found, list) else [found]
            if misfit(ids, [int]) or not all(0 <= id < vocab_size for id in ids):
                raise UserError(f"{file}: eos_token_id is {found!r:.60}; give a token of the model, or several")
    if not ids and tokenizer.eos_token_id is not None and tokenizer.eos_token_id < vocab_size:
        ids = [tokenizer.eos_token_id]
    if not ids:
        raise UserError(
            f"{folder}: no end-of-text token in generation_config.json, config.json or the tokenizer; add eos_token_id"
        )
    return tuple(ids)
