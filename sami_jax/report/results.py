"""The sections on results, as plain data for the template: verdict, curves, matrices, slices, examples."""

import dataclasses
import itertools
import math
from collections.abc import Sequence

import numpy as np

from sami_jax.evaluation.statistics import length_balanced, mean_interval
from sami_jax.ground.redaction import redact
from sami_jax.report.data import LEAST_EFFECTIVE, MAIN_SET, Comparison, Run
from sami_jax.report.figures import MARKERS, Curve, curves
from sami_jax.report.texts import Words

EXAMPLES = {MAIN_SET: 5}  # of an evaluation set
EXAMPLES_OTHERWISE = 2
LOSSES = 3
EXPLAINED = 6
LONGEST = 4000  # characters shown of a text; the run's files hold it whole
MOST_WORDS = 600  # tokens coloured in a response
FAINTEST = 0.05  # share of the strongest heat below which a word is left as it is
LARGEST_MATRIX = 16


def verdict(run: Run, words: Words, slices: Sequence[dict]) -> dict:
    """One sentence, its footing, what is wrong with the run, and the key figures."""
    found = {"sentence": words("verdict/nothing"), "footing": [], "warnings": _warnings(run, words), "facts": []}
    if not run.sets:
        return found
    before, after = (one.evaluation[run.sets[0]] for one in run.both)
    cap = f"{math.log(run.constitutions):.3f}"
    if "win_rate" in after:
        low, high = after["win_rate_interval"]
        found["sentence"] = words(
            f"verdict/{_direction(low, high)}",
            win=words.percent(after["win_rate"]),
            low=words.percent(low),
            high=words.percent(high),
            before=words.percent(before["following"]),
            after=words.percent(after["following"]),
        )
    else:
        nats = {"before": f"{before['mi_posterior_bound']:.3f}", "after": f"{after['mi_posterior_bound']:.3f}"}
        found["sentence"] = words("verdict/unjudged", **nats, cap=cap)
    found["footing"] = [words("measured on", iteration=run.both[1].number, responses=after["responses"])]
    if slices:
        counts = {name: sum(row["direction"] == name for row in slices) for name in ("better", "same", "worse")}
        found["footing"].append(words("principles improved", **counts))
    found["footing"] += [words("judge", name=run.predicate["config"]["evaluation"]["judge"]), words("limits")]
    found["facts"] = _facts(words, before, after, cap)
    return found


def _direction(low: float, high: float) -> str:
    return "better" if low > 0.5 else "worse" if high < 0.5 else "same"


def _warnings(run: Run, words: Words) -> list[str]:
    found = []
    if run.complaint:
        found.append(words("warning/differs", complaint=run.complaint))
    if run.stopped:
        stop = run.stopped.stopped
        key = "warning/stopped" if stop["last_good"] else "warning/stopped, none kept"
        reason = "; ".join(stop["rules"])
        about = {"iteration": run.stopped.number, "update": stop["update"], "kept": stop["last_good"]}
        found.append(words(key, reason=reason, **about))
    for one in run.iterations:
        if (share := one.effective_update) is not None and share < LEAST_EFFECTIVE:
            found.append(words("warning/rounded away", iteration=one.number, share=words.percent(share)))
    if names := run.predicate["review"]["unapproved"]:
        found.append(words("warning/unapproved", names=words("and").join(names)))
    if run.predicate["status"] == "running":
        found.append(words("warning/running"))
    return found


def _facts(words: Words, before: dict, after: dict, cap: str) -> list[dict]:
    facts = []
    if "win_rate" in after:
        low, high = (words.percent(end) for end in after["win_rate_interval"])
        interval = words("fact/interval", low=low, high=high)
        facts.append({"label": words("fact/win"), "value": words.percent(after["win_rate"]), "detail": interval})
    for label, key in (("following", "following"), ("whole", "well_formed")):
        if key in after:
            values = {"value": words.percent(after[key]), "before": words.percent(before[key])}
            facts.append(_fact(words, label, **values))
    key = "mi_posterior_bound"
    facts.append(_fact(words, "information", value=f"{after[key]:.3f}", before=f"{before[key]:.3f}", cap=cap))
    key = "mean_tokens"
    facts.append(_fact(words, "length", value=f"{after[key]:.1f}", before=f"{before[key]:.1f}"))
    return facts


