"""`sami compare`: the plan, the responses, the verdicts, the decision."""

import argparse
import json
from pathlib import Path

from sami_jax.cli.options import skipped_by, tell_programs
from sami_jax.cli.rates import print_rates
from sami_jax.config import load_config
from sami_jax.config.checks import validate
from sami_jax.data.jsonl import write_json, write_jsonl
from sami_jax.data.splits import split_queries
from sami_jax.data.templates import say_cut
from sami_jax.errors import UserError
from sami_jax.evaluation.compare import Contestant, answer, compose, decide, judged_rows, pair_up, read_examples, shows
from sami_jax.evaluation.judging import PairJudge, judge_pairs
from sami_jax.ground.digests import file_digests, json_digest
from sami_jax.ground.lock import lock_folder
from sami_jax.ground.paths import path_of
from sami_jax.ground.terminal import say, show
from sami_jax.models.files import model_files
from sami_jax.models.pretrained import ModelFolder, open_model
from sami_jax.principles.files import read_principles
from sami_jax.principles.gate import admit
from sami_jax.provenance.manifest import RunRecord
from sami_jax.serving.engine import check_server, open_engine
from sami_jax.sharding import make_mesh
from sami_jax.stages.preparation import devices

SAMPLED = "sampled"  # folder, in that of a comparison, of responses before they are cleaned


def compare_models(arguments: argparse.Namespace, judge: PairJudge) -> None:
    """Continues where a stopped comparison was; the plan cannot change in between."""
    if not 0 <= arguments.margin < 0.5:
        raise UserError(f"--margin {arguments.margin}: must be at least 0 and below 0.5")
    if not 0 <= arguments.most_invalid < 1:
        raise UserError(f"--most_invalid {arguments.most_invalid}: must be at least 0 and below 1")
    config, _ = load_config(arguments.config, arguments.overrides)
    validate(config)
    if config.sampling.contrast:
        raise UserError(
            f"--config.sampling.contrast={config.sampling.contrast}: must be 0: a comparison asks under principles alone, without opposites"
        )
    folder = arguments.principles or path_of(config.principles.path)
    admission = admit(folder, read_principles(folder), config.review.fraction, allow_unapproved=False)
    split = split_queries(config.data, skipped_by(arguments))
    queries = split.held_out[: config.evaluation.queries]
    contestants = [_contestant(arguments, config, role) for role in ("baseline", "test")]
    for one in contestants:
        check_server(config, one.model)
    constitutions = compose(config, admission.principles, len(queries))
    gain, needed = shows(arguments.margin)
    if len(queries) < needed:
        say(
            f"{len(queries)} queries: a true gain of {100 * gain:.3g} points is shown in 4 of 5 comparisons by {needed}, where no "
            "verdict is a tie"
        )
    plan = {
        "judge": judge.name,
        "metric": "win rate, ties as half",
        "lengths": "tokens of what is judged, by the baseline's tokenizer",
        "margin": arguments.margin,
        "most_invalid": arguments.most_invalid,
        "queries": len(queries),
        "shown_in_4_of_5": {"gain": gain, "queries": needed},
        "both_orders": not arguments.one_order,
        "contestants": {
            c.role: {"chat": c.model.chat is not None, "examples": json_digest(list(c.examples))} for c in contestants
        },
    }
    with lock_folder(arguments.output):
        record = RunRecord(arguments.output, _made_from(config, admission, split.records, contestants, plan), devices())
        mesh = make_mesh(config.mesh.to_dict())
        answers, cut = [], {}
        for one in contestants:
            file = f"{one.role}.jsonl"
            asked = (queries, constitutions, mesh, arguments.output / SAMPLED / file)
            sampled, cut[one.role] = _answered(config, one, *asked)
            say_cut(config.prompt, cut[one.role], f"{len(queries)} prompts of the {one.role}; the judge sees it whole")
            answers.append(judged_rows(config, one, sampled, unit=contestants[0].model))
            write_jsonl(arguments.output / file, answers[-1])
        files = [arguments.output / name for name in (SAMPLED, "baseline.jsonl", "test.jsonl")]
        record.stage("answered", 0, files)
        pairs = pair_up(queries, constitutions, *answers)
        verdicts = judge_pairs(pairs, judge, arguments.output / "verdicts.jsonl", plan["both_orders"])
        found = decide(verdicts, arguments.margin, arguments.most_invalid) | {"prompts_with_query_cut": cut}
        write_json(arguments.output / "comparison.json", found)
        record.stage("judged", 0, [arguments.output / "verdicts.jsonl", arguments.output / "comparison.json"])
        record.finish("complete")
    tell_programs(arguments, found)
    print_rates(found["win_rate"], found["slices"], "half")
    show(f"{found['decision']}: {found['reason']}", style="bold")


def _answered(config, one: Contestant, queries, constitutions, mesh, file: Path) -> tuple[list[dict], int]:
    """The weights are gone before the other's are loaded."""
    with open_engine(config, mesh, file.parent) as engine:
        sampler = engine.sampler(one.model, one.model.load(mesh, config.train.compute_dtype))
        return answer(config, one, queries, constitutions, sampler, file)


def _contestant(arguments: argparse.Namespace, config, role: str) -> Contestant:
    examples = getattr(arguments, f"{role}_examples")
    model = open_model(getattr(arguments, role) or path_of(config.model.path), config.model.attention, config.prompt)
    if getattr(arguments, f"{role}_chat") and not model.chat:
        model = model.chatting(config.prompt.system, config.prompt.date)
    if examples and model.chat:
        raise UserError(f"--{role}_examples {examples}: a chat is asked without examples; leave them out")
    return Contestant(role, model, read_examples(examples) if examples else ())


def _made_from(config, admission, queries: dict[str, dict], contestants: list[Contestant], plan: dict) -> dict:
    """What the comparison is made from, for its manifest: the plan and all it speaks of."""
    baseline, test = (_digests(c.model) for c in contestants)
    admitted = admission.record()
    for principle in admitted["principles"]:
        principle["role"] = "compared"
    return {
        "config": json.loads(config.to_json()) | {"plan": plan},
        "seed": config.seed,
        **admitted,
        "inputs": {
            **queries,
            "test_model": {"path": str(contestants[1].model.place), "sha256": json_digest(test)},
        },
        "evaluation_plan": {"sha256": json_digest(plan)},
        "base_model": {"path": str(contestants[0].model.place), "files": baseline},
        "status": "running",
    }


def _digests(model: ModelFolder) -> dict[str, str]:
    """Of all that is read of a contestant."""
    found = file_digests(model_files(model.folder), model.folder)
    if model.adapter:
        found |= {f"adapter/{name}": digest for name, digest in file_digests([model.adapter], model.adapter).items()}
    return found
