"""What a run's folder tells, gathered. No model is loaded, and nothing is judged anew."""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

from sami_jax.data.jsonl import parse_measured, read_appended
from sami_jax.data.shape import NUMBER, misfit, read_shaped
from sami_jax.errors import UserError
from sami_jax.principles import constitutions as composing
from sami_jax.provenance.audit import read_audit
from sami_jax.provenance.manifest import AUDIT, read_statement
from sami_jax.provenance.verify import Verified, verify

# Of an update, the share that must reach the weights as they are computed with: below it, rounding has the larger part.
LEAST_EFFECTIVE = 0.5
MAIN_SET = "trained"
# What is relied on in the files of an iteration.
SHARE = (NUMBER, NUMBER)
MEASURED = {
    "responses": int,
    "mean_tokens": NUMBER,
    "mi_posterior_bound": NUMBER,
    "mean_s?": [[NUMBER]],
    "mi_posterior_bound_interval?": SHARE,
    "following?": NUMBER,
    "following_interval?": SHARE,
    "well_formed?": NUMBER,
    "win_rate?": NUMBER,
    "win_rate_interval?": SHARE,
}
SAMPLED = {"response": str, "tokens": int, "sampled_tokens?": int}
ANSWER = SAMPLED | {"id": str | int, "query": str, "constitution": str}
VERDICT = {"followed": {str: bool}}
DROPPED = {"queries": int, "kept": int, "dropped": {str: int}}
STOPPED = {"update": int, "last_good": int, "rules": [str]}
EXPLAINED = {
    "query": str,
    "tokens": [{"text": str, "pmi": NUMBER}],
    "principles": [{"id": str | None, "text": str, "share": NUMBER}],
}


@dataclasses.dataclass(frozen=True)
class Iteration:
    """What one iteration left; 0 is the base model."""

    number: int
    folder: Path
    evaluation: dict[str, dict]  # by evaluation set; empty where the model was not measured
    metrics: Sequence[dict]  # one an update
    canaries: Sequence[dict]  # one a checkpoint, the base's first
    dropped: dict
    stopped: dict  # what stopped.json holds, where canaries stopped it
    explained: Sequence[dict]  # responses with the weight of each word

    @property
    def effective_update(self) -> float | None:
        return effective_update(self.metrics)

    def responses(self, name: str) -> list[dict]:
        """The responses to an evaluation set."""
        return _rows(self.folder / "evaluation" / f"{name}.jsonl", ANSWER)

    def verdicts(self, name: str) -> Iterator[dict]:
        """Of each of these responses, principle id -> whether the stated side is followed; {} where nobody judged."""
        rows = _rows(self.folder / "evaluation" / f"{name}.verdicts.jsonl", VERDICT)
        return itertools.chain((row["followed"] for row in rows), itertools.repeat({}))

    def sampled(self) -> list[dict]:
        """The responses that it was to be trained on."""
        return _rows(self.folder / "responses.jsonl", SAMPLED)


@dataclasses.dataclass(frozen=True)
class Run:
    """A run's folder, read."""

    folder: Path
    predicate: dict  # of the manifest
    subjects: Sequence[dict]  # of the manifest: exported files and their digests
    events: Sequence[dict]  # of the audit log; none where its chain is broken
    verified: Verified | None  # None: something differs from what was recorded
    complaint: str  # what differs
    iterations: Sequence[Iteration]

    @property
    def base(self) -> Iteration | None:
        return next((one for one in self.iterations if one.number == 0 and one.evaluation), None)

    @property
    def trained(self) -> Iteration | None:
        """The last model that was measured."""
        measured = [one for one in self.iterations if one.number and one.evaluation]
        return measured[-1] if measured else None

    @property
    def both(self) -> tuple[Iteration, Iteration]:
        """Base and trained model, where `sets` names any that both were measured on."""
        if not (self.base and self.trained):
            raise ValueError("the run has not measured both models")
        return self.base, self.trained

    @property
    def stopped(self) -> Iteration | None:
        """The iteration that canaries stopped."""
        return next((one for one in self.iterations if one.stopped), None)

    @property
    def sets(self) -> list[str]:
        """Names of the evaluation sets that both models were measured on, the main one first."""
        if not (self.base and self.trained):
            return []
        names = [name for name in self.base.evaluation if name in self.trained.evaluation]
        return sorted(names, key=lambda name: name != MAIN_SET)

    @property
    def constitutions(self) -> int:
        return self.predicate["config"]["constitutions"]["count"]


