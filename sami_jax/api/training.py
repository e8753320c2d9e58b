"""Training: one update after the other, or the whole loop."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from sami_jax import config as configs
from sami_jax.api.arguments import Texts, encode_examples
from sami_jax.api.model import Model
from sami_jax.config.checks import validate
from sami_jax.contrast.update import TrainState, check_microbatches, init_state, make_update, needs_base
from sami_jax.data.batches import TrainingBatches
from sami_jax.data.jsonl import parse_measured, read_json
from sami_jax.errors import UserError
from sami_jax.ground.paths import path_of
from sami_jax.models.adapters import adapted, init_adapters
from sami_jax.models.stack import joined
from sami_jax.stages import loop


@dataclasses.dataclass(frozen=True)
class Training:
    """A model in training: an update makes the next one of these, and takes this one's memory."""

    base: Model  # what it started from; stays as it is
    config: ConfigDict
    state: TrainState  # what is trained, the optimizer's moments, and how many updates were made
    frozen: dict  # the weights beside adapters; {} where all weights are trained
    reference: dict | None  # base weights, where the objective or its KL term needs them
    program: Callable  # of the update, from `make_update`

    @property
    def model(self) -> Model:
        """The model as it is now, a copy in the dtype of the base; adapters stay beside the base, as they are trained."""
        shape = adapted(self.base.files.config, self.config.lora)
        params = _copied(joined(self.frozen, self.state.params), self.base.params["embedding"].dtype)
        return dataclasses.replace(self.base, files=dataclasses.replace(self.base.files, config=shape), params=params)


def load_config(spec: str, **fields: object) -> ConfigDict:
    """The settings of a run: every field, its unit, meaning and source stand in `sami_jax/config/settings.py`.

    Args:
      spec: a shipped config ("tiny"), a file of your own ("mine.py"), either with ":smoke" for a run of a minute.
      fields: what to change, the dot of a field's name written as two underscores: `optim__learning_rate=1e-4`.
    Raises:
      UserError: no such config or field, or a value of another type.
    """
    overrides = [f"--config.{name.replace('__', '.')}={value}" for name, value in fields.items()]
    return configs.load_config(spec, overrides)[0]


def begin(model: Model, config: ConfigDict) -> Training:
    """A training of the model, before its first update. The model stays as it is: what is trained is a copy.

    Args:
      model: adapters that it has are merged into its weights.
      config: from `load_config`; its `prompt.training`, `objective`, `optim`, `lora` and `train` are what counts.
    Raises:
      UserError: names the field, its value, and what it may be.
    """
    validate(config)
    if config.prompt.chat != bool(model.files.chat):
        raise UserError(
            f"config.prompt.chat={config.prompt.chat}: the model was loaded otherwise; give `load` the same chat"
        )
    if model.files.chat and model.files.chat.date not in (None, config.prompt.date):
        raise UserError(
            f"config.prompt.date={config.prompt.date!r}: the model was loaded with {model.files.chat.date!r}; give `load` the same date"
        )
    if config.objective.bare:
        raise UserError(
            "config.objective.bare=True: only a run knows which constitutions state principles alone; use `sami_jax.run`, or another objective"
        )
    if config.lora.base:
        raise UserError(
            f"config.lora.base={config.lora.base!r}: the model given here lies in memory as it is; leave it '', or use `run`, which reads it so"
        )
    config, model = config.copy_and_resolve_references(), model.merged
    shape = adapted(model.files.config, config.lora)
    frozen = _copied(model.params, config.train.compute_dtype) if shape.adapter else {}
    reference = None
    if needs_base(config):
        reference = frozen or _copied(model.params, config.train.compute_dtype)
    dtype = config.train.param_dtype
    trained = init_adapters(shape, config.seed, model.mesh, dtype) if shape.adapter else _copied(model.params, dtype)
    state = init_state(trained, shape, config, model.mesh)
    return Training(model, config, state, frozen, reference, make_update(shape, config, model.mesh))


def update(
    training: Training, queries: Sequence[str], constitutions: Texts, responses: Texts
) -> tuple[Training, dict[str, float]]:
    """One update on I(Y; C | X) over a batch of B queries, each answered under C constitutions.

    Args:
      training: its memory is taken; only what is returned can be used afterwards.
      queries: [B]; B a multiple of `train.microbatches` times the devices that share the batch.
      constitutions: [B][C].
      responses: [B][C]; with `objective.score_eos` and in a chat, those that `sample` did not cut off are taken to have ended by themselves.
    Returns:
      the training after the update, and what was measured before it, by name: loss, mi_lower_bound, mi_posterior_bound and
      own_logprob in nats, row_accuracy, column_accuracy, gradient_norm, update_norm. Where the loss or the gradient is no
      number, the weights stay as they were.
    Raises:
      UserError: lists that do not fit together, an empty response, or texts that the model's context cannot hold; says which.
    """
    model, config = training.base, training.config
    end_token = model.files.scored_end(config.objective.score_eos)
    examples = encode_examples(model, queries, constitutions, responses, config.prompt.training, end_token)
    microbatches = config.train.microbatches
    if len(examples) % microbatches:
        raise UserError(f"{len(examples)} queries: must be a multiple of config.train.microbatches={microbatches}")
    with (sized := config.copy_and_resolve_references()).unlocked():
        sized.train.batch_size = len(examples)
    check_microbatches(sized, model.mesh)
    batches = TrainingBatches(
        examples,
        updates=1,
        batch_size=len(examples),
        microbatches=microbatches,
        seed=config.seed,
        shapes=config.train.shapes,
        bucket=config.train.bucket,
    )
    with jax.set_mesh(model.mesh):
        state, metrics = training.program(training.state, batches[0], training.frozen, training.reference)
    return dataclasses.replace(training, state=state), metrics


def run(config: ConfigDict, workdir: str | Path, *, allow_unapproved: bool = False) -> list[dict]:
    """The whole loop (paper, algorithm 1), as `sami run` does it; in a folder that was begun before, it goes on.

    It may run in any thread. It takes no signals to itself: what interrupts Python, as Ctrl-C or a notebook's stop button does,
    ends it, and the same call continues.

    Args:
      config: from `load_config`.
      workdir: where everything goes: models, responses, metrics, checkpoints, run.json, report.html.
      allow_unapproved: use principles that nobody approved; manifest and model card say so.
    Returns:
      what was measured of the base, [0], and of each iteration's model: by evaluation set ("trained", ...), scalars by name.
    Raises:
      UserError: bad config or input, before anything costly.
      StoppedByCanary: a training showed signs of collapse; what is good is kept in `workdir`.
      NotFinite: weights, losses or log-likelihoods are no numbers; what was good before stands.
    """
    folder = path_of(workdir)
    loop.run(config, folder, allow_unapproved)
    stages = range(len(config.train.updates) + 1)
    files = [folder / f"iteration_{n}" / "evaluation.json" for n in stages]
    return [read_json(file, "restore it, or remove it to measure again", parse_measured) for file in files]


def _copied(params: dict, dtype) -> dict:
    """New arrays, also where the dtype is the same: an update takes the memory of what it is given."""
    return jax.tree.map(lambda weight: jnp.array(weight, dtype, copy=True), params)
