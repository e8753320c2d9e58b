"""Writes the report: one HTML file without scripts, that asks nothing of the network and shows all it has from within."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sami_jax.data.jsonl import write_text
from sami_jax.errors import UserError
from sami_jax.ground.redaction import redacted
from sami_jax.ground.terminal import visible
from sami_jax.report import record, results
from sami_jax.report.data import Run, compare, gather
from sami_jax.report.figures import picture
from sami_jax.report.kept import Kept, section
from sami_jax.report.texts import Words

if TYPE_CHECKING:
    from jinja2 import Environment

NAMES = {"en": "report.html", "ja": "report.ja.html"}  # in the run's folder


def write_report(workdir: Path, output: Path | None = None, language: str = "en", kept: Kept | None = None) -> Path:
    """Writes the report of the run in `workdir`, finished or not.

    Args:
      output: the file; None: as in NAMES, in the run's folder.
      language: one of texts.LANGUAGES.
      kept: for the section on what was kept.
    Returns:
      the file.
    Raises:
      UserError: no run's folder, or a file in it that cannot be read.
    """
    page = render(gather(workdir), Words(language), kept)
    file = output or workdir / NAMES[language]
    write_text(file, page)
    return file


def write_figures(workdir: Path, folder: Path, language: str = "en") -> list[Path]:
    """Writes each curve of the report as an SVG file RUN_NAME.svg into `folder`.

    Returns:
      the files.
    Raises:
      UserError: no run's folder, or a file in it that cannot be read.
    """
    run = gather(workdir)
    found = {
        folder / f"{workdir.resolve().name}_{one['name']}.svg": picture(one["title"], one["legend"], one["svg"])
        for one in _guarded(run, lambda: results.figures(run, Words(language)))
    }
    for file, text in found.items():
        write_text(file, text)
    return list(found)


def render(run: Run, words: Words, kept: Kept | None = None) -> str:
    """The page as text. The same run, and the same results of lm-eval, give the same text.

    Raises:
      UserError: the run's files were changed, and cannot be shown any more.
    """
    return _guarded(run, lambda: _page(run, words, kept))


def _guarded(run: Run, make: Callable):
    """What `make` makes of the run; where that fails for a run that was changed, the change is said."""
    try:
        return make()
    except (KeyError, ValueError, TypeError, AttributeError, IndexError, ArithmeticError) as error:
        if not run.complaint:  # all is as it was recorded: the fault is ours
            raise
        raise UserError(f"{run.complaint}; what is left of the run cannot be shown ({error!r:.60})") from None


def _page(run: Run, words: Words, kept: Kept | None) -> str:
    return page("template.html", results.figures(run, words), t=words, **redacted(view(run, words, kept)))


def page(template: str, figures: Sequence[dict], folders: Sequence[Path] = (), **shown) -> str:
    """A page as text. Curves are made of numbers and of our own words alone: they go to it as they are.

    Args:
      template: a file of this folder, or of `folders`.
      figures: each with its "svg".
    """
    from markupsafe import Markup

    figures = [figure | {"svg": Markup(figure["svg"])} for figure in figures]  # as said above  # nosec B704
    return environment(*folders, Path(__file__).parent).get_template(template).render(figures=figures, **shown)


def environment(*folders: Path) -> "Environment":
    """Templates of HTML in which nothing that is shown can be markup, or be invisible."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    def neutral(value):
        """Then autoescape does its part."""
        return spelt_out(value) if isinstance(value, str) and not isinstance(value, Markup) else value

    return Environment(
        loader=FileSystemLoader(folders),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=neutral,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def spelt_out(text: str) -> str:
    """The text with control characters spelt out, and what is no Unicode text."""
    return visible(text).encode("utf-8", "backslashreplace").decode("utf-8")


def view(run: Run, words: Words, kept: Kept | None) -> dict:
    """What the template shows, curves aside, by section."""
    compared = {name: compare(run, name) for name in run.sets}
    slices = results.principle_slices(run, words, compared)
    return {
        "name": run.folder.resolve().name,
        "status": run.predicate["status"],
        "as_of": record.as_of(run),
        "verdict": results.verdict(run, words, slices),
        "matrices": results.matrices(run, words),
        "per_token": run.predicate["config"]["objective"]["normalize"] == "mean",
        "sets": results.set_slices(run, words, compared),
        "slices": slices,
        "kept": section(kept, run, words) if kept else None,
        "examples": results.examples(run, words, compared),
        "explained": results.explained(run, words),
        "principles": record.principles(run, words),
        "cost": record.cost(run, words),
        "manifest": record.manifest(run, words),
    }
