"""SAMI from Python, in the paper's letters: queries x, constitutions c, responses y, S[b, i, j] = log p(y_j | c_i, x_b).

    model = sami_jax.load("path/to/model")
    constitutions = sami_jax.compose(principles, len(queries))              # [B][C] texts
    responses = sami_jax.sample(model, queries, constitutions)              # [B][C] texts
    s = sami_jax.score(model, queries, constitutions, responses)            # [B, C, C] nats
    training = sami_jax.begin(model, config)
    training, metrics = sami_jax.update(training, queries, constitutions, responses)
    sami_jax.save(training.model, "aligned")

and `sami_jax.run(config, workdir)` is all of it, three times over, with its evaluation. Everything is offered as an attribute of
`sami_jax`. What a user has to mend is raised as `sami_jax.UserError`, whose message is one line.
"""

import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from ml_collections import ConfigDict

from sami_jax import config_file, loop
from sami_jax.config import SYSTEM, validate
from sami_jax.data import queries as query_files
from sami_jax.data.batches import ContrastExample, TrainingBatches
from sami_jax.data.jsonl import parse_measured, read_json
from sami_jax.data.pairs import encode_pairs
from sami_jax.data.templates import check_template, encode_prompt
from sami_jax.errors import UserError
from sami_jax.evaluation import explain as explaining
from sami_jax.likelihood import normalized
from sami_jax.miniature.world import PROMPT
from sami_jax.models.adapters import adapted, folded, init_adapters
from sami_jax.models.huggingface import check_replaceable, export
from sami_jax.models.kernels import BACKENDS
from sami_jax.models.pretrained import ModelFolder, companions, open_model
from sami_jax.objective import contrastive_loss, mi_lower_bound, mi_posterior_bound
from sami_jax.principles import constitutions as composing
from sami_jax.principles import files as principle_files
from sami_jax.principles.principle import Principle
from sami_jax.rollout import seeds
from sami_jax.sampling import SamplingOptions, generate
from sami_jax.scoring import score as score_batches
from sami_jax.sharding import ALL_DEVICES, make_mesh
from sami_jax.training import TrainState, check_microbatches, init_state, make_update

__all__ = [
    "Model",
    "Principle",
    "Training",
    "begin",
    "compose",
    "contrastive_loss",
    "explain",
    "load",
    "load_config",
    "mi_lower_bound",
    "mi_posterior_bound",
    "read_principles",
    "read_queries",
    "run",
    "sample",
    "save",
    "score",
    "update",
]

UNCUT = sys.maxsize  # tokens of a prompt; what is too long is refused here
DTYPES = ("float32", "bfloat16")

Texts = Sequence[Sequence[str]]  # [B][C]


@dataclasses.dataclass(frozen=True)
class Model:
    """A language model in memory."""

    files: ModelFolder  # where it came from: its shape, its tokenizer, the ids that end a text
    params: dict  # weights, in their shards on `mesh`
    mesh: jax.sharding.Mesh


@dataclasses.dataclass(frozen=True)
class Training:
    """A model in training: an update makes the next one of these, and takes this one's memory."""

    base: Model  # what it started from; stays as it is
    config: ConfigDict
    state: TrainState  # what is trained, the optimizer's moments, and how many updates were made
    frozen: dict  # the weights beside adapters; {} where all weights are trained
    reference: dict | None  # base weights of the KL term; None where objective.kl_weight is 0
    program: Callable  # of the update, from `make_update`

    @property
    def model(self) -> Model:
        """The model as it is now, a copy: adapters folded in, in the dtype of the base."""
        params = self.state.params
        if self.config.lora.rank:
            shape = adapted(self.base.files.config, self.config.lora)
            params = folded(shape, self.frozen, params, self.base.mesh)
        return dataclasses.replace(self.base, params=_copied(params, self.base.params["embedding"].dtype))


