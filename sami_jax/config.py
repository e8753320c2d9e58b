"""Every setting of a run: its default, unit, meaning and source, and the one check of them all.

Files in configs/ start from `defaults()` and change fields. Sources: (P) the paper, arXiv 2404.14313; (R) its authors'
code; (ours) a choice made here, with its reason.
"""

import difflib
import functools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from sami_jax.data.sources import check_sources
from sami_jax.data.templates import check_template
from sami_jax.errors import UserError
from sami_jax.models.adapters import TARGETS
from sami_jax.models.kernels import BACKENDS
from sami_jax.models.published import SHAPES
from sami_jax.models.stack import REMAT_POLICIES
from sami_jax.models.untrained import RANDOM_BYTES
from sami_jax.optim import OPTIMIZERS
from sami_jax.principles.constitutions import RULES
from sami_jax.sharding import MESH_AXES
from sami_jax.tracking.trackers import TRACKERS

JUDGES = ("none", "miniature")
CANARY_ACTIONS = ("stop", "alert", "off")
CANARY_SHARES = ("well_formed_drop", "repetition_rise", "refusal_rise", "saturation", "following_drop")
SYSTEM = "Your reply follows this constitution:\n{constitution}"  # begins the user's message where a chat has no system
REFUSALS = ("I cannot", "I can't", "I can\u2019t", "I'm sorry, but", "I am unable", "as an AI", "申し訳", "できません")