def _fact(words: Words, label: str, value: str, before: str, cap: str | None = None) -> dict:
    detail = words("fact/cap", before=before, cap=cap) if cap else words("fact/before", before=before)
    return {"label": words(f"fact/{label}"), "value": value, "detail": detail}


def figures(run: Run, words: Words) -> list[dict]:
    """Name, title, legend and SVG of each curve that the run has numbers for."""
    cap, count = math.log(run.constitutions), run.constitutions
    over_sets = [
        ("following", "following", {"percent": True, "limits": (0, 1.03)}),
        ("win", "win_rate", {"percent": True, "limits": (0, 1.03), "reference": 0.5}),
        ("information", "mi_posterior_bound", {"reference": cap}),
        ("length", "mean_tokens", {}),
    ]
    over_updates = [
        ("loss", "loss", {"from_zero": False}),
        ("training information", "mi_posterior_bound", {"reference": cap}),
    ]
    signs = [("signs", ("following", "well_formed", "mi_share")), ("alarms", ("repetition", "refusal"))]
    made = [_over_sets(run, words, label, key, options) for label, key, options in over_sets]
    made += [_over_updates(run, words, label, key, options) for label, key, options in over_updates]
    made += [_over_checkpoints(run, words, label, keys) for label, keys in signs]
    return [
        {"name": m["label"].replace(" ", "_"), "title": (title := words(f"figure/{m['label']}", count=count))}
        | {"legend": m["legend"]}
        | {"svg": curves(f"figure{number}", title, m["lines"], **m["options"])}
        for number, m in enumerate(made)
        if m["lines"]
    ]


def _over_sets(run: Run, words: Words, label: str, key: str, options: dict) -> dict:
    """A line for each evaluation set, a point for each model."""
    names = run.sets or list(run.base.evaluation if run.base else ())
    lines, legend = [], []
    for series, name in enumerate(names):
        rows = [(one.number, one.evaluation[name]) for one in run.iterations if key in one.evaluation.get(name, {})]
        if rows:
            interval = f"{key}_interval"
            ends = [row[interval] for _, row in rows] if all(interval in row for _, row in rows) else ()
            lines.append(Curve([number for number, _ in rows], [row[key] for _, row in rows], series, ends))
            legend.append(_entry(words.term("set", name), series))
    return {
        "label": label,
        "lines": lines,
        "legend": legend,
        "options": {"x_label": words("axis/iteration"), **options},
    }


def _over_updates(run: Run, words: Words, label: str, key: str, options: dict) -> dict:
    """A line for each iteration, a point for each update."""
    lines, legend = [], []
    for one in run.iterations:
        rows = [row for row in one.metrics if row.get(key) is not None]
        if rows:
            lines.append(Curve([row["step"] for row in rows], [row[key] for row in rows], one.number - 1, marked=False))
            legend.append(_entry(words("iteration", number=one.number), one.number - 1, "━"))
    return {"label": label, "lines": lines, "legend": legend, "options": {"x_label": words("axis/update"), **options}}


