"""The pages of runs: how far each is, its numbers and last responses while it goes on, and its report."""

import json
import threading
from collections.abc import Sequence
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse

from sami_jax.data.jsonl import read_appended
from sami_jax.desk.pages import Pages, check_inside, words_of
from sami_jax.errors import UserError
from sami_jax.ground.digests import files_below
from sami_jax.ground.redaction import redacted
from sami_jax.provenance.manifest import AUDIT, MANIFEST, read_statement
from sami_jax.report.data import MAIN_SET, Iteration, gather, iterations_of
from sami_jax.report.texts import Words
from sami_jax.report.write import render

# The files of a run that its pages read.
READ = ("*.json", "*.jsonl", "iteration_*/*.json", "iteration_*/*.jsonl*", "iteration_*/evaluation/*")
ANSWERS = ("iteration_*/responses.jsonl*", "iteration_*/evaluation/*.jsonl*")
EXAMPLES = 3
TAIL = 2**16  # bytes of a file of responses that are looked at
LONGEST = 1000  # characters shown of a text
POINTS = 200  # of a curve
SIGNS = ("following", "well_formed", "mi_share", "mean_tokens", "repetition", "refusal")
# What goes on after each event of the log; the iteration counts from the event's.
AFTER = {
    "evaluated": ("sampling", 1),
    "sampled": ("training", 0),
    "trained": ("measuring", 0),
    "explained": ("finishing", 0),
}
REPORT_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; sandbox"
}


class RunPages:
    """The pages of a folder of runs."""

    def __init__(self, pages: Pages, folder: Path):
        """
        Raises:
          UserError: no folder, or a run's own.
        """
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder of runs; give the one that holds run folders")
        if (folder / MANIFEST).is_file():
            raise UserError(f"{folder}: the folder of one run; give the one that it is in")
        self._pages, self._folder = pages, folder
        self._reports: dict[
            tuple, tuple
        ] = {}  # the last one of each run, with the marks of the files that it was made from
        self._reporting = threading.Lock()  # it hashes models: one at a time

    def names(self) -> list[str]:
        """Of the runs, the one that changed last first."""
        runs = [run for run in self._folder.iterdir() if (run / MANIFEST).is_file() and self._is_inside(run)]
        return [
            run.name
            for run in sorted(runs, key=lambda run: -(run / AUDIT).stat().st_mtime if (run / AUDIT).exists() else 0)
        ]

    def listed(self, request: Request) -> HTMLResponse:
        return self._pages.page(request, "runs.html", runs=[self._line(name) for name in self.names()])

    def one(self, request: Request) -> HTMLResponse:
        run = self._run(request)
        return self._pages.page(request, "run.html", run=run.name, **self._live(run, words_of(request)))

    def live(self, request: Request) -> HTMLResponse:
        """The part of the page that changes while the run goes on."""
        run = self._run(request)
        return self._pages.page(request, "live.html", run=run.name, **self._live(run, words_of(request)))

    def report(self, request: Request) -> HTMLResponse:
        """The report as `sami report` writes it, of the run as it is now."""
        run, words = self._run(request), words_of(request)
        with self._reporting:
            key = (run.name, words.language)
            seen = _marks(run)
            if (known := self._reports.get(key)) and known[0] == seen:
                page = known[1]
            else:
                page = render(gather(run), Words(words.language))
                self._reports[key] = (seen, page)
        return HTMLResponse(page, headers=REPORT_HEADERS)

    def _is_inside(self, run: Path) -> bool:
        return run.resolve().is_relative_to(self._folder.resolve())

    def _run(self, request: Request) -> Path:
        """The folder of the run that is asked for, by its name in the list."""
        name = request.path_params["run"]
        if name not in self.names():
            raise HTTPException(404)
        run = self._folder / name
        check_inside(run, *(file for pattern in READ for file in run.glob(pattern)))
        return run

    def _line(self, name: str) -> dict:
        """What the list shows of a run."""
        run = self._folder / name
        try:
            check_inside(run, run / MANIFEST, run / AUDIT)
            predicate = read_statement(run)["predicate"]
            return {"name": name, "stage": _stage(run, predicate), "fault": ""}
        except UserError as error:
            return {"name": name, "stage": ("", 0), "fault": str(error)}

    def _live(self, run: Path, words: Words) -> dict:
        predicate = read_statement(run)["predicate"]
        iterations = iterations_of(run)
        trained = [one for one in iterations if one.metrics]
        updates = predicate["config"].get("train", {}).get("updates", [])
        return redacted(
            {
                "stage": _stage(run, predicate),
                "status": predicate["status"],
                "rows": [_row(one, updates, words) for one in iterations],
                "curves": _curves(trained[-1], words) if trained else [],
                "canaries": [(one.number, row) for one in iterations for row in one.canaries][-6:],
                "signs": SIGNS,
                "stopped": [(one.number, one.stopped) for one in iterations if one.stopped],
                "examples": _examples(run),
            }
        )


