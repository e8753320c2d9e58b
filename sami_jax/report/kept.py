"""What a model kept: the figures of two results files of lm-eval, the base's and the aligned model's, and how they differ.

The files are read as lm-eval wrote them. Two that were not asked the same way are refused: their difference would be of the
questions as well as of the models.
"""

import dataclasses
import hashlib
import json
import math
import os
import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from sami_jax.data.jsonl import parse_measured
from sami_jax.data.shape import NUMBER, misfit, read_shaped
from sami_jax.errors import UserError
from sami_jax.evaluation.statistics import Z
from sami_jax.report.data import Run
from sami_jax.report.texts import Words

ADVICE = "give the results file of lm-eval (0.4 or newer) as it wrote it"
BY_TASK = {str: object}
SHAPE = {
    "results": {str: {str: object}},
    "config?": {str: object},
    **{f"{key}?": BY_TASK for key in ("versions", "n-shot", "group_subtasks", "task_hashes")},
    **{f"{key}?": {str: {str: object}} for key in ("configs", "n-samples", "higher_is_better")},
}
# How all tasks were asked: place in the file -> in words.
ASKED = {
    "config.limit": "--limit",
    "config.gen_kwargs": "--gen_kwargs",
    "config.random_seed": "--seed",
    "config.numpy_seed": "--seed",
    "config.torch_seed": "--seed",
    "config.fewshot_seed": "--seed",
    "system_instruction": "the system instruction",
    "fewshot_as_multiturn": "--fewshot_as_multiturn",
    "chat_template": "the chat template",
}
# How one task was asked, likewise.
TASK_ASKED = {
    "versions": "its version",
    "n-shot": "the number of examples in its prompt",
    "n-samples": "the number of its questions",
    "group_subtasks": "the tasks in this group",
    "higher_is_better": "which of its figures should be high",
    "task_hashes": "the hash of its questions",
}
# What may differ, and is said: it moves figures a little, or is what differs between the models.
TOLD = ("lm_eval_version", "transformers_version", "config.model", "config.model_dtype", "max_length")
# Functions in a task's settings are written with their address in the process.
ADDRESS = re.compile(r" at 0x[0-9a-f]+")


@dataclasses.dataclass(frozen=True)
class Results:
    """A results file of lm-eval."""

    file: Path
    sha256: str  # of the file
    content: dict

    def iteration_of(self, workdir: Path) -> int | None:
        """The iteration of a run whose model was asked; None where it is none, as its path is seen from here."""
        folder, name = os.path.split(os.path.dirname(os.path.abspath(self.model)))
        number = name.removeprefix("iteration_")
        return int(number) if folder == os.path.abspath(workdir) and name != number and number.isdecimal() else None

    @cached_property
    def arguments(self) -> dict:
        """What the model was loaded with; earlier versions of lm-eval wrote it as one text."""
        given = self.at("config.model_args")
        if isinstance(given, str):
            return dict(pair.split("=", 1) for pair in given.split(",") if "=" in pair)
        return given if isinstance(given, dict) else {}

    @property
    def model(self) -> str:
        """The adapter or the folder that was asked, as the file names it; the file's own name where it names none."""
        names = [self.arguments.get(key) for key in ("peft", "pretrained", "model")]
        return next(
            (name for name in (*names, self.at("model_name")) if name and isinstance(name, str)), self.file.name
        )

    def at(self, place: str):
        """What stands at "key" or "key.key"; None where nothing does."""
        found = self.content
        for key in place.split("."):
            found = found.get(key) if isinstance(found, dict) else None
        return found

    def of(self, key: str, task: str):
        """What stands under a key about one task; None where nothing does."""
        return self.content.get(key, {}).get(task)


