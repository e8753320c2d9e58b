"""Which principles are watched, and who judges: as the run has it, or as the user says."""

import dataclasses
from pathlib import Path

from sami_jax.config.settings import REFUSALS, defaults
from sami_jax.errors import UserError
from sami_jax.evaluation.judge import Judge
from sami_jax.evaluation.judges import make_judge
from sami_jax.ground.paths import path_of
from sami_jax.principles.files import read_principles
from sami_jax.principles.principle import Principle, current
from sami_jax.report.data import Run


@dataclasses.dataclass(frozen=True)
class Judged:
    """Who says what is followed; fields as `sami watch` has them."""

    judge: str | None  # None: the run's, where it is exact
    judged: int  # answers of a window, of a judge that has to be asked
    endpoint: str | None
    api: str
    key_variable: str
    timeout: float
    concurrency: int
    batch_size: int
    max_tokens: int | None


@dataclasses.dataclass(frozen=True)
class Settings:
    principles: tuple[Principle, ...]  # one version of each id
    judge: Judge | None
    name: str  # of the judge
    refusals: tuple[str, ...]


def settings(run: Run | None, folder: Path | None, wanted: Judged, cache: Path) -> Settings:
    """
    Args:
      folder: of principle files; None: the run's, where it still is there.
      cache: folder in which a judge that is asked keeps its replies.
    Raises:
      UserError: principles that cannot be read, or a judge that cannot judge them.
    """
    told = run.predicate["config"] if run else {}
    principles = _principles(run, folder)
    name = wanted.judge or _own(told, principles)
    if name != "none" and not principles:
        raise UserError(f"--judge {name}: there are no principles to judge by; give --principles, or --run")
    config = defaults()
    config.evaluation.update(
        {
            "judge": name,
            "judged": wanted.judged,
            "endpoint": wanted.endpoint or "",
            "api": wanted.api,
            "key_variable": wanted.key_variable,
            "timeout": wanted.timeout,
            "concurrency": wanted.concurrency,
            "batch_size": wanted.batch_size,
            "judge_tokens": wanted.max_tokens or config.evaluation.judge_tokens,
        }
    )
    if folder:
        config.principles.path = str(folder)
    refusals = tuple(told.get("canaries", {}).get("refusals", ())) or REFUSALS
    return Settings(principles, make_judge(config, principles, cache), name, refusals)


def _own(told: dict, principles: tuple[Principle, ...]) -> str:
    """The run's judge, where it takes nobody's time; checks where the principles have any; else none."""
    name = told.get("evaluation", {}).get("judge", "checks")
    if name == "miniature":
        return name
    return "checks" if any(principle.check for principle in principles) else "none"


def _principles(run: Run | None, folder: Path | None) -> tuple[Principle, ...]:
    if folder:
        return current(read_principles(folder))
    if run is None:
        return ()
    place = run.predicate["config"].get("principles", {}).get("path")
    if place and path_of(place).is_dir():
        used = {one["id"]: one["version"] for one in run.predicate["principles"]}
        found = tuple(p for p in read_principles(path_of(place)) if used.get(p.id) == p.version)
        if found:
            return found
    return tuple(
        Principle(one["id"], tuple((first, other) for first, other in one["phrasings"]), one["version"])
        for one in run.predicate["principles"]
    )