def defaults() -> ConfigDict:
    c = ConfigDict()
    c.seed = 0  # of everything random: sampling, composing, data order (ours)

    c.model = ConfigDict()
    # Folder of the base model in Hugging Face format, or a small untrained one: "random-bytes" | "random-bytes-mixture".
    c.model.path = ""  # no default
    c.model.shape = ""  # published shape, of models/published.py, that `sami plan` takes where the folder is not here
    c.model.export_dtype = "float32"  # of exported weights; every iteration samples from the exported model
    c.model.attention = "xla"  # xla: anywhere | cudnn: NVIDIA GPUs, bfloat16 | splash: TPUs (ours)

    c.mesh = ConfigDict()  # devices along each axis; one may be -1, the rest
    c.mesh.data = 1  # replicas, each with its share of the queries
    c.mesh.fsdp = -1  # queries and weights both split; weights are gathered layer by layer
    c.mesh.expert = 1  # queries and the experts of a mixture split
    c.mesh.tensor = 1  # heads, MLP width and vocabulary split

    c.principles = ConfigDict()
    c.principles.path = ""  # folder of principle files (*.yaml) or of the authors' constitution files (*.json)
    c.principles.held_out = ()  # ids kept from training, used in evaluation only (P: diverse principles, 15 / 5)
    c.principles.held_out_drawn = 0  # how many more are kept from training, drawn by the seed (P: 5 of 20)
    c.principles.held_out_phrasings = 0  # last wordings of each principle kept from training (ours)

    c.review = ConfigDict()
    c.review.fraction = 1.0  # share of the principles, drawn by a hash of the id, that people must have approved (ours)

    c.constitutions = ConfigDict()
    c.constitutions.rule = "positive_vs_rest"  # complement | positive_vs_rest (R) | iid (P, algorithm 1)
    c.constitutions.principles = 2  # principles a constitution states (P)
    c.constitutions.count = 2  # C, constitutions a query is answered under (P: 2 everywhere)

    c.data = ConfigDict()  # formats and recipes: docs/data.md
    c.data.queries = ""  # trained on: a .jsonl, .csv or .parquet file, a folder of such, or hub:OWNER/NAME
    c.data.eval_queries = ""  # likewise, for evaluation; "" takes the last eval_fraction of `queries` instead
    c.data.eval_fraction = 0.1  # share of `queries` held out where eval_queries is "" (ours)
    c.data.column = ""  # of the query; "" takes the first there is of query, prompt, messages, chosen, info.post (ours)
    c.data.id_column = "id"  # of the rows' ids; "" numbers the rows, as where no row has it (ours)
    c.data.subset = ""  # of a folder or hub dataset: the name of a configuration, or a folder in it; "" is all
    c.data.split = "train"  # of a folder or hub dataset: trained on (its own names)
    c.data.eval_split = "test"  # likewise, for evaluation
    c.data.revision = ""  # commit of the hub dataset, 40 hex digits; must be given: names can move (ours)
    c.data.splits = 2  # disjoint splits of the queries that take turns by iteration (P)

    c.prompt = ConfigDict()  # texts with the fields {constitution} and {query}
    c.prompt.chat = False  # ask by the tokenizer's own chat template, as instruct models want it (ours; P: base models)
    c.prompt.system = SYSTEM  # of a chat, the system's message: {constitution}; "" sends none (ours)
    c.prompt.generation = ""  # template under which responses are sampled; in a chat, of the user's message
    c.prompt.training = ""  # template under which they are scored and trained on; may be shorter (P)
    c.prompt.shuffle = True  # shuffle the order of the principles in training prompts (R)
    c.prompt.max_tokens = 1024  # longest prompt, tokens; the query's end is cut to fit, and counted (ours)

    c.sampling = ConfigDict()
    c.sampling.temperature = 0.0  # 0 is greedy (P)
    c.sampling.top_p = 0.9  # nucleus probability; no effect when greedy (P)
    c.sampling.top_k = 0  # likeliest tokens kept; 0 keeps all
    c.sampling.max_new_tokens = 350  # tokens (P)
    c.sampling.stop = ()  # texts that end a response
    c.sampling.batch_size = 64  # rows decoded together (ours: memory)

    c.filter = ConfigDict()  # applied to responses before training (R); every drop is counted by reason
    c.filter.keep_after = ""  # in a text that thinks aloud first, the response is what follows the last of this (P)
    c.filter.prefix = ""  # put before each response: the primed words its generation prompt ends with
    c.filter.cut_at = ()  # texts from which on a response is cut away
    c.filter.forbidden = ()  # texts that drop the query's responses
    c.filter.end_with = ()  # a response must end in one of these; () accepts any end
    c.filter.keep_equal = False  # keep queries whose responses are all equal: no contrast to learn

    c.objective = ConfigDict()
    c.objective.normalize = "mean"  # mean over response tokens (R) | sum (P, as written)
    c.objective.score_eos = False  # score the end-of-text token where a response ended by itself (R: no; chats: always)
    c.objective.row_weight = 0.5  # of the contrast over responses (P: both one half)
    c.objective.column_weight = 0.5  # of the contrast over constitutions
    c.objective.kl_weight = 0.0  # beta of KL(policy || base), nats (P: 0 in every published run)
    c.objective.balance_weight = 0.0  # of the load-balancing loss of a mixture of experts, which is 1 at best (Switch)
    c.objective.router_z_weight = 0.0  # of the squared logsumexp of its router's logits (ST-MoE: 1e-3)

    c.optim = ConfigDict()
    c.optim.name = "adamw"  # adamw (P) | rmsprop (R) | adafactor: hardly any state | lion: one moment
    c.optim.learning_rate = 5e-7  # (P)
    c.optim.warmup_updates = 0  # updates of linear warm-up; the first is never 0 (ours)
    c.optim.b1 = 0.9  # decay of the first moment of AdamW (P: library default) and Lion
    c.optim.b2 = 0.999  # decay of the second moment; RMSprop's smoothing (R: 0.99 there); Lion's memory (0.99 there)
    c.optim.epsilon = 1e-8  # added to the root of the second moment
    c.optim.weight_decay = 0.0  # decoupled, of any optimizer, per update times learning rate (ours)
    c.optim.clip_norm = 1.0  # global gradient norm (P)
    c.optim.moment_dtype = "float32"  # bfloat16 halves the moments, which are then rounded by chance (ours)
    c.optim.offload = False  # moments rest in host memory: room for activations, a copy there and back an update (ours)

    c.lora = ConfigDict()  # low-rank adapters beside frozen weights, in place of training them all (ours)
    c.lora.rank = 0  # of each adapter; 0 trains all weights
    c.lora.alpha = 16.0  # adapters are scaled by alpha / rank
    c.lora.targets = ()  # of query, key, value, output, gate, up, down; () is all that the model has: experts have none

    c.train = ConfigDict()
    c.train.updates = (2, 4, 6)  # updates of each iteration; as many iterations as entries (P)
    c.train.batch_size = 128  # queries an update (P)
    c.train.microbatches = 16  # parts a batch is accumulated over; exact, so a matter of memory alone (R)
    c.train.param_dtype = "float32"  # of master weights. bfloat16 is (R): it rounds most of a 5e-7 update away
    c.train.rounding = "nearest"  # of bfloat16 master weights: nearest | stochastic, which loses nothing on average
    c.train.compute_dtype = "float32"  # of forward and backward; bfloat16 on accelerators
    c.train.remat = "full"  # what the backward pass recomputes: none | dots | full (ours: memory)
    c.train.checkpoint_every = 1  # updates between checkpoints
    c.train.max_skipped_updates = 3  # of a stage, whose loss or gradient is no number; one more ends it (ours)
    c.train.shapes = 8  # row lengths that microbatches are padded to, at most; each is compiled once (ours)
    c.train.bucket = 64  # tokens; row lengths are multiples of it (ours)
    c.train.constitutions_at_once = 0  # divides C; 0: all. Fewer need less memory, and are computed twice (ours)

    c.canaries = ConfigDict()  # fixed queries watched at each checkpoint for signs of collapse (ours)
    c.canaries.action = "stop"  # stop: keep the last good checkpoint and end | alert: say so and go on | off
    c.canaries.queries = 32  # first of the training queries, each under principles and under their antitheses
    c.canaries.well_formed_drop = 0.15  # share of replies, below the base's, that may cease to be whole
    c.canaries.length_factor = 2.5  # replies may grow or shrink to this multiple of the base's mean length
    c.canaries.repetition_rise = 0.2  # share of a reply's 4-token runs, above the base's, that may be repeated ones
    c.canaries.refusal_rise = 0.2  # share of replies, above the base's, that may refuse
    c.canaries.saturation = 0.9  # share of its cap, log 2, from which the MI bound counts as saturated
    c.canaries.following_drop = 0.15  # fall of following below its best that, with a saturated bound, fires
    c.canaries.refusals = REFUSALS  # texts that mark a refusal, letter case aside

    c.evaluation = ConfigDict()
    c.evaluation.judge = "none"  # none | miniature: who decides which principles a response follows
    c.evaluation.queries = 250  # first of the evaluation queries (P)
    c.evaluation.temperature = 0.0  # as sampling.temperature
    c.evaluation.top_p = 0.9  # as sampling.top_p
    c.evaluation.batch_size = 8  # queries scored together (ours: memory)

    c.track = ConfigDict()  # who is told how a run goes (ours)
    c.track.to = ("tensorboard",)  # any of tensorboard, wandb, mlflow; () tells nobody
    c.track.project = "sami"  # project of W&B, experiment of MLflow
    c.track.name = ""  # of the run there; "" takes its folder's
    return c


