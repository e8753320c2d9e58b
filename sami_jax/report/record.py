"""The sections on what the run was made of, as plain data for the template: principles, cost, manifest."""

import datetime
import itertools
import shlex
from collections.abc import Sequence

from sami_jax.provenance.manifest import leaves
from sami_jax.report.data import Run
from sami_jax.report.results import shown
from sami_jax.report.texts import Words

MOST_PRINCIPLES = 200  # shown; run.json holds them all
MOST_ROWS = 400  # of the configuration and of the exported files
# Events of the audit log that end a stage, and the column of the cost table each belongs to.
STAGES = {"sampled": "sampling", "trained": "training", "evaluated": "measuring"}


def principles(run: Run, words: Words) -> dict:
    """Each principle with its wordings and who approved it."""
    records = run.predicate["principles"]
    return {
        "rows": [
            {
                "name": f"{record['id']}@{record['version']}",
                "role": words.term("role", record["role"]),
                "held_out": record["role"] != "trained",
                "status": words.term("status", record["status"]),
                "approved": record["status"] == "approved",
                "approvals": _approvals(record.get("approved_by", ()), words),
                "hash": record["hash"],
                "phrasings": [[shown(text, words) for text in pair] for pair in record["phrasings"]],
            }
            for record in records[:MOST_PRINCIPLES]
        ],
        "more": max(0, len(records) - MOST_PRINCIPLES),
    }


def _approvals(names: Sequence[str], words: Words) -> str:
    if not names:
        return words("principles/nobody")
    return words("principles/approved by", names=words("and").join(names))


def as_of(run: Run) -> str:
    """The time of the log's last entry: the same whenever the report is written."""
    return f"{_time(run.events[-1]):%Y-%m-%d %H:%M} UTC" if run.events else "-"


def cost(run: Run, words: Words) -> dict:
    """Device, seconds of each stage by the log, tokens."""
    seconds = _stage_seconds(run.events)
    devices = run.predicate["devices"]
    found = {
        "device": f"{devices['kind']} x {devices['count']}",
        "total": "-",
        "rows": [],
        "notes": [],
    }
    if run.events:
        found["total"] = words.duration((_time(run.events[-1]) - _time(run.events[0])).total_seconds())
    if again := sum(event["event"] == "continued" for event in run.events):
        found["notes"].append(words("cost/continued", count=again))
    for one in run.iterations:
        times = {column: seconds.get((stage, one.number)) for stage, column in STAGES.items()}
        answered = [row for name in one.evaluation for row in one.responses(name)]
        found["rows"].append(
            {"name": words("iteration", number=one.number) if one.number else words("base")}
            | {column: "-" if spent is None else words.duration(spent) for column, spent in times.items()}
            | {
                "kept": words("cost/of", kept=f"{one.dropped['kept']:,}", count=f"{one.dropped['queries']:,}")
                if one.dropped
                else "-",
                "updates": _count(len(one.metrics)),
                "sampled": _tokens(one.sampled()),
                "answered": _tokens(answered),
            }
        )
        if reasons := one.dropped.get("dropped"):
            listed = words("and").join(f"{reason} {count:,}" for reason, count in reasons.items())
            found["notes"].append(words("cost/dropped", number=one.number, reasons=listed))
    return found


def _stage_seconds(events: Sequence[dict]) -> dict[tuple[str, int], float]:
    """(event, iteration) -> seconds since the log's entry before, which ended the stage before or began the process."""
    return {
        (event["event"], event["iteration"]): (_time(event) - _time(before)).total_seconds()
        for before, event in itertools.pairwise(events)
        if event["event"] in STAGES
    }


def _time(event: dict) -> datetime.datetime:
    return datetime.datetime.fromisoformat(event["time"])


def _tokens(rows: Sequence[dict]) -> str:
    """What was computed: thinking aloud costs as much as a response."""
    return _count(sum(row.get("sampled_tokens", row["tokens"]) for row in rows))


def _count(number: int) -> str:
    return f"{number:,}" if number else "-"


def manifest(run: Run, words: Words) -> dict:
    """What the manifest says, and how to check it."""
    predicate = run.predicate
    review = predicate["review"]
    shares = [
        words("review/share", share=words.percent(review[outcome]), outcome=words(f"review/{outcome}"))
        for outcome in ("accepted", "edited", "rejected", "open")
        if review.get(outcome)
    ]
    weights = predicate["base_model"]["files"]
    facts = [
        (words("record/base"), predicate["base_model"]["path"], _one_digest(weights)),
        (words("record/code"), f"sami_jax {predicate['code']['version']}", predicate["code"]["sha256"]),
        *((words("record/input", name=k), v["path"], v["sha256"]) for k, v in predicate["inputs"].items()),
        (words("record/plan"), " · ".join(words.term("set", name) for name in run.sets), _plan(predicate)),
        (words("record/review"), words("and").join(shares), ""),
        (words("record/seed"), str(predicate["seed"]), ""),
        (words("record/versions"), ", ".join(f"{k} {v}" for k, v in predicate["versions"].items()), ""),
    ]
    shares = {one.number: one.effective_update for one in run.iterations}
    reached = [
        f"{words('iteration', number=n)}: {words.percent(share)}" for n, share in shares.items() if share is not None
    ]
    if reached:
        facts.append((words("record/effective"), " · ".join(reached), ""))
    files = [(subject["name"], subject["digest"]["sha256"]) for subject in run.subjects]
    config = [(path, shown(str(value), words)) for path, value in leaves(predicate["config"])]
    checked = ""
    if run.verified:
        counts = {"files": run.verified.files, "events": run.verified.events, "principles": run.verified.principles}
        checked = words("record/verified", **counts)
    return {
        "command": f"sami verify {shlex.quote(str(run.folder))}",
        "checked": checked,
        "head": run.events[-1]["hash"] if run.events else "",
        "facts": facts,
        "files": files[:MOST_ROWS],
        "more_files": max(0, len(files) - MOST_ROWS),
        "config": config[:MOST_ROWS],
        "more_config": max(0, len(config) - MOST_ROWS),
    }


def _one_digest(files: dict[str, str]) -> str:
    """Of the weights, where they are one file."""
    weights = [digest for name, digest in files.items() if name.endswith(".safetensors")]
    return weights[0] if len(weights) == 1 else ""


def _plan(predicate: dict) -> str:
    return predicate.get("evaluation_plan", {}).get("sha256", "")
