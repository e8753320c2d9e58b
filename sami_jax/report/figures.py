"""Curves as SVG: small, the same bytes for the same numbers, in the colours and the font of the page around them.

Colours are drawn as placeholders and replaced by the page's CSS variables, so that a curve is readable on light and on dark.
"""

import dataclasses
import html
import io
import logging
import re
import statistics
import warnings
from collections.abc import Sequence
from pathlib import Path

SIZE = (5.0, 2.6)  # inches, of a figure's own coordinates; the page scales it
MARGIN, LINE = 14, 17  # of a picture: points around it, and from line to line of its text
MOST_POINTS = 240  # of a curve; runs of more are averaged, for no eye sees more and every point takes room
MARKERS = "os^Dv"  # of the page's colours --c1 to --c5, for those who do not see the difference
_INK, _RULE, _WARN = "#0000f0", "#0000f1", "#0000f2"
_VARIABLES = {_INK: "--muted", _RULE: "--rule", _WARN: "--bad"} | {
    f"#0000a{n}": f"--c{n + 1}" for n in range(len(MARKERS))
}


@dataclasses.dataclass(frozen=True)
class Curve:
    """One line. Points without a value are left out by the caller."""

    x: Sequence[float]
    y: Sequence[float]
    series: int  # which of the page's colours
    intervals: Sequence[tuple[float, float]] = ()  # one a point, or none
    marked: bool = True  # whether each point has a marker
    dashed: bool = False  # and thin, as limits are


def curves(
    name: str,
    title: str,
    lines: Sequence[Curve],
    *,
    x_label: str,
    limits: tuple[float, float] | None = None,
    from_zero: bool = True,
    percent: bool = False,
    reference: float | None = None,
    bounds: Sequence[float] = (),
    stop: float | None = None,
) -> str:
    """An <svg> element.

    Args:
      name: unlike the page's other figures'.
      title: for those who cannot see it.
      limits: of the y axis; None: as the values have it.
      from_zero: whether it then begins at 0 where no value is below.
      percent: values are shares.
      reference: a value to compare with, drawn dashed.
      bounds: places on the x axis where something begins anew.
      stop: the place on the x axis where canaries fired.
    """
    # Nobody who asks for no report waits for matplotlib.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # where it keeps its fonts is no news
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own font lacks Japanese; the page's has it
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "sami_jax", "text.parse_math": False})
        figure = Figure(figsize=SIZE, layout="constrained")
        axes = figure.add_subplot()
        for line in lines:
            _draw(axes, _thinned(line))
        if reference is not None:
            axes.axhline(reference, color=_INK, linestyle=(0, (4, 3)), linewidth=1)
        for place in bounds:
            axes.axvline(place, color=_RULE, linewidth=1)
        if stop is not None:
            axes.axvline(stop, color=_WARN, linestyle=(0, (2, 2)), linewidth=1.4)
        axes.set_xlabel(x_label, color=_INK, fontsize=9)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
        axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
        if limits:
            axes.set_ylim(limits)
        elif from_zero and all(value >= 0 for line in lines for value in line.y):
            axes.set_ylim(bottom=0)
        if percent:
            low, high = axes.get_ylim()
            axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0 if high - low > 0.05 else 1))
        axes.tick_params(colors=_INK, labelsize=9, length=0, pad=5)
        axes.grid(axis="y", color=_RULE, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.spines["bottom"].set_color(_RULE)
        stream = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))  # a date would differ from time to time
        figure.savefig(stream, format="svg", transparent=True, metadata=nothing)
    return _embedded(stream.getvalue(), name, title)


def picture(title: str, legend: Sequence[dict], svg: str) -> str:
    """An SVG file of a curve as the page has it, with its title, legend and colours, for a place without the page around it.

    Args:
      legend: entries of "label", "series" and "glyph", a line each.
      svg: by `curves`.
    """
    colours = Path(__file__).with_name("colours.css").read_text(encoding="utf-8")
    width, height = (round(72 * inches) for inches in SIZE)
    top = MARGIN + LINE * (1 + len(legend)) + LINE // 2
    classes = [f".s{n} {{ fill: var(--c{n + 1}) }}" for n in range(len(MARKERS))] + [".sstop { fill: var(--bad) }"]
    texts = [
        f'<text x="{MARGIN}" y="{MARGIN + 12}" font-size="13" font-weight="600" fill="var(--ink)">{html.escape(title)}</text>'
    ]
    for place, entry in enumerate(legend, start=1):
        glyph = f'<tspan class="s{entry["series"]}">{entry["glyph"]}</tspan>'
        label = html.escape(entry["label"])
        texts.append(
            f'<text x="{MARGIN}" y="{MARGIN + 12 + LINE * place}" font-size="11" fill="var(--muted)">{glyph} {label}</text>'
        )
    inner = svg.replace("<svg ", f'<svg x="{MARGIN}" y="{top}" width="{width}" height="{height}" ', 1)
    outer = width + 2 * MARGIN, top + height + MARGIN
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {outer[0]} {outer[1]}" width="{1.6 * outer[0]:.0f}">',
            f"<title>{html.escape(title)}</title>",
            "<style>" + colours + "svg { font-family: var(--sans) }\n" + "\n".join(classes) + "</style>",
            f'<rect width="{outer[0]}" height="{outer[1]}" rx="8" fill="var(--card)"/>',
            *texts,
            inner + "</svg>\n",
        ]
    )


def _draw(axes, line: Curve) -> None:
    number = line.series % len(MARKERS)
    colour, marker = f"#0000a{number}", MARKERS[number] if line.marked else None
    style = {"linestyle": (0, (3, 2)), "linewidth": 1.2} if line.dashed else {"linewidth": 1.8}
    axes.plot(line.x, line.y, color=colour, marker=marker, markersize=5, solid_joinstyle="round", **style)
    if line.intervals:
        low, high = zip(*line.intervals, strict=True)
        axes.vlines(line.x, low, high, color=colour, linewidth=1.2, alpha=0.75)


def _thinned(line: Curve) -> Curve:
    """The same line with at most MOST_POINTS points, each the mean of a run of neighbours."""
    size = -(-len(line.x) // MOST_POINTS)
    if size <= 1:
        return line
    starts = range(0, len(line.x), size)
    x, y = ([statistics.fmean(values[start : start + size]) for start in starts] for values in (line.x, line.y))
    return Curve(x, y, line.series, marked=False, dashed=line.dashed)


def _embedded(svg: str, name: str, title: str) -> str:
    """The <svg> element alone, with the page's colours and font, and ids that no other figure has."""
    svg = svg[svg.index("<svg") :]
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    svg = re.sub(r' (width|height)="[\d.]+pt"', "", svg, count=2)  # the page's width decides
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)  # it would reach beyond the figure; style.css has it
    svg = re.sub(r"font: ([\d.]+px)[^;\"]*", r"font-size: \1", svg)
    svg = re.sub(r'(id="|url\(#|href="#)', rf"\g<1>{name}-", svg)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{html.escape(title)}" ', 1)