def paper_training(config: ConfigDict) -> None:
    """Sampling and training as published for mistral-7b, but for the weights: fp32 masters instead of bf16 alone."""
    config.sampling.temperature = 0.0  # greedy (P)
    config.sampling.top_p = 0.9  # nucleus probability; no effect when greedy (P)
    config.sampling.max_new_tokens = 350  # tokens (P)
    config.objective.normalize = "mean"  # over response tokens (R)
    config.optim.name = "adamw"  # (P); rmsprop with b2=0.99 is (R)
    config.optim.learning_rate = 5e-7  # (P), found with bf16 weights, which lose most of an update: expect to retune
    config.optim.clip_norm = 1.0  # global gradient norm (P)
    config.train.updates = (2, 4, 6)  # updates of each iteration, from 256, 512 and 768 queries (P)
    config.train.batch_size = 128  # queries an update (P)
    config.train.microbatches = 16  # of 8 queries, one for each of 8 devices (P)
    config.train.compute_dtype = "bfloat16"  # (P)
    config.evaluation.queries = 250  # (P)


def shrink(config: ConfigDict) -> ConfigDict:
    """Any config as a smoke run: every stage on real text, a minute on CPU. A random byte-level model learns nothing."""
    config.model.path = RANDOM_BYTES
    config.model.shape = ""
    config.model.attention = "xla"
    config.mesh.update({"data": 1, "fsdp": -1, "expert": 1, "tensor": 1})  # whatever devices there are
    config.prompt.max_tokens = 1792  # bytes
    config.sampling.max_new_tokens = 48
    config.sampling.temperature = 1.0  # greedy, an untrained model gives one response to everything
    config.sampling.batch_size = 8
    config.filter.keep_after = ""  # random bytes never come to the point
    config.filter.forbidden = ("[insert",)  # nor are they without any single character
    config.filter.end_with = ()
    config.optim.learning_rate = 1e-3
    config.train.updates = (1, 1, 2)
    config.train.batch_size = 4
    config.train.microbatches = 2
    config.train.compute_dtype = "float32"
    config.canaries.action = "alert"  # random bytes hardly have a shape to lose
    config.canaries.queries = 2
    config.evaluation.queries = 4
    config.evaluation.batch_size = 2
    return config


def wants_smoke(arg: str | None) -> bool:
    """Whether a config is asked for as FILE:smoke.

    Raises:
      UserError: it is asked for as something else, which no shipped config is.
    """
    if arg not in (None, "smoke"):
        raise UserError(f"--config: {arg!r:.60} behind the colon is not known; write :smoke, or leave it out")
    return arg == "smoke"