@dataclasses.dataclass(frozen=True)
class Figure:
    """One metric of one task, of both models, in the metric's own unit; each a value and its standard error, where there is one."""

    task: str
    group: bool  # of a group of tasks, which have rows of their own
    metric: str
    questions: int | None
    base: tuple[float, float | None]
    aligned: tuple[float, float | None]
    higher_is_better: bool | None

    @property
    def difference(self) -> float:
        return self.aligned[0] - self.base[0]

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % interval of the difference, as if the models had answered different questions. None where a standard error is missing,
        or is 0: where all answers are alike, nothing shows how much others would differ."""
        if not (self.base[1] and self.aligned[1] and math.isfinite(self.difference)):
            return None
        half = Z * math.hypot(self.base[1], self.aligned[1])
        return self.difference - half, self.difference + half

    @property
    def direction(self) -> str | None:
        """better, same or worse, by the interval; None where there is none, or nobody said what is better."""
        if self.interval is None or self.higher_is_better is None:
            return None
        low, high = self.interval if self.higher_is_better else (-self.interval[1], -self.interval[0])
        return "better" if low > 0 else "worse" if high < 0 else "same"


@dataclasses.dataclass(frozen=True)
class Kept:
    """Two results files, held against each other."""

    base: Results
    aligned: Results
    figures: list[Figure]
    only: tuple[list[str], list[str]]  # what only the base's file has, and only the aligned model's
    told: list[tuple[str, str, str]]  # what differs and may: its place, and what either file says

    def as_json(self) -> list[dict]:
        """The figures, for programs."""
        derived = ("difference", "interval", "direction")
        return [dataclasses.asdict(one) | {name: getattr(one, name) for name in derived} for one in self.figures]


def read_kept(workdir: Path, base: Path, aligned: Path) -> Kept:
    """
    Args:
      workdir: the run's folder.
      base, aligned: results files of lm-eval, of the base and of the aligned model.
    Raises:
      UserError: one cannot be read or is no such file, both are of one model or stand in the wrong order, they have no figure in
        common, or were not asked the same way.
    """
    before, after = _read(base), _read(aligned)
    if before.iteration_of(workdir) is not None:
        raise UserError(f"{base}: is of {before.model}, a model of this run; give the base's results first")
    if before.sha256 == after.sha256 or before.model == after.model:
        raise UserError(
            f"{aligned}: is of {after.model}, as {base} is; give the base's results first, then the aligned model's"
        )
    _refuse_other_settings(before, after)
    ours, theirs = ({(task, key): value for task, key, value in _values(one)} for one in (before, after))
    both = [place for place in ours if place in theirs]
    if not both:
        raise UserError(f"{aligned}: has no task and metric that {base} has too; run lm-eval with the same --tasks")
    for task in dict.fromkeys(task for task, _ in both):
        _refuse_other_questions(before, after, task)
    return Kept(
        base=before,
        aligned=after,
        figures=[_figure(before, place, ours[place], theirs[place]) for place in both],
        only=(_only(ours, theirs), _only(theirs, ours)),
        told=[(p, _short(before.at(p)), _short(after.at(p))) for p in TOLD if before.at(p) != after.at(p)],
    )


def _read(file: Path) -> Results:
    content = read_shaped(file, SHAPE, ADVICE, parse_measured)
    found = Results(file, hashlib.sha256(file.read_bytes()).hexdigest(), content)
    if not any(_values(found)):
        raise UserError(f"{file}: no figure under results; {ADVICE}")
    return found


def _values(results: Results) -> Iterator[tuple[str, str, tuple[float, float | None]]]:
    """Task, "metric,filter", and the value with its standard error.

    Raises:
      UserError: one is no number.
    """
    for task, row in results.content["results"].items():
        for key, value in row.items():
            metric, comma, name = key.rpartition(",")
            if not comma or metric.endswith("_stderr"):  # an alias, a count, or read with its value
                continue
            error = row.get(f"{metric}_stderr,{name}")
            error = None if error == "N/A" else error  # of one question, or where lm-eval knows no formula
            place = f"results.{task}.{key}"
            if wrong := misfit(value, NUMBER, place) or misfit(error, NUMBER | None, f"the standard error of {place}"):
                raise UserError(f"{results.file}: {wrong}; {ADVICE}")
            if error is not None and error < 0:
                raise UserError(f"{results.file}: the standard error of {place} is {error}, below 0; {ADVICE}")
            yield task, key, (float(value), None if error is None or not math.isfinite(error) else float(error))


def _refuse_other_settings(base: Results, aligned: Results) -> None:
    for place, meaning in ASKED.items():
        # What is not set is null in one version of lm-eval, and empty in another.
        before, after = base.at(place) or None, aligned.at(place) or None
        if before != after:
            raise _not_alike(base, aligned, f"{meaning} ({place})", before, after)


def _refuse_other_questions(base: Results, aligned: Results, task: str) -> None:
    for key, meaning in TASK_ASKED.items():
        before, after = base.of(key, task), aligned.of(key, task)
        # Hashes are written with --log_samples alone, and older versions write less.
        if before is not None and after is not None and before != after:
            raise _not_alike(base, aligned, f"{task}: {meaning} ({key})", before, after)
    before, after = (_settings(one, task, {*base.arguments, *aligned.arguments}) for one in (base, aligned))
    for name in before:
        if name in after and before[name] != after[name]:
            raise _not_alike(base, aligned, f"{task}: its setting {name}", before[name], after[name])


def _settings(results: Results, task: str, of_models: set[str]) -> dict[str, str]:
    """A task's settings, as text; those that lm-eval copies there from the model's arguments, and where the file lay, aside."""
    config = dict(results.of("configs", task) or {})
    metadata = config.pop("metadata", None)
    if isinstance(metadata, dict):
        config |= {f"metadata.{key}": value for key, value in metadata.items() if key not in of_models}
        config.pop("metadata.config_source", None)
    return {key: ADDRESS.sub("", json.dumps(value, sort_keys=True)) for key, value in config.items()}


def _not_alike(base: Results, aligned: Results, what: str, before, after) -> UserError:
    return UserError(
        f"{what} is {_short(before)} in {base.file} and {_short(after)} in {aligned.file}: the two cannot be compared; run lm-eval "
        "on both models with the same tasks and options"
    )


def _short(value) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def _figure(results: Results, place: tuple[str, str], base: tuple, aligned: tuple) -> Figure:
    task, key = place
    metric, _, name = key.rpartition(",")
    counted = (results.of("n-samples", task) or {}).get("effective")
    higher = (results.of("higher_is_better", task) or {}).get(metric)
    return Figure(
        task=task,
        group=bool(results.of("group_subtasks", task)),
        metric=metric if name == "none" else f"{metric} ({name})",
        questions=counted if isinstance(counted, int) else None,
        base=base,
        aligned=aligned,
        higher_is_better=higher if isinstance(higher, bool) else None,
    )


def _only(ours: dict, theirs: dict) -> list[str]:
    """Tasks that only the first has; of tasks that both have, its metrics."""
    tasks = {task for task, _ in theirs}
    missing = [(task, key) for task, key in ours if (task, key) not in theirs]
    return list(dict.fromkeys(f"{task} {key}" if task in tasks else task for task, key in missing))


def section(kept: Kept, run: Run, words: Words) -> dict:
    """What the report shows of it: a sentence, what is to be known of the comparison, a row a figure, and the two files."""
    directions = [one.direction for one in kept.figures if one.direction]
    counts = {name: directions.count(name) for name in ("better", "same", "worse")}
    models = (words("base"), kept.base), (words("trained"), kept.aligned)
    return {
        "sentence": words("kept/sentence", count=len(directions), **counts)
        if directions
        else words("kept/no interval"),
        "notes": _notes(kept, run, words),
        "rows": [_row(one, words) for one in kept.figures],
        "about": words("kept/about", count=sum(one.interval is not None for one in kept.figures)),
        "files": [(label, one.model, one.file.name, one.sha256) for label, one in models],
    }


def _notes(kept: Kept, run: Run, words: Words) -> list[str]:
    found = []
    if run.trained and kept.aligned.iteration_of(run.folder) != run.trained.number:
        found.append(words("kept/another model", model=kept.aligned.model, iteration=run.trained.number))
    for model, names in zip(("base", "trained"), kept.only, strict=True):
        if names:
            found.append(words("kept/only", model=words(model), names=words("and").join(names)))
    return found + [words("kept/told", place=place, base=base, aligned=aligned) for place, base, aligned in kept.told]


def _row(one: Figure, words: Words) -> dict:
    largest = max((abs(value) for value in (one.base[0], one.aligned[0]) if math.isfinite(value)), default=0.0)
    form = ".4f" if largest < 10 else ",.2f" if largest < 1e6 else ".4g"  # a row's numbers are read against each other

    def measured(value: float, error: float | None) -> str:
        return f"{value:{form}}" if error is None else f"{value:{form}} ± {error:{form}}"

    difference = f"{one.difference:+{form}}" if math.isfinite(one.difference) else "-"
    if one.interval:
        low, high = (f"{end:+{form}}" for end in one.interval)
        difference = words("kept/interval", difference=difference, low=low, high=high)
    good = {True: words("kept/higher"), False: words("kept/lower"), None: ""}
    return {
        "task": words("kept/group", name=one.task) if one.group else one.task,
        "metric": one.metric,
        "questions": "-" if one.questions is None else f"{one.questions:,}",
        "base": measured(*one.base),
        "aligned": measured(*one.aligned),
        "difference": difference,
        "good": good[one.higher_is_better],
        "shown": words(f"kept/{one.direction}") if one.direction else "-",
    }
