"""The watch as one HTML page: curves with limits, alarms with examples, slices, the principles least followed."""

import math
from collections.abc import Sequence
from pathlib import Path

from sami_jax.data.jsonl import replace_text
from sami_jax.ground.redaction import redacted
from sami_jax.principles.principle import Principle
from sami_jax.report.figures import MARKERS, Curve, curves
from sami_jax.report.write import page
from sami_jax.watch.alarm import MEASURED, Alarm, stamp, value_of
from sami_jax.watch.control import FALSE_ALARMS
from sami_jax.watch.tally import ALL, DIRECTIONS, PRINCIPLE, Cell, Tally
from sami_jax.watch.texts import WatchWords
from sami_jax.watch.watching import Watch

NAMES = {"en": "watch.html", "ja": "watch.ja.html"}
LEAST_FOLLOWED = 5
MOST_MARKED = 60  # windows with a marker each


def write_page(folder: Path, watch: Watch, principles: Sequence[Principle], language: str, numbers_only: bool) -> Path:
    """Writes the page into the folder of the watch, and returns its file."""
    words = WatchWords(language)
    file = folder / NAMES[language]
    shown = {
        "name": folder.resolve().name,
        "as_of": stamp(max((seen.begins or 0.0 for seen in watch.seen), default=0.0) or None),
        **_verdict(watch, words, numbers_only),
        "alarms": [_alarm(alarm, words) for alarm in reversed(watch.shown)],
        "slices": _slices(watch, words),
        "columns": [words(f"measure/{measure}") for measure in _measures(watch)],
        "principles": _principles(watch, words, principles),
    }
    figures = [figure for measure in _measures(watch) if (figure := _figure(watch, words, measure))]
    text = page("watch.html", figures, [Path(__file__).parent], t=words, **redacted(shown))
    replace_text(file, text)
    return file


def _measures(watch: Watch) -> list[str]:
    """Those that anything is known of, following first."""
    names = sorted(DIRECTIONS, key=lambda name: name != "following")
    return [name for name in names if any(Cell(name, ALL) in seen.tallies for seen in watch.seen)]


def _verdict(watch: Watch, words: WatchWords, numbers_only: bool) -> dict:
    first = watch.control.wanted
    if not watch.control.ready:
        state, sentence = "learning", words("verdict/learning", windows=watch.windows, first=first)
    elif watch.alarmed:
        clearest = _alarm(min(watch.shown, key=lambda alarm: alarm.p), words)["title"]
        about = {"windows": watch.windows - first, "first": first, "alarms": watch.alarmed}
        state, sentence = "alarm", words("verdict/alarm", clearest=clearest, **about)
    else:
        state = "quiet"
        sentence = words("verdict/quiet", windows=watch.windows - first, first=first, answers=watch.answers)
    footing = [words("method", tests=watch.control.tests)] if watch.control.ready else []
    if numbers_only:
        footing.append(words("numbers only"))
    if watch.passed.counts:
        footing.append(words("passed over", told=watch.passed.told()))
    if watch.noted:
        footing.append(words("noted", told=", ".join(f"{count}: {reason}" for reason, count in watch.noted.items())))
    return {"state": state, "sentence": sentence, "footing": footing}


def _figure(watch: Watch, words: WatchWords, measure: str) -> dict | None:
    """The curve of a measure of all answers."""
    cell = Cell(measure, ALL)
    points = [(seen.number, seen.tallies[cell]) for seen in watch.seen if seen.tallies.get(cell, Tally()).count]
    if not points:
        return None
    reference = watch.control.references.get(cell)
    marked = len(points) <= MOST_MARKED
    numbers, values = [number for number, _ in points], [value_of(cell, tally.mean) for _, tally in points]
    lines = [Curve(numbers, values, 0, marked=marked)]
    legend = [{"label": words("legend/value"), "series": "0", "glyph": "●" if marked else "━"}]
    later = [(number, tally) for number, tally in points if number > watch.control.wanted]
    if reference and later:
        chance = FALSE_ALARMS / watch.control.tests
        limits = [reference.limits(tally.count, chance) for _, tally in later]
        for side, harmless in ((0, 1), (1, -1)):
            if cell.direction != harmless:
                lines.append(
                    Curve(
                        [number for number, _ in later],
                        [_end(cell, pair[side]) for pair in limits],
                        1,
                        marked=False,
                        dashed=True,
                    )
                )
        legend.append({"label": words("legend/limits"), "series": "1", "glyph": "╌"})
    measured = watch.measured.get(cell)
    alarmed = [alarm.window for alarm in watch.shown if alarm.measure == measure and not alarm.slice]
    title = words(f"measure/{measure}")
    svg = curves(
        f"watch{len(MARKERS)}{measure}",
        title,
        lines,
        x_label=words("axis/window"),
        percent=measure != "length",
        reference=value_of(cell, measured.mean) if measured else None,
        bounds=[watch.control.wanted + 0.5] if later else (),
        stop=alarmed[-1] if alarmed else None,
    )
    return {"title": title, "legend": legend, "svg": svg}


def _end(cell: Cell, limit: float) -> float:
    return math.exp(limit) - 1 if cell.measure == "length" else limit


def _alarm(alarm: Alarm, words: WatchWords) -> dict:
    cell = alarm.cell
    direction = "measured" if alarm.against == MEASURED else "rose" if alarm.value > alarm.before else "fell"
    about = {"before": words.value(cell, alarm.before), "value": words.value(cell, alarm.value)}
    title = words(f"alarms/{direction}", measure=words.measure(cell), slice=alarm.slice or words("slices/all"), **about)
    since = f"{alarm.since} ({alarm.since_time})" if alarm.since_time else str(alarm.since)
    return {
        "title": title,
        "since": words("alarms/since", window=alarm.window, since=since),
        "examples": [
            {"place": " · ".join(filter(None, (one.place, one.time))), "query": one.query, "response": one.response}
            for one in alarm.examples
        ],
    }


def _slices(watch: Watch, words: WatchWords) -> list[dict]:
    """One row a slice; each value with the reference's."""
    if not watch.control.ready:
        return []
    rows = []
    for slice in (ALL, *(watch.control.slices or ())):
        values = []
        for measure in _measures(watch):
            cell = Cell(measure, slice)
            now, reference = watch.control.recent(cell), watch.control.references.get(cell)
            before = words.value(cell, value_of(cell, reference.tally.mean)) if reference else "-"
            shown = words.value(cell, value_of(cell, now.mean)) if now.count else "-"
            values.append({"now": shown, "before": before, "alarm": cell in watch.control.standing})
        answers = watch.control.recent(Cell("length", slice)).count
        rows.append({"name": slice or words("slices/all"), "answers": answers, "values": values})
    return rows


def _principles(watch: Watch, words: WatchWords, principles: Sequence[Principle]) -> list[dict]:
    """Those that are followed least, with their wordings."""
    rows = []
    for principle in principles:
        cell = Cell(PRINCIPLE + principle.id, ALL)
        now, reference = watch.control.recent(cell), watch.control.references.get(cell)
        if now.count and reference:
            measured = watch.measured.get(cell)
            rows.append(
                (
                    now.mean,
                    {
                        "id": principle.id,
                        "now": words.percent(now.mean),
                        "before": words.percent(reference.tally.mean),
                        "measured": words.percent(measured.mean) if measured else "-",
                        "phrasings": principle.phrasings,
                        "alarm": cell in watch.control.standing,
                    },
                )
            )
    return [row for _, row in sorted(rows, key=lambda pair: pair[0])[:LEAST_FOLLOWED]]