def load(
    folder: str | Path,
    *,
    dtype: str = "float32",
    attention: str = "xla",
    chat: bool = False,
    mesh: jax.sharding.Mesh | dict[str, int] | None = None,
) -> Model:
    """Reads a model in Hugging Face format: Llama, Mistral, Mixtral, Qwen 2.5 or Qwen 3.

    Args:
      folder: local, with config.json, safetensors and a tokenizer.
      dtype: of the weights in memory and of what is computed with them: float32 | bfloat16.
      attention: xla | cudnn (NVIDIA GPUs) | splash (TPUs).
      chat: ask it by its tokenizer's own chat template, as instruct models want it; the system's message states the constitution.
      mesh: devices along "data", "fsdp", "expert" and "tensor", or the mesh of another model; by default the weights are split over
        all devices ("fsdp").
    Raises:
      UserError: no such model, or one that cannot be used; says why.
      NotFinite: a weight is no number.
    """
    _check_choice("dtype", dtype, DTYPES)
    _check_choice("attention", attention, BACKENDS)
    files = open_model(folder, attention, ConfigDict({"chat": chat, "system": SYSTEM}))
    if not isinstance(mesh, jax.sharding.Mesh):
        mesh = make_mesh(ALL_DEVICES if mesh is None else mesh)
    return Model(files, files.load(mesh, dtype), mesh)


def save(model: Model, folder: str | Path, *, dtype: str = "float32") -> None:
    """Writes a folder in Hugging Face format, which transformers and `load` read; it appears whole or not at all.

    Args:
      folder: new, or of an older model, which it replaces.
      dtype: of the weights in the file: float32 | bfloat16.
    Raises:
      UserError: the folder holds something else.
    """
    _check_choice("dtype", dtype, DTYPES)
    output = Path(folder)
    check_replaceable(output)
    export(model.params, model.files.config, output, companions(model.files), jnp.dtype(dtype))


def load_config(spec: str, **fields: object) -> ConfigDict:
    """The settings of a run: every field, its unit, meaning and source stand in `sami_jax/config.py`.

    Args:
      spec: a shipped config ("tiny"), a file of your own ("mine.py"), either with ":smoke" for a run of a minute.
      fields: what to change, the dot of a field's name written as two underscores: `optim__learning_rate=1e-4`.
    Raises:
      UserError: no such config or field, or a value of another type.
    """
    overrides = [f"--config.{name.replace('__', '.')}={value}" for name, value in fields.items()]
    return config_file.load_config(spec, overrides)[0]


def read_principles(folder: str | Path) -> tuple[Principle, ...]:
    """Every principle of a folder of YAML files, by id and version.

    Raises:
      UserError: no such folder, nothing in it, or a file that is not a principle; names the file.
    """
    return principle_files.read_principles(Path(folder))


def read_queries(source: str | Path) -> list[str]:
    """The texts of a file's queries, in order: JSONL, CSV or Parquet, or a folder of them.

    Raises:
      UserError: no such file, or a row that cannot be used; names file and line.
    """
    return [query.text for query in query_files.read_queries(Path(source))]


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
    _check_choice("rule", rule, tuple(composing.RULES))
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
    template = _template(model, template)
    _check_rows(len(queries), constitutions=constitutions)
    _check_batch_size(batch_size)
    options = SamplingOptions(temperature, top_p, top_k, max_new_tokens, tuple(stop))
    prompts = []
    for b, (query, own) in enumerate(zip(queries, constitutions, strict=True)):
        for constitution in own:
            ids, _ = encode_prompt(model.files.tokenizer, template, constitution, query, UNCUT, model.files.chat)
            prompts.append(ids)
            _check_length(model, len(ids) + max_new_tokens, f"queries[{b}]: prompt and max_new_tokens")
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
    texts = (response.text for response in responses)
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
    _check_choice("normalize", normalize, ("mean", "sum"))
    _check_batch_size(batch_size)
    examples = _examples(model, queries, constitutions, responses, template)
    count = len(constitutions[0])
    summed = np.zeros((len(examples), count, count), np.float32)
    for b, one in score_batches(model.params, model.files.config, examples, model.mesh, batch_size):
        summed[b] = one
    lengths = np.array([[len(response) for response in example.responses] for example in examples])
    return np.asarray(normalized(summed, lengths, normalize))


