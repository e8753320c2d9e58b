"""`sami study`: several objectives against each other, as equals."""

import argparse
import math

from sami_jax.cli.options import (
    add_verb,
    new_folder,
    skipped_by,
    tell_programs,
    with_config,
    with_hosts,
    with_results,
    with_skipping,
)
from sami_jax.ground.stopping import gracefully


def add_verbs(verbs) -> None:
    study = add_verb(
        verbs,
        "study",
        _study,
        "objectives against each other: each tuned alike, then measured on held-out queries",
        "sami study --config=tiny --objectives=sami,dpo,sft --seeds=0,1,2 --workdir=runs/study",
    )
    with_config(study)
    with_skipping(study)
    with_hosts(study)
    with_results(study)
    study.add_argument(
        "--allow_unapproved",
        action="store_true",
        help="use principles nobody approved; the manifests and the model cards will say so",
    )
    study.add_argument(
        "--objectives",
        default="sami,sami-base,dpo,mipo,simpo,ipo,sft,contrast",
        metavar="NAME,...",
        help="names of config.objective.name, and contrast for contrastive decoding of the base; default all",
    )
    study.add_argument("--seeds", type=_seeds, default="0,1,2", help="of the held-out runs; default 0,1,2")
    study.add_argument(
        "--tuning_seeds", type=_seeds, default="10", help="of the runs that rates are chosen by; default 10"
    )
    study.add_argument(
        "--rates", type=_factors, default="0.5,1,2", help="tried for each, times the config's learning rate"
    )
    study.add_argument("--betas", type=_factors, default="0.3,1,3", help="tried for each, times its own beta")
    study.add_argument(
        "--kl_weights",
        type=_weights,
        metavar="KL_WEIGHTS",
        help="of config.objective.kl_weight, tried for each; default the config's alone",
    )
    study.add_argument(
        "--validation",
        default="",
        metavar="FILE",
        help="queries that rates are chosen by; default validation.jsonl beside config.data.queries",
    )
    study.add_argument(
        "--text",
        default="",
        metavar="FILE",
        help="texts, in a column as queries have, whose perplexity is told of each model; default none",
    )
    study.add_argument(
        "--workdir", type=new_folder, required=True, help="folder of all runs, study.json and study.html"
    )
    study.set_defaults(compiles=True)


def _seeds(text: str) -> tuple[int, ...]:
    return _different(text, int, "whole numbers from 0 to 2147483647", lambda seed: 0 <= seed < 2**31)


def _factors(text: str) -> tuple[float, ...]:
    return _different(text, float, "numbers above 0", lambda factor: 0 < factor < math.inf)


def _weights(text: str) -> tuple[float, ...]:
    return _different(text, float, "numbers from 0", lambda weight: 0 <= weight < math.inf)


def _different(text: str, kind, wanted: str, holds) -> tuple:
    try:
        found = tuple(kind(part) for part in text.split(","))
    except ValueError:
        found = ()
    if not found or not all(map(holds, found)) or len(set(found)) < len(found):
        raise argparse.ArgumentTypeError(f"{text!r:.60} must be different {wanted}, with commas between")
    return found


def _study(arguments: argparse.Namespace) -> None:
    from sami_jax.config import load_config
    from sami_jax.config.checks import validate
    from sami_jax.data.queries import read_queries
    from sami_jax.ground.lock import lock_folder
    from sami_jax.ground.paths import path_of
    from sami_jax.stages.study import Grid, Way, study, validation_queries

    config, _ = load_config(arguments.config, arguments.overrides)
    validate(config)
    validation = validation_queries(config, arguments.validation)
    texts = [query.text for query in read_queries(path_of(arguments.text))] if arguments.text else []
    way = Way(config, validation, arguments.allow_unapproved, lambda: skipped_by(arguments), texts)
    kl_weights = arguments.kl_weights or (config.objective.kl_weight,)
    grid = Grid(arguments.rates, arguments.betas, kl_weights, arguments.tuning_seeds)
    with gracefully(), lock_folder(arguments.workdir):
        found = study(way, arguments.objectives.split(","), arguments.seeds, grid, arguments.workdir)
    tell_programs(arguments, found)