def _over_checkpoints(run: Run, words: Words, label: str, keys: Sequence[str]) -> dict:
    """A line for each of the canaries' signs, interrupted where an iteration begins anew with the base model."""
    looks = [(one, [row["update"] for row in one.canaries]) for one in run.iterations if one.canaries]
    offsets = list(itertools.accumulate((max(updates) for _, updates in looks), initial=0))
    lines, stop = [], None
    for (one, updates), offset in zip(looks, offsets, strict=False):
        places = [offset + update for update in updates]
        for series, key in enumerate(keys):
            if key in one.canaries[0]:
                lines.append(Curve(places, [row[key] for row in one.canaries], series))
        stop = offset + one.stopped["update"] if one.stopped else stop
    present = sorted({line.series for line in lines})
    legend = [_entry(words(f"sign/{keys[series]}"), series) for series in present]
    if stop is not None:
        legend.append({"label": words("figure/stop"), "series": "stop", "glyph": "┆"})
    options = {"x_label": words("axis/update"), "percent": True, "limits": (-0.03, 1.03), "bounds": offsets[1:-1]}
    return {"label": label, "lines": lines, "legend": legend, "options": options | {"stop": stop}}


def _entry(label: str, series: int, glyph: str | None = None) -> dict:
    return {"label": label, "series": series % len(MARKERS), "glyph": glyph or "●■▲◆▼"[series % len(MARKERS)]}


def matrices(run: Run, words: Words) -> list[dict]:
    """The mean S of base and trained model, each cell less its column's diagonal, both on one scale."""
    models = []
    if run.sets:
        both = zip(("base", "trained"), run.both, strict=True)
        models = [(words(label), one.evaluation[run.sets[0]]) for label, one in both]
    found = [(label, np.array(row["mean_s"])) for label, row in models if "mean_s" in row]
    found = [(label, s - np.diag(s)) for label, s in found if len(s) <= LARGEST_MATRIX]
    widest = max((float(np.abs(relative).max()) for _, relative in found), default=0.0) or 1.0
    return [
        {
            "title": label,
            "rows": [
                [
                    {"value": f"{value:+.3f}" if value else "0", "shade": f"{1 - abs(value) / widest:.3f}"}
                    for value in row
                ]
                for row in relative.tolist()
            ],
        }
        for label, relative in found
    ]


def set_slices(run: Run, words: Words, compared: dict[str, list[Comparison]]) -> list[dict]:
    """One row an evaluation set."""
    rows = []
    for name in run.sets:
        before, after = (one.evaluation[name] for one in run.both)
        if "win_rate" in after:
            outcomes = [(one.outcome, one.trained["tokens"] - one.base["tokens"]) for one in compared[name]]
            judged = np.array([pair for pair in outcomes if pair[0] is not None]).reshape(-1, 2)
            balanced = length_balanced(judged[:, 0], judged[:, 1]) if len(judged) else None
            win = (after["win_rate"], *after["win_rate_interval"])
            row = _slice(
                words, words.term("set", name), after["responses"], before["following"], after["following"], win
            )
            rows.append(row | {"balanced": "-" if balanced is None else words.percent(balanced)})
    return rows


def principle_slices(run: Run, words: Words, compared: dict[str, list[Comparison]]) -> list[dict]:
    """One row a principle that was judged: where it was trained, on the main set; where it was held out, on theirs."""
    verdicts: dict[str, list] = {}
    for name in ("trained", "held_out_principles"):
        for one in compared.get(name, ()):
            for statement in one.statements:
                if statement.id is not None and statement.base is not None:
                    verdicts.setdefault(statement.id, []).append((one.id, statement.base, statement.trained))
    rows = []
    for principle in run.predicate["principles"]:
        if found := verdicts.get(principle["id"]):
            queries, before, after = zip(*found, strict=True)
            outcomes = [0.5 + 0.5 * (ours - theirs) for theirs, ours in zip(before, after, strict=True)]
            win = mean_interval(outcomes, queries)
            row = _slice(words, principle["id"], len(found), float(np.mean(before)), float(np.mean(after)), win)
            rows.append(row | {"role": words.term("role", principle["role"])})
    return rows


def _slice(words: Words, name: str, responses: int, before: float, after: float, win: Sequence[float]) -> dict:
    mean, low, high = win
    return {
        "name": name,
        "responses": responses,
        "before": words.percent(before),
        "after": words.percent(after),
        "win": f"{words.percent(mean)} ({100 * low:.0f}-{100 * high:.0f})",
        "bar": {"mean": f"{100 * mean:.2f}", "low": f"{100 * low:.2f}", "high": f"{100 * high:.2f}"},
        "direction": _direction(low, high),
    }