@dataclasses.dataclass(frozen=True)
class Statement:
    """One line of a constitution, and whether each model's response follows it; None where nobody can tell."""

    text: str
    id: str | None
    base: bool | None
    trained: bool | None


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The two models' responses to one query under one constitution."""

    id: str
    query: str
    base: dict
    trained: dict
    statements: Sequence[Statement]

    @property
    def outcome(self) -> float | None:
        """1 where the trained model follows more of the statements that were judged, 0 where the base does, 0.5 for a tie; None
        where none was judged in both."""
        judged = [one for one in self.statements if one.base is not None and one.trained is not None]
        if not judged:
            return None
        difference = sum(bool(one.trained) - bool(one.base) for one in judged)
        return 0.5 if difference == 0 else float(difference > 0)


def gather(workdir: Path) -> Run:
    """
    Raises:
      UserError: no run's folder, or a file in it that cannot be read.
    """
    statement = read_statement(workdir)
    verified, complaint = None, ""
    try:
        verified = verify(workdir)
    except UserError as error:  # a report on a run that was tampered with must say so, and can be written all the same
        complaint = str(error)
    try:
        events = read_audit(workdir / AUDIT)
    except UserError:
        events = []
    return Run(
        workdir, statement["predicate"], statement["subject"], events, verified, complaint, iterations_of(workdir)
    )


def iterations_of(workdir: Path) -> list[Iteration]:
    """What each iteration has left so far, in order.

    Raises:
      UserError: a file that cannot be read.
    """
    numbers = sorted(int(f.name[10:]) for f in workdir.glob("iteration_*") if f.name[10:].isdecimal())
    return [_iteration(number, workdir / f"iteration_{number}") for number in numbers]


def compare(run: Run, name: str) -> list[Comparison]:
    """Every response to an evaluation set, the base's beside the trained model's, with the judge's verdicts where there are any."""
    wordings = _wordings(run.predicate["principles"])
    found = []
    # Every model of a run answers the same prompts in the same order.
    both = [zip(one.responses(name), one.verdicts(name), strict=False) for one in run.both]
    for (base, before), (trained, after) in zip(*both, strict=False):
        if (base["query"], base["constitution"]) != (trained["query"], trained["constitution"]):
            continue
        texts = composing.statements(base["constitution"])
        ids = [wordings.get(text, (None, None))[0] for text in texts]
        statements = [
            Statement(text, id, before.get(id or ""), after.get(id or "")) for text, id in zip(texts, ids, strict=True)
        ]
        found.append(Comparison(str(base["id"]), base["query"], base, trained, statements))
    return found


def _wordings(principles: Sequence[dict]) -> dict[str, tuple[str, bool]]:
    """Statement -> id of its principle, and whether it is the principle rather than the antithesis; unambiguous ones only."""
    found: dict[str, set] = {}
    for principle in principles:
        for pair in principle["phrasings"]:
            for text, positive in zip(pair, (True, False), strict=True):
                found.setdefault(text, set()).add((principle["id"], positive))
    return {text: next(iter(owners)) for text, owners in found.items() if len(owners) == 1}


def effective_update(metrics: Sequence[dict]) -> float | None:
    """The share of its updates that reached the weights as they are computed with, their mean; None where that was not measured."""
    found = [row["effective_update"] for row in metrics if row.get("effective_update") is not None]
    return sum(found) / len(found) if found else None


def _iteration(number: int, folder: Path) -> Iteration:
    return Iteration(
        number=number,
        folder=folder,
        evaluation=_measured(folder / "evaluation.json"),
        metrics=_rows(folder / "metrics.jsonl", {"step": int}, {str: NUMBER | None}),
        canaries=_rows(folder / "canaries.jsonl", {"update": int}, {str: NUMBER}),
        dropped=_object(folder / "dropped.json", DROPPED),
        stopped=_object(folder / "stopped.json", STOPPED),
        explained=_rows(folder / "explain.jsonl", EXPLAINED),
    )


def _measured(file: Path) -> dict[str, dict]:
    found = _object(file, {str: MEASURED})
    if strange := next((name for name in found if not name.isidentifier()), None):  # it names a file too
        raise UserError(f"{file}: {strange!r:.60} is no evaluation set; restore it")
    return found


def _rows(file: Path, *shapes: dict) -> list[dict]:
    """The objects of a JSONL file; none where there is no file yet."""
    rows = read_appended(file)
    for number, row in enumerate(rows, start=1):
        if wrong := next(filter(None, (misfit(row, shape) for shape in shapes)), None):
            raise UserError(f"{file}:{number}: {wrong}; restore it")
    return rows


def _object(file: Path, shape: dict) -> dict:
    """The object in a JSON file; an empty one where there is no file yet."""
    return read_shaped(file, shape, "restore it", parse_measured) if file.exists() else {}
