"""What all pages share: where they look, their words, the name that a visitor has given, how they are made."""

import dataclasses
import urllib.parse
from pathlib import Path

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse

from sami_jax.desk.log import Log
from sami_jax.desk.texts import LANGUAGES, TEXTS
from sami_jax.errors import UserError
from sami_jax.ground.terminal import visible
from sami_jax.report.texts import Words
from sami_jax.report.write import environment

LONGEST_NAME = 80  # characters
YEAR = 31_536_000  # seconds


@dataclasses.dataclass(frozen=True)
class Places:
    """What the desk shows; None: not shown."""

    principles: Path | None = None  # a folder of principle files
    ratings: Path | None = None  # a folder that `sami rate export` wrote
    runs: Path | None = None  # a folder with run folders in it
    verdicts: Path | None = None  # a judge's on the same pairs
    model: Path | None = None  # asked about principles

    @property
    def sections(self) -> list[str]:
        return [name for name in ("principles", "ratings", "runs") if getattr(self, name)]


class Pages:
    """Makes pages."""

    def __init__(self, places: Places):
        self.places = places
        self.log = Log()
        self._environment = environment(Path(__file__).parent / "templates")
        self._environment.filters["quoted"] = lambda text: urllib.parse.quote(text, safe="")

    def page(self, request: Request, template: str, status_code: int = 200, **content) -> HTMLResponse:
        """A page of a template."""
        words = words_of(request)
        shared = {
            "t": words,
            "languages": LANGUAGES,
            "csrf": request.state.csrf,
            "name": name_of(request),
            "sections": self.places.sections,
            "here": _here(request),
        }
        text = self._environment.get_template(template).render(**shared, **content)
        return HTMLResponse(text, status_code, headers={"Content-Language": words.language})

    def refuse(self, request: Request, status: int, why: str, detail: str = "") -> HTMLResponse:
        """A page that says why there is no other.

        Args:
          why: a key of the texts.
          detail: a line of the program's own.
        """
        return self.page(request, "refused.html", status, why=why, detail=detail)


def _here(request: Request) -> str:
    """The path of the page, also where a form of it was just answered."""
    path = request.scope["path"]
    return path.rpartition("/")[0] if request.method == "POST" and path.endswith(("/decide", "/edit", "/ask")) else path


def words_of(request: Request) -> Words:
    """In the language that the visitor chose, or else in the one that the browser prefers."""
    chosen = request.cookies.get("sami_desk_language")
    return Words(chosen if chosen in LANGUAGES else _preferred(request.headers.get("accept-language", "")), TEXTS)


def _preferred(header: str) -> str:
    """Of Accept-Language (RFC 9110, section 12.5.4), the one of ours with the greatest weight; English where none is."""
    weights = {}
    for part in header.split(","):
        language, _, weight = part.strip().lower().partition(";q=")
        try:
            weights.setdefault(language.partition("-")[0], float(weight or 1))
        except ValueError:
            continue
    return max(LANGUAGES, key=lambda language: weights.get(language, 0.0))


def name_of(request: Request) -> str:
    """Who the visitor says to be; "" where nobody has said."""
    name = urllib.parse.unquote(request.cookies.get("sami_desk_name", ""))
    return name if _is_name(name) else ""


def named(request: Request) -> str:
    """The name that the form was shown under, which is who decides, whoever the visitor is by now.

    Raises:
      UserError: none that can be written down.
    """
    name = request.state.form.get("name", "").strip()
    if not _is_name(name):
        raise UserError(f"a name has 1 to {LONGEST_NAME} visible characters; give yours first")
    return name


def _is_name(name: str) -> bool:
    return (
        0 < len(name) <= LONGEST_NAME
        and name == name.strip()
        and visible(name) == name
        and not set(name) & {"\n", "\t"}
    )


def keep_name(request: Request) -> RedirectResponse:
    """Remembers who the visitor says to be."""
    response = back(request)
    response.set_cookie("sami_desk_name", urllib.parse.quote(named(request)), YEAR, httponly=True, samesite="lax")
    return response


def keep_language(request: Request) -> RedirectResponse:
    response = back(request)
    language = request.state.form.get("language", "")
    response.set_cookie("sami_desk_language", language, YEAR, httponly=True, samesite="lax")
    return response


def back(request: Request) -> RedirectResponse:
    """To the page of ours that the form names."""
    place = request.state.form.get("back", "/")
    ours = place.startswith("/") and not place.startswith("//") and "\\" not in place and place.isprintable()
    return RedirectResponse(urllib.parse.quote(place, safe="/@") if ours else "/", 303)


def check_inside(folder: Path, *files: Path) -> None:
    """
    Raises:
      UserError: a file lies elsewhere, behind a link.
    """
    for file in files:
        if not file.resolve().is_relative_to(folder.resolve()):
            raise UserError(f"{file}: leads out of {folder}; put the file itself there")