def examples(run: Run, words: Words, compared: dict[str, list[Comparison]]) -> dict:
    """Responses side by side, by evaluation set, and comparisons that were lost."""
    groups = [
        {
            "title": words.term("set", name),
            "rows": [_example(one, words) for one in _spread(rows, EXAMPLES.get(name, EXAMPLES_OTHERWISE))],
        }
        for name, rows in compared.items()
        if rows
    ]
    main = compared[run.sets[0]] if run.sets else []
    judged = [one for one in main if one.outcome is not None]
    lost = [one for one in judged if one.outcome == 0]
    return {
        "groups": groups,
        "count": len(judged),
        "lost": len(lost),
        "losses": [_example(one, words) for one in _spread(lost, LOSSES)],
    }


def _spread(rows: Sequence, count: int) -> Sequence:
    """At even distances, so that nobody has picked them."""
    return rows[:: max(1, len(rows) // count)][:count]


def _example(one: Comparison, words: Words) -> dict:
    return {
        "query": shown(one.query, words),
        "statements": [dataclasses.asdict(s) | {"text": shown(s.text, words)} for s in one.statements],
        "judged": one.outcome is not None,
        "responses": [
            {"label": words(name), "model": name, "text": shown(row["response"].strip(), words)}
            for name, row in (("base", one.base), ("trained", one.trained))
        ],
    }


def shown(text: str, words: Words) -> str:
    """A text of at most LONGEST characters, with a note of what was left out. Secrets go first: a cut could halve one."""
    text = redact(text)
    return text if len(text) <= LONGEST else text[:LONGEST] + words("cut", count=len(text) - LONGEST)


def explained(run: Run, words: Words) -> dict:
    """Responses of the last model whose words are weighed, each word with its heat."""
    rows = _spread(run.trained.explained if run.trained else (), EXPLAINED)
    weighed = [_words(row["tokens"]) for row in rows]
    widest = max((abs(value) for texts in weighed for _, value in texts), default=0.0) or 1.0
    most = max((abs(p["share"]) for row in rows for p in row["principles"]), default=0.0) or 1.0
    return {
        "widest": f"{widest:.2f}",
        "rows": [
            {
                "query": shown(row["query"], words),
                "words": [_heated(text, value, widest) for text, value in texts],
                "principles": [
                    {"text": shown(p["text"], words), "id": p["id"] or "", "share": f"{p['share']:+.2f}"}
                    | {"width": f"{max(0.0, 100 * p['share'] / most):.1f}"}
                    for p in row["principles"]
                ],
            }
            for row, texts in zip(rows, weighed, strict=True)
        ],
    }


def _heated(text: str, value: float, widest: float) -> dict:
    """A word as the page colours it, the white space before it apart."""
    heat = value / widest
    kind = "" if abs(heat) < FAINTEST else "up" if heat > 0 else "down"
    bare = text.lstrip()
    return {
        "space": text[: len(text) - len(bare)],
        "text": bare,
        "pmi": f"{value:+.2f}",
        "kind": kind,
        "heat": f"{abs(heat):.3f}",
    }


def _words(tokens: Sequence[dict]) -> list[tuple[str, float]]:
    """Tokens joined to words that begin with white space, their log-ratios summed.

    A secret may lie across words: then the whole response is one word, from which it can be taken.
    """
    found: list[tuple[str, float]] = []
    for token in tokens[:MOST_WORDS]:
        text, value = token["text"], token["pmi"]
        if found and not text[:1].isspace():
            before, earlier = found.pop()
            text, value = before + text, earlier + value
        found.append((text, value))
    whole = "".join(text for text, _ in found)
    return found if redact(whole) == whole else [(redact(whole), 0.0)]