def shipped(path: str) -> str:
    """A file or folder of the configs folder: inside the package once installed, beside it in a checkout."""
    return str(config_folder() / path)


def config_folder() -> Path:
    installed = Path(__file__).parent / "configs"
    return installed if installed.is_dir() else Path(__file__).parent.parent / "configs"


def iterations(config: ConfigDict) -> range:
    """Numbers of the iterations, from 1."""
    return range(1, len(config.train.updates) + 1)


def check_types(config: ConfigDict, wanted: ConfigDict, prefix: str = "config") -> None:
    """Checks that there are the fields of `wanted` and no others, each with a value of the same type.

    Elements of a tuple are like those in `wanted`, or texts where it is empty there.

    Raises:
      UserError: names the field, its value, and what it may be.
    """
    for name in config:
        if name not in wanted:
            close = difflib.get_close_matches(name, list(wanted), n=1)
            hint = f"; did you mean {prefix}.{close[0]}?" if close else "; take it out"
            raise UserError(f"{prefix}.{name}: no such field{hint}")
    for name, default in wanted.items():
        field = f"{prefix}.{name}"
        if name not in config:
            raise UserError(f"{field}: is missing; start the config from sami_jax.config.defaults()")
        value = config[name]
        if isinstance(default, ConfigDict) and isinstance(value, ConfigDict):
            check_types(value, default, field)
        elif isinstance(default, tuple) and isinstance(value, tuple):
            kind = type(default[0]) if default else str
            for element in value:
                if not _is(element, kind) or element == "":
                    raise UserError(f"{field}={value!r:.80}: must be a tuple, each of it {KINDS[kind]}")
        elif isinstance(default, tuple | ConfigDict) or not _is(value, type(default)):
            raise UserError(f"{field}={value!r:.80}: must be {KINDS[type(default)]}")


# Types of fields, as users know them.
KINDS = {
    bool: "True or False",
    int: f"a whole number below {2**31}",
    float: "a finite number",
    str: "a text",
    tuple: "a tuple",
    ConfigDict: "a group of fields",
}


def _is(value, kind: type) -> bool:
    """Whether a value may stand where one of this type is wanted."""
    if kind is bool or isinstance(value, bool):
        return kind is bool and isinstance(value, bool)
    if kind is float:
        return isinstance(value, int | float) and abs(value) < 2**1000 and math.isfinite(value)
    if kind is int:
        return isinstance(value, int) and abs(value) < 2**31
    # Bytes of a command line that are no UTF-8 arrive as halves of characters.
    return isinstance(value, str) and not any("\ud800" <= character <= "\udfff" for character in value)


