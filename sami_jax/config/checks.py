"""The one check of a run's config, before anything costly."""

import difflib
import functools
import math
from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

from sami_jax.config.settings import defaults
from sami_jax.contrast.family import FAMILY
from sami_jax.contrast.optim import OPTIMIZERS, OWN_DECAY
from sami_jax.data.chat import is_date
from sami_jax.data.sources import check_sources
from sami_jax.data.templates import check_template
from sami_jax.errors import UserError
from sami_jax.export.gguf import KINDS as GGUF_KINDS
from sami_jax.ground.endpoint import APIS
from sami_jax.kernels.attention import BACKENDS
from sami_jax.models.adapters import TARGETS
from sami_jax.models.published import SHAPES
from sami_jax.models.stack import REMAT_POLICIES
from sami_jax.principles.constitutions import RULES
from sami_jax.quantization.blocks import KINDS as QUANTIZED
from sami_jax.sharding import MESH_AXES
from sami_jax.tracking.trackers import TRACKERS

OWN_JUDGES = (
    "none",
    "checks",
    "miniature",
)  # of evaluation.judge; any other is a model's folder, or its name at the endpoint
ENGINES = ("own", "server")
CANARY_ACTIONS = ("stop", "alert", "off")
CANARY_SHARES = ("well_formed_drop", "repetition_rise", "echo_rise", "refusal_rise", "saturation", "following_drop")


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
        "objective.name": tuple(FAMILY),
        "objective.normalize": ("mean", "sum"),
        "optim.name": tuple(OPTIMIZERS),
        "optim.moment_dtype": ("float32", "bfloat16"),
        "train.param_dtype": ("float32", "bfloat16"),
        "train.rounding": ("nearest", "stochastic"),
        "train.compute_dtype": ("float32", "bfloat16"),
        "train.remat": tuple(REMAT_POLICIES),
        "canaries.action": CANARY_ACTIONS,
        "evaluation.api": APIS,
        "sampling.engine": ENGINES,
        "server.gguf": ("", *GGUF_KINDS),
        "lora.base": ("", "float32", "bfloat16", *QUANTIZED),
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
        "sampling.contrast": 0.0,
        "sampling.max_new_tokens": 1,
        "sampling.batch_size": 1,
        "objective.row_weight": 0.0,
        "objective.column_weight": 0.0,
        "objective.margin": 0.0,
        "objective.sft_weight": 0.0,
        "objective.kl_weight": 0.0,
        "objective.balance_weight": 0.0,
        "objective.router_z_weight": 0.0,
        "lora.rank": 0,
        "optim.warmup_updates": 0,
        "optim.decay_updates": 0,
        "optim.weight_decay": 0.0,
        "train.batch_size": 1,
        "train.microbatches": 1,
        "train.checkpoint_every": 0,
        "train.max_skipped_updates": 0,
        "train.shapes": 1,
        "train.bucket": 1,
        "train.constitutions_at_once": 0,
        "canaries.queries": 1,
        "canaries.length_factor": 1.0,
        "evaluation.queries": 1,
        "evaluation.temperature": 0.0,
        "evaluation.batch_size": 1,
        "evaluation.concurrency": 1,
        "evaluation.judge_tokens": 1,
        "evaluation.judged": 1,
        "server.concurrency": 1,
    }.items():
        check_number(field, low)
    above_zero = ("objective.beta", "optim.learning_rate", "optim.epsilon", "optim.clip_norm", "lora.alpha")
    of_server = ("server.start_within", "server.timeout", "server.disagreement")
    for field in ("evaluation.timeout", *of_server, *above_zero):
        check_number(field, 0.0, above=True)
    check_number("constitutions.principles", 1, 16)  # their sides are listed, 2**16 at most
    for field in ("sampling.top_p", "evaluation.top_p"):
        check_number(field, 0.0, 1.0, above=True)
    check_number("data.eval_fraction", 0.0, 0.9)
    known = f"one of {', '.join(OWN_JUDGES)}, a model's folder or name"
    check("evaluation.judge", bool(config.evaluation.judge), known)
    named = not config.evaluation.endpoint or config.evaluation.judge not in OWN_JUDGES
    check("evaluation.judge", named, "a model that config.evaluation.endpoint has")
    check_sources(config.data, judged=config.evaluation.judge != "none")
    check_number("canaries.logprob_drop", 0.0)
    check_number("canaries.false_alarms", 0.0, 0.5, above=True)
    for field in ("review.fraction", *(f"canaries.{name}" for name in CANARY_SHARES)):
        check_number(field, 0.0, 1.0)
    check_number("optim.b1", 0.0, 0.999999)
    if config.optim.b2 != OWN_DECAY:
        check("optim.b2", 0.0 <= config.optim.b2 <= 0.999999, "from 0.0 to 0.999999, or -1 for the optimizer's own")
    o = config.objective
    contrasts = o.row_weight + o.column_weight > 0
    check("objective.row_weight", contrasts or o.sft_weight > 0, "above 0 where column_weight and sft_weight are 0")
    check(
        "objective.bare", not (contrasts and o.bare), "False where constitutions are contrasted: prompt.bare has none"
    )
    for field in ("over_base", "squared"):
        check(f"objective.{field}", contrasts or not o[field], "False where row_weight and column_weight are 0")
    check("objective.margin", not (o.margin and o.squared), "0 where squared is True: its target is 1/2")
    check(
        "train.updates",
        len(config.train.updates) > 0 and all(u >= 1 for u in config.train.updates),
        "a tuple of counts, each at least 1",
    )
    behind = max(config.train.updates) - config.optim.warmup_updates
    decayed = not config.optim.decay_updates or config.optim.decay_updates >= behind
    check("optim.decay_updates", decayed, f"0, or at least {behind}: with fewer, the last updates change nothing")
    check(
        "train.microbatches",
        config.train.batch_size % config.train.microbatches == 0,
        f"a divisor of train.batch_size={config.train.batch_size}",
    )
    targets = config.lora.targets
    check("lora.targets", set(targets) <= set(TARGETS), f"some of {', '.join(TARGETS)}, or () for all")
    check("lora.base", config.lora.rank > 0 or not config.lora.base, "'' where lora.rank is 0: all weights are trained")
    # Nothing is computed again then: a dequantized copy of every layer would be kept for the backward pass.
    kept = config.train.remat == "none" and config.lora.base in QUANTIZED
    check("train.remat", not kept, f"dots or full where lora.base is {config.lora.base}")
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
    check("prompt.date", is_date(config.prompt.date), "a date, YYYY-MM-DD")
    check_template(config.prompt.generation, "config.prompt.generation", system)
    check_template(config.prompt.training, "config.prompt.training", system)
    bare = config.prompt.bare
    plain = "{query}" in bare and "{constitution}" not in bare
    check("prompt.bare", plain or not (bare or o.bare), "a template with {query} and without {constitution}")
    primed = config.prompt.chat and config.filter.prefix
    check("filter.prefix", not primed, "'' where config.prompt.chat is True: a chat primes no words")
    mark, cuts = config.filter.keep_after, (*config.filter.cut_at, *config.sampling.stop)
    asked = config.prompt.generation + system
    check("filter.keep_after", mark in asked, "a text that config.prompt.generation asks for")
    uncut = not any(cut in mark for cut in cuts)
    check("filter.keep_after", uncut, "free of what sampling.stop and filter.cut_at cut at")
    opposed = config.constitutions.rule == "complement"
    check(
        "sampling.contrast", opposed or not config.sampling.contrast, "0 where constitutions.rule is not 'complement'"
    )
    if config.sampling.engine == "server":
        command, load = config.server.command, config.server.load
        check(
            "server.command", bool(command) != bool(config.server.address), "a command, or () and server.address given"
        )
        for mark in ("{model}", "{port}"):
            check(
                "server.command", not command or any(mark in part for part in command), f"a command that takes {mark}"
            )
        told = load == () or (len(load) == 2 and load[0].startswith("/"))
        check("server.load", told, "a path and a field, ('/update_weights_from_disk', 'model_path'), or ()")
        check("server.gguf", bool(command) or not config.server.gguf, "'' where server.command is ()")
        check("sampling.contrast", not config.sampling.contrast, "0 where sampling.engine is 'server'")
    if opposed:
        check("constitutions.count", config.constitutions.count % 2 == 0, "even: the rule 'complement' makes pairs")