def begin(model: Model, config: ConfigDict) -> Training:
    """A training of the model, before its first update. The model stays as it is: what is trained is a copy.

    Args:
      config: from `load_config`; its `prompt.training`, `objective`, `optim`, `lora` and `train` are what counts.
    Raises:
      UserError: names the field, its value, and what it may be.
    """
    validate(config)
    if config.prompt.chat != bool(model.files.chat):
        raise UserError(
            f"config.prompt.chat={config.prompt.chat}: the model was loaded otherwise; give `load` the same chat"
        )
    config = config.copy_and_resolve_references()
    shape = adapted(model.files.config, config.lora)
    frozen = _copied(model.params, config.train.compute_dtype) if shape.adapter else {}
    reference = None
    if config.objective.kl_weight:
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
      responses: [B][C]; with `objective.score_eos`, each is taken to have ended by itself.
    Returns:
      the training after the update, and what was measured before it, by name: loss, mi_lower_bound, mi_posterior_bound and
      own_logprob in nats, row_accuracy, column_accuracy, gradient_norm, update_norm. Where the loss or the gradient is no
      number, the weights stay as they were.
    Raises:
      UserError: lists that do not fit together, an empty response, or texts that the model's context cannot hold; says which.
    """
    model, config = training.base, training.config
    end_token = model.files.scored_end(config.objective.score_eos)
    examples = _examples(model, queries, constitutions, responses, config.prompt.training, end_token)
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
    _check_batch_size(batch_size)
    template = _template(model, template)
    _check_rows(len(queries), constitutions=constitutions, responses=responses)
    answers = []
    for b, (query, own, said) in enumerate(zip(queries, constitutions, responses, strict=True)):
        if len(set(own)) < max(2, len(own)):
            raise UserError(
                f"constitutions[{b}]: must be different texts, two at least; nothing can be told from equal ones"
            )
        answers += [explaining.Answer(f"{b}", query, text, tuple(own), i) for i, text in enumerate(said)]
    prompt = ConfigDict({"training": template, "max_tokens": UNCUT})
    examples = explaining.encode_answers(answers, model.files, prompt)
    found = explaining.explain(model.files, model.params, answers, examples, {}, model.mesh, batch_size)
    words: list[list[tuple[str, float]]] = [[] for _ in answers]
    for place, one in found:
        tokens = one["tokens"]
        words[place] = explaining.by_word([token["text"] for token in tokens], [token["pmi"] for token in tokens])
    each = iter(words)
    return [[next(each) for _ in own] for own in responses]


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
    folder = Path(workdir)
    loop.run(config, folder, allow_unapproved)
    stages = range(len(config.train.updates) + 1)
    files = [folder / f"iteration_{n}" / "evaluation.json" for n in stages]
    return [read_json(file, "restore it, or remove it to measure again", parse_measured) for file in files]


def _examples(
    model: Model,
    queries: Sequence[str],
    constitutions: Texts,
    responses: Texts,
    template: str | None,
    end_token: int | None = None,
) -> list[ContrastExample]:
    """The token ids of B queries with C prompts and C responses each, checked."""
    _check_rows(len(queries), constitutions=constitutions, responses=responses)
    counts = {len(own) for own in (*constitutions, *responses)}
    if len(counts) != 1:
        raise UserError(f"each query needs the same number of constitutions and responses, not {sorted(counts)}")
    rows = [
        {"query": query, "constitutions": own, "responses": said, "finish_reasons": ["stop"] * len(said)}
        for query, own, said in zip(queries, constitutions, responses, strict=True)
    ]
    prompt = ConfigDict({"training": _template(model, template), "max_tokens": UNCUT})
    examples, _ = encode_pairs(rows, model.files.tokenizer, prompt, end_token, model.files.chat)
    for b, example in enumerate(examples):
        if not all(text.strip() for text in responses[b]):
            raise UserError(f"responses[{b}]: one is empty; leave the query out, or give the text")
        _check_length(model, example.longest_text, f"queries[{b}]: prompt and response")
    return examples


def _template(model: Model, template: str | None) -> str:
    if template is None:
        return "{query}" if model.files.chat else PROMPT
    check_template(template, "template", model.files.chat.system if model.files.chat else "")
    return template


def _check_rows(queries: int, **lists: Texts) -> None:
    if not queries:
        raise UserError("queries: there are none; give one at least")
    for name, rows in lists.items():
        if isinstance(rows, str) or any(isinstance(row, str) for row in rows):
            raise UserError(f"{name}: must be a list for each query, [B][C] texts")
        if len(rows) != queries:
            raise UserError(f"{name}: {len(rows)} lists for {queries} queries; give one for each query")


def _check_length(model: Model, tokens: int, what: str) -> None:
    limit = model.files.config.max_positions
    if tokens > limit:
        raise UserError(f"{what} take {tokens} tokens, the model's context has {limit}; shorten them")


def _check_batch_size(batch_size: int) -> None:
    if batch_size < 1:
        raise UserError(f"batch_size={batch_size}: must be at least 1")


def _check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise UserError(f"{name}={value!r}: must be one of {', '.join(choices)}")


def _copied(params: dict, dtype) -> dict:
    """New arrays, also where the dtype is the same: an update takes the memory of what it is given."""
    return jax.tree.map(lambda weight: jnp.array(weight, dtype, copy=True), params)
