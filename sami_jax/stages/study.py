"""A study: several objectives with the same queries, constitutions and updates, each at its own best settings.

    for each objective: runs over a small grid of settings, measured on the validation queries; the best is chosen
    for each objective and seed: a run as it was chosen, measured once on the held-out queries

Every run is a folder of `loop.run`: a study that was stopped goes on when it is started again, and ends in the same table.
"""

import hashlib
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ml_collections import ConfigDict

from sami_jax.config.checks import validate
from sami_jax.contrast.family import FAMILY
from sami_jax.data.jsonl import parse_measured, read_appended, read_json, read_jsonl, write_json
from sami_jax.data.rows import Skipped
from sami_jax.errors import NotFinite, StoppedByCanary, UserError
from sami_jax.evaluation.measure import share_followed
from sami_jax.evaluation.probing import diversity, perplexity
from sami_jax.evaluation.study import Answers, Settings, settings_of, strengths, summary
from sami_jax.ground import hosts
from sami_jax.ground.paths import path_of
from sami_jax.ground.redaction import redacted
from sami_jax.ground.terminal import results_withheld, say, show
from sami_jax.provenance.manifest import read_statement
from sami_jax.report.study import print_study, write_page
from sami_jax.serving.engine import open_engine
from sami_jax.stages.cost import forward_tokens, seconds
from sami_jax.stages.finetuning import trained_model
from sami_jax.stages.loop import evaluate, run
from sami_jax.stages.metrics import EVALUATION
from sami_jax.stages.preparation import prepare

BASE = "iteration_0"  # folder of the base in each run
CONTRAST = "contrast"  # contrastive decoding: nothing is trained, its beta is `sampling.contrast`
METHODS = (*FAMILY, CONTRAST)
STUDY, PLAN, PROBE = "study.json", "plan.json", "probe.json"
WHOLE = 0.02  # share of replies, below the base's, that may cease to be whole in a run that is chosen


class Cell(NamedTuple):
    """One run."""

    objective: str
    settings: Settings
    seed: int

    @property
    def name(self) -> str:
        settings = "_".join(f"{name.removesuffix('_weight')}{each:g}" for name, each in self.settings._asdict().items())
        return f"{self.objective}_{settings}_seed{self.seed}"


class Grid(NamedTuple):
    rates: Sequence[float]
    betas: Sequence[float]
    kl_weights: Sequence[float]
    seeds: Sequence[int]  # that the choice is made with

    def settings(self, objective: str) -> list[Settings]:
        """Those that make a difference to the objective."""
        row = FAMILY.get(objective)
        betas = self.betas if row is None or row.row_weight + row.column_weight else (1.0,)
        kl_weights = (0.0,) if objective == CONTRAST else self.kl_weights
        return [Settings(*each) for each in itertools.product(self.rates, betas, kl_weights)]


class Way(NamedTuple):
    """How runs are begun."""

    config: ConfigDict
    validation: str  # queries
    allow_unapproved: bool
    skipping: Callable[[], Skipped | None]  # a new count of rows passed over
    texts: Sequence[str] = ()  # whose perplexity is told: what was kept of the base


def study(way: Way, objectives: Sequence[str], seeds: Sequence[int], grid: Grid, workdir: Path) -> dict:
    """Makes or continues a study in `workdir`: tuning/ and held_out/ hold its runs, study.json and study.html its results.

    Returns:
      what study.json holds: the settings chosen, with the validation's figures, and by evaluation set what is said of each method.
    Raises:
      UserError: bad config or input, or a folder that holds another study.
      Stopped: somebody asked.
    """
    for at, objective in enumerate(objectives):
        if objective not in METHODS or objective in objectives[:at]:
            raise UserError(f"--objectives: {objective!r:.40}: give different ones of {', '.join(METHODS)}")
    for objective in objectives:
        validate(cell_config(way.config, Cell(objective, Settings(), seeds[0]), None))
    _keep_plan(way, grid, workdir / PLAN)
    chosen = {objective: _tuned(way, objective, grid, workdir / "tuning") for objective in objectives}
    folders: dict[str, list[Path]] = {"base": []}
    for seed in seeds:
        for objective in objectives:
            cell = Cell(objective, settings_of(chosen[objective]), seed)
            base, last = _run(way, cell, workdir / "held_out", None)
            _probe(way, cell, last)
            folders.setdefault(objective, []).append(last)
        _probe(way, cell, base)  # the same in all runs of a seed
        folders["base"].append(base)
    found = {"chosen": chosen, "seeds": [*seeds], "sets": _compared(folders, seeds)}
    write_json(workdir / STUDY, found)
    print_study(found)
    show(f"Study: {write_page(found, workdir)}")
    return found


