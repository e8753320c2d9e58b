"""`sami plan`: its options, and what it does."""

import argparse

from sami_jax.cli.options import add_verb, tell_programs, with_config, with_results
from sami_jax.errors import UserError


def add_verbs(verbs) -> None:
    plan = add_verb(
        verbs,
        "plan",
        _plan,
        "will it fit, how long will it take, what will it cost? compiles for TPUs or NVIDIA GPUs, without them",
        "sami plan --config=tldr_mistral7b --topology=v5e:4x4 --config.train.microbatches=8 --price 1.2",
    )
    with_config(plan)
    plan.add_argument(
        "--topology",
        required=True,
        help="TPUs: KIND:SHAPE[,num_slices=N], as v5e:4x4; GPUs: KIND:PARTITIONSxHOSTSxDEVICES, as h100:1x1x8",
    )
    plan.add_argument("--memory_fraction", type=float, help="of a GPU's memory, that JAX takes; default 0.75")
    plan.add_argument("--prefix", type=int, help="tokens of a prompt; default config.prompt.max_tokens")
    plan.add_argument("--response", type=int, help="tokens of a response; default config.sampling.max_new_tokens")
    plan.add_argument("--price", type=float, help="of a chip (a GPU) for an hour, in any currency")
    plan.add_argument("--suggest", action="store_true", help="search meshes for the best that fits")
    with_results(plan)


def _plan(arguments: argparse.Namespace) -> None:
    import os

    # Programs are compiled for devices that are not here; what is here must not be taken.
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "0"  # of such programs it can be written, not read
    import dataclasses

    from sami_jax.config import load_config
    from sami_jax.config.checks import validate
    from sami_jax.ground.accelerators import find_libtpu_again
    from sami_jax.ground.paths import path_of
    from sami_jax.models.huggingface import read_config
    from sami_jax.models.published import SHAPES
    from sami_jax.planning.costs import Texts
    from sami_jax.planning.plan import make_plan
    from sami_jax.planning.show import as_json, show_plan, show_suggestion
    from sami_jax.planning.suggest import best_mesh, what_fits
    from sami_jax.planning.topology import open_topology

    config, _ = load_config(arguments.config, arguments.overrides)
    validate(config)
    folder = path_of(config.model.path)
    if folder.is_dir():
        model = read_config(folder)
    elif config.model.shape:
        model = SHAPES[config.model.shape]
    else:
        raise UserError(
            f"config.model.path={config.model.path!r}: no such folder; set config.model.shape to one of {', '.join(SHAPES)}"
        )
    model = dataclasses.replace(model, attention=config.model.attention)
    texts = Texts(
        arguments.prefix or config.prompt.max_tokens,
        arguments.response or config.sampling.max_new_tokens,
        config.constitutions.count,
    )
    if min(texts) < 1:
        raise UserError(f"--prefix {texts.prefix} --response {texts.response}: must be at least 1")
    if arguments.price is not None and arguments.price < 0:
        raise UserError(f"--price {arguments.price:g}: must be at least 0")
    fraction = arguments.memory_fraction
    if fraction is not None and not 0 < fraction <= 1:
        raise UserError(f"--memory_fraction {fraction:g}: must be above 0 and at most 1")
    find_libtpu_again()
    topology = open_topology(arguments.topology, fraction)
    suggestion = None
    if arguments.suggest:
        suggestion = best_mesh(config, model, topology, texts)
    plan = suggestion.plan if suggestion else make_plan(config, model, topology, texts)
    if not plan.fits:
        suggestion = what_fits(config, model, topology, texts)
    tell_programs(arguments, as_json(plan, suggestion, arguments.price))
    show_plan(plan, arguments.price)
    if arguments.suggest or not plan.fits:
        show_suggestion(suggestion)