def validate(config: ConfigDict) -> None:
    """Checks every field that can be checked without reading a file.

    Raises:
      UserError: names the field, its value, and what it may be.
    """

    def value(field: str) -> Any:
        return functools.reduce(lambda part, name: part[name], field.split("."), config)

    def check(field: str, holds: bool, wanted: str) -> None:
        if not holds:
            raise UserError(f"config.{field}={value(field)!r}: must be {wanted}")

    def check_choice(field: str, choices: Sequence[str]) -> None:
        close = difflib.get_close_matches(str(value(field)), choices, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        check(field, value(field) in choices, f"one of {', '.join(choices)}" + hint)

    def check_number(field: str, low: float, high: float = math.inf, above: bool = False) -> None:
        inside = math.isfinite(value(field)) and low <= value(field) <= high and not (above and value(field) == low)
        upper = f" and at most {high}" if high < math.inf else ""
        check(field, inside, (f"above {low}" if above else f"at least {low}") + upper)

    check_types(config, defaults())
    check("seed", 0 <= config.seed < 2**31, "from 0 to 2147483647")
    for field in ("model.path", "principles.path", "data.queries"):
        check(field, bool(value(field)), "set: it has no default")
    for field, choices in {
        "model.export_dtype": ("float32", "bfloat16"),
        "model.attention": BACKENDS,
        "constitutions.rule": tuple(RULES),
        "objective.normalize": ("mean", "sum"),
        "optim.name": tuple(OPTIMIZERS),
        "optim.moment_dtype": ("float32", "bfloat16"),
        "train.param_dtype": ("float32", "bfloat16"),
        "train.rounding": ("nearest", "stochastic"),
        "train.compute_dtype": ("float32", "bfloat16"),
        "train.remat": tuple(REMAT_POLICIES),
        "canaries.action": CANARY_ACTIONS,
        "evaluation.judge": JUDGES,
    }.items():
        check_choice(field, choices)
    if config.model.shape:
        check_choice("model.shape", tuple(SHAPES))
    for field in MESH_AXES:
        check(f"mesh.{field}", config.mesh[field] == -1 or config.mesh[field] >= 1, "at least 1, or -1 for the rest")
    for field, low in {
        "principles.held_out_drawn": 0,
        "principles.held_out_phrasings": 0,
        "constitutions.count": 1,
        "data.splits": 1,
        "prompt.max_tokens": 1,
        "sampling.temperature": 0.0,
        "sampling.top_k": 0,
        "sampling.max_new_tokens": 1,
        "sampling.batch_size": 1,
        "objective.row_weight": 0.0,
        "objective.column_weight": 0.0,
        "objective.kl_weight": 0.0,
        "objective.balance_weight": 0.0,
        "objective.router_z_weight": 0.0,
        "lora.rank": 0,
        "optim.warmup_updates": 0,
        "optim.weight_decay": 0.0,
        "train.batch_size": 1,
        "train.microbatches": 1,
        "train.checkpoint_every": 1,
        "train.max_skipped_updates": 0,
        "train.shapes": 1,
        "train.bucket": 1,
        "train.constitutions_at_once": 0,
        "canaries.queries": 1,
        "canaries.length_factor": 1.0,
        "evaluation.queries": 1,
        "evaluation.temperature": 0.0,
        "evaluation.batch_size": 1,
    }.items():
        check_number(field, low)
    for field in ("optim.learning_rate", "optim.epsilon", "optim.clip_norm", "lora.alpha"):
        check_number(field, 0.0, above=True)
    check_number("constitutions.principles", 1, 16)  # their sides are listed, 2**16 at most
    for field in ("sampling.top_p", "evaluation.top_p"):
        check_number(field, 0.0, 1.0, above=True)
    check_number("data.eval_fraction", 0.0, 0.9)
    check_sources(config.data)
    for field in ("review.fraction", *(f"canaries.{name}" for name in CANARY_SHARES)):
        check_number(field, 0.0, 1.0)
    for field in ("optim.b1", "optim.b2"):
        check_number(field, 0.0, 0.999999)
    check(
        "objective.row_weight",
        config.objective.row_weight + config.objective.column_weight > 0,
        "above 0 where column_weight is 0",
    )
    check(
        "train.updates",
        len(config.train.updates) > 0 and all(u >= 1 for u in config.train.updates),
        "a tuple of counts, each at least 1",
    )
    check(
        "train.microbatches",
        config.train.batch_size % config.train.microbatches == 0,
        f"a divisor of train.batch_size={config.train.batch_size}",
    )
    targets = config.lora.targets
    check("lora.targets", set(targets) <= set(TARGETS), f"some of {', '.join(TARGETS)}, or () for all")
    stochastic = config.train.rounding == "stochastic"
    check(
        "train.rounding",
        not stochastic or config.train.param_dtype == "bfloat16",
        "nearest where train.param_dtype is float32, which needs no rounding",
    )
    check("track.to", set(config.track.to) <= set(TRACKERS), f"some of {', '.join(TRACKERS)}, or () for none")
    # What W&B does not take in a name.
    nameable = 0 < len(config.track.project) <= 128 and not set(config.track.project) & set("/\\#?%:")
    check("track.project", nameable, "a text of 1 to 128 characters, none of them / \\ # ? % :")
    at_once = config.train.constitutions_at_once
    check(
        "train.constitutions_at_once",
        at_once == 0 or config.constitutions.count % at_once == 0,
        f"0 or a divisor of constitutions.count={config.constitutions.count}",
    )
    system = config.prompt.system if config.prompt.chat else ""
    check("prompt.system", "{query}" not in system, "free of {query}, which the user asks")
    check_template(config.prompt.generation, "config.prompt.generation", system)
    check_template(config.prompt.training, "config.prompt.training", system)
    primed = config.prompt.chat and config.filter.prefix
    check("filter.prefix", not primed, "'' where config.prompt.chat is True: a chat primes no words")
    mark, cuts = config.filter.keep_after, (*config.filter.cut_at, *config.sampling.stop)
    asked = config.prompt.generation + system
    check("filter.keep_after", mark in asked, "a text that config.prompt.generation asks for")
    uncut = not any(cut in mark for cut in cuts)
    check("filter.keep_after", uncut, "free of what sampling.stop and filter.cut_at cut at")
    if config.constitutions.rule == "complement":
        check("constitutions.count", config.constitutions.count % 2 == 0, "even: the rule 'complement' makes pairs")