def _marks(run: Path) -> list[tuple]:
    """Of each file of a run what tells that it was changed."""
    files = ((file, file.stat()) for file in files_below([run]))
    return [(str(file), found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino) for file, found in files]


def _stage(run: Path, predicate: dict) -> tuple[str, int]:
    """What a run does, a key of the texts below "stage/", and in which iteration."""
    if predicate["status"] != "running":
        return predicate["status"], 0
    events = read_appended(run / AUDIT)
    last = next((event for event in reversed(events) if event.get("event") in AFTER), None)
    if any(event.get("event") == "not finite" for event in events[-1:]):
        return "not finite", 0
    if last is None:
        return "measuring", 0
    stage, further = AFTER[last["event"]]
    number = last.get("iteration", 0) + further
    planned = len(predicate["config"].get("train", {}).get("updates", [])) or number
    return (stage, number) if number <= planned else ("finishing", 0)


def _row(one: Iteration, updates: Sequence[int], words: Words) -> dict:
    """What an iteration has come to so far."""
    found = one.evaluation.get(MAIN_SET) or next(iter(one.evaluation.values()), {})
    last = one.metrics[-1] if one.metrics else {}
    planned = updates[one.number - 1] if 0 < one.number <= len(updates) else None
    following = found.get("following", one.canaries[-1].get("following") if one.canaries else None)
    return {
        "name": words("iteration", number=one.number) if one.number else words("base"),
        "updates": f"{last.get('step', 0)} / {planned}" if planned else str(last.get("step", 0) or "-"),
        "loss": _number(last.get("loss")),
        "mi": _number(found.get("mi_posterior_bound", last.get("mi_posterior_bound"))),
        "following": "-" if following is None else words.percent(following),
        "win": words.percent(found["win_rate"]) if "win_rate" in found else "-",
    }


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _curves(one: Iteration, words: Words) -> list[dict]:
    """Loss and information of an iteration's updates, as the points of lines in a box of 300 by 80."""
    found = []
    for label, key in (("loss", "loss"), ("training information", "mi_posterior_bound")):
        rows = [(row["step"], row[key]) for row in one.metrics if row.get(key) is not None]
        rows = rows[:: -(-len(rows) // POINTS) or 1]
        if len(rows) > 1:
            low, high, first, last = min(y for _, y in rows), max(y for _, y in rows), rows[0][0], rows[-1][0]
            scale = 70 / ((high - low) or 1.0), 300 / (last - first)
            points = " ".join(f"{scale[1] * (x - first):.1f},{75 - scale[0] * (y - low):.1f}" for x, y in rows)
            title = words(
                "runs/curve", what=words(f"runs/{label}"), number=one.number, low=f"{low:.3f}", high=f"{high:.3f}"
            )
            found.append({"title": title, "points": points, "now": _number(rows[-1][1])})
    return found


def _examples(run: Path) -> list[dict]:
    """The last responses of the file that was written to last."""
    files = [f for pattern in ANSWERS for f in run.glob(pattern) if ".verdicts." not in f.name and f.stat().st_size]
    if not files:
        return []
    with open(max(files, key=lambda file: file.stat().st_mtime), "rb") as stream:
        stream.seek(0, 2)
        stream.seek(max(stream.tell() - TAIL, 0))
        lines = stream.read().split(b"\n")[:-1]
    found = []
    for line in reversed(lines):
        try:
            row = json.loads(line)
        except ValueError:  # the first may have lost its beginning
            continue
        if isinstance(row, dict) and isinstance(row.get("response"), str):
            found.append(
                {key: str(row.get(key) or "").strip()[:LONGEST] for key in ("query", "constitution", "response")}
            )
        if len(found) == EXAMPLES:
            break
    return found