def _keep_plan(way: Way, grid: Grid, file: Path) -> None:
    """Notes what choices are made by, once. Objectives and seeds may be added later."""
    config = redacted(json.loads(way.config.to_json()))
    texts = hashlib.sha256(json.dumps([*way.texts]).encode()).hexdigest() if way.texts else None
    plan = {"config": config, "validation": way.validation, "texts": texts}
    plan |= {name: [*each] for name, each in grid._asdict().items()}
    if hosts.once(file.exists):
        if read_json(file, "use another --workdir") != plan:
            raise UserError(
                f"{file}: this folder holds a study made otherwise; use another --workdir, or what it was begun with"
            )
    else:
        write_json(file, plan)


def validation_queries(config: ConfigDict, given: str) -> str:
    """The file that choices are made by: the one that is given, or validation.jsonl beside the training queries.

    Raises:
      UserError: there is neither, or it is the file of the held-out queries.
    """
    file = path_of(given) if given else path_of(config.data.queries).with_name("validation.jsonl")
    if not file.is_file():
        raise UserError(
            f"{file}: no such file; give queries to choose rates by, neither trained on nor held out: --validation"
        )
    held_out = config.data.eval_queries
    if held_out and file.resolve() == path_of(held_out).resolve():
        raise UserError(f"--validation {file}: holds the held-out queries; give others")
    return str(file)


def cell_config(config: ConfigDict, cell: Cell, validation: str | None) -> ConfigDict:
    """The config of a run: the study's, with all of the objective's row, at the cell's settings and seed."""
    rate, beta, kl_weight = cell.settings
    changed = config.copy_and_resolve_references()
    changed.seed = cell.seed
    if cell.objective == CONTRAST:
        changed.sampling.contrast = rate * beta
    else:
        row = FAMILY[cell.objective]
        own = {"name": cell.objective, "beta": row.beta * beta, "kl_weight": kl_weight}
        changed.objective.update(row._asdict() | own)
        changed.optim.learning_rate = config.optim.learning_rate * rate
    if validation is not None:
        changed.data.eval_queries = validation
    return changed


def _tuned(way: Way, objective: str, grid: Grid, folder: Path) -> dict:
    """The grid's best settings on the validation queries, under trained principles; where it has one alone, that, and nothing is run."""
    tried = grid.settings(objective)
    if len(tried) == 1:
        return tried[0]._asdict() | {"grid": []}
    rows = []
    for settings in tried:
        measured = []
        for seed in grid.seeds:
            base, last = _run(way, Cell(objective, settings, seed), folder, way.validation)
            measured.append(tuple(_measured(one)["trained"] for one in (base, last)))
        row = settings._asdict()
        for key in ("following", "well_formed", "mi_posterior_bound"):
            if key in measured[0][1]:
                row[key] = sum(after[key] for _, after in measured) / len(measured)
                row[f"base_{key}"] = sum(before[key] for before, _ in measured) / len(measured)
        rows.append(row)
    return best(rows) | {"grid": rows}


def best(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The settings of the row that follows most, of those whose replies are as whole as the base's or nearly; of the one with
    the most information where nobody judges. Of equals the first."""
    sound = [row for row in rows if row.get("well_formed", 1) >= row.get("base_well_formed", 1) - WHOLE]
    sign = "following" if "following" in rows[0] else "mi_posterior_bound"
    first = max(sound or rows, key=lambda row: row[sign])
    return settings_of(first)._asdict()


def _run(way: Way, cell: Cell, folder: Path, validation: str | None) -> tuple[Path, Path]:
    """Makes or continues one run; the folders of the base and of the last model that were measured."""
    workdir, config = folder / cell.name, cell_config(way.config, cell, validation)
    say(f"{workdir}: {cell.objective}, {cell.settings}, seed {cell.seed}")
    if cell.objective == CONTRAST:
        plain = cell_config(way.config, _plain(cell), validation)
        base, last = workdir / BASE, workdir / CONTRAST
        for made, place, baseline in ((plain, base, None), (config, last, base)):
            inputs = prepare(made, workdir, way.allow_unapproved, way.skipping())
            with open_engine(made, inputs.mesh, workdir) as engine:
                evaluate(made, inputs, inputs.base, place, baseline, engine)
        return base, last
    try:
        with results_withheld():
            run(config, workdir, way.allow_unapproved, way.skipping())
    except (StoppedByCanary, NotFinite) as stop:  # what was good before stands
        say(f"  {stop}")
    measured = [path for path in workdir.glob("iteration_*") if (path / EVALUATION).is_file()]
    return workdir / BASE, max(measured, key=lambda path: int(path.name.removeprefix("iteration_")))


def _plain(cell: Cell) -> Cell:
    """As the base is asked: without a contrast between prompts."""
    return cell._replace(settings=Settings(beta=0.0)) if cell.objective == CONTRAST else cell


def _probe(way: Way, cell: Cell, folder: Path) -> None:
    """Asks the model of a run's folder for several replies to some prompts and for the likelihood of texts, and tells what it took to make
    it: probe.json."""
    if hosts.once((folder / PROBE).exists):
        return
    config = cell_config(way.config, _plain(cell) if folder.name == BASE else cell, None)
    inputs = prepare(config, folder.parent, way.allow_unapproved, way.skipping())
    untrained = folder.name in (CONTRAST, BASE)
    model = inputs.base if untrained else trained_model(config, inputs.base, folder)
    params = model.load(inputs.mesh, config.train.compute_dtype)
    found = diversity(config, model, params, inputs.evaluation_sets[0], inputs.mesh, folder / "probe")
    if way.texts:
        found["perplexity"] = perplexity(model, params, way.texts, inputs.mesh, config.evaluation.batch_size)
    found["forward_tokens"] = 0 if untrained else forward_tokens(config, inputs, folder.parent)
    found["seconds"] = 0 if untrained else seconds(folder.parent)
    write_json(folder / PROBE, found)


def _measured(folder: Path) -> dict:
    return read_json(folder / EVALUATION, "remove its run's folder to make it again", parse_measured)


def _compared(folders: Mapping[str, Sequence[Path]], seeds: Sequence[int]) -> dict[str, dict]:
    """By evaluation set, what is said of each method."""
    answers: dict[str, dict[str, list[Answers]]] = {}
    for name, of_seeds in folders.items():
        for seed, folder in zip(seeds, of_seeds, strict=True):
            for set_name, measured in _measured(folder).items():
                one = _answers(folder, set_name, measured, seed)
                answers.setdefault(set_name, {}).setdefault(name, []).append(one)
    found = {}
    for set_name, by_method in answers.items():
        strength = strengths(by_method)
        found[set_name] = {
            name: summary(ours, by_method["base"])
            | ({"strength": strength[name]} if strength else {})
            | {"stopped_by_canaries": [seed for seed, one in zip(seeds, folders[name], strict=True) if _stopped(one)]}
            for name, ours in by_method.items()
        }
    return found


def _answers(folder: Path, set_name: str, measured: Mapping, seed: int) -> Answers:
    rows = read_jsonl(folder / "evaluation" / f"{set_name}.jsonl")
    verdicts, followed = folder / "evaluation" / f"{set_name}.verdicts.jsonl", None
    if "well_formed" in measured:  # somebody has judged
        followed = [share_followed(row["followed"]) for row in read_jsonl(verdicts)]
    return Answers(
        seed=seed,
        queries=[str(row["id"]) for row in rows],
        tokens=[row["tokens"] for row in rows],
        information=measured["mi_posterior_bound"],
        kept=_kept(folder),
        probed=read_json(folder / PROBE, "remove it to have it measured again"),
        followed=followed,
        well_formed=measured.get("well_formed"),
    )


def _kept(folder: Path) -> float | None:
    """How much likelier the base's own replies to the canaries have become, nats a token; None where no canary was asked."""
    looks = read_appended(folder / "canaries.jsonl")
    return looks[-1]["kept_logprob"] - looks[0]["kept_logprob"] if looks else None


def _stopped(folder: Path) -> bool:
    """Whether canaries ended the run whose model this is."""
    if folder.name in (CONTRAST, BASE):
        return False
    return read_statement(folder.parent)["predicate"]["status"] != "complete"
