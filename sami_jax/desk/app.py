"""The desk as an ASGI application: which address leads to which page."""

from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from sami_jax import report
from sami_jax.desk.asking import Model
from sami_jax.desk.guard import ENTRANCE, Entrance, Guard
from sami_jax.desk.pages import Pages, Places, keep_language, keep_name, name_of
from sami_jax.desk.principles import PrinciplePages
from sami_jax.desk.ratings import RatingPages
from sami_jax.desk.runs import RunPages
from sami_jax.errors import UserError
from sami_jax.ground.disk import disk_fault

STATIC = {
    "desk.js": Path(__file__).parent / "static/desk.js",
    "desk.css": Path(__file__).parent / "static/desk.css",
    "colours.css": Path(report.__file__).parent / "colours.css",
}


def make_app(places: Places, entrance: Entrance | None) -> ASGIApp:
    """
    Args:
      entrance: where browsers get in; None: the desk is for this machine alone.
    Raises:
      UserError: a folder that is not what it should be.
    """
    pages = Pages(places)
    model = Model(places.model) if places.model else None
    principles = PrinciplePages(pages, places.principles, model) if places.principles else None
    ratings = RatingPages(pages, places.ratings, places.verdicts) if places.ratings else None
    runs = RunPages(pages, places.runs) if places.runs else None

    def home(request: Request) -> HTMLResponse:
        return pages.page(
            request,
            "home.html",
            principles=principles.counts() if principles else {},
            progress=ratings.progress(name_of(request)) if ratings else (0, 0),
            runs=runs.names()[:5] if runs else [],
        )

    routes = [
        Route("/", home),
        Route("/name", lambda request: pages.page(request, "name.html", back=request.query_params.get("back", "/"))),
        Route("/name", keep_name, methods=["POST"]),
        Route("/language", keep_language, methods=["POST"]),
        Route(ENTRANCE + "{token}", lambda request: pages.page(request, "enter.html")),
        Route("/static/{file}", _static),
    ]
    if principles:
        routes += [
            Route("/principles", principles.listed),
            Route("/principles/{name}", principles.one),
            Route("/principles/{name}/decide", principles.decide, methods=["POST"]),
            Route("/principles/{name}/edit", principles.edit, methods=["POST"]),
            Route("/principles/{name}/ask", principles.ask, methods=["POST"]),
        ]
    if ratings:
        routes += [
            Route("/ratings", ratings.start),
            Route("/ratings/agreement", ratings.agreed),
            Route("/ratings/{place:int}", ratings.one),
            Route("/ratings/{place:int}", ratings.rate, methods=["POST"]),
        ]
    if runs:
        routes += [
            Route("/runs", runs.listed),
            Route("/runs/{run}", runs.one),
            Route("/runs/{run}/live", runs.live),
            Route("/runs/{run}/report", runs.report),
        ]

    def told(request: Request, error: Exception) -> Response:
        return pages.refuse(request, 400, "refused/input", str(error))

    def on_disk(request: Request, error: Exception) -> Response:
        return pages.refuse(request, 500, "refused/disk", str(disk_fault(error, Path()) or error))

    def missing(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        return pages.refuse(request, status, "refused/method" if status == 405 else "refused/missing")

    def fault(request: Request, error: Exception) -> Response:
        return pages.refuse(request, 500, "refused/fault")

    handlers = {UserError: told, OSError: on_disk, HTTPException: missing, Exception: fault}
    return Guard(Starlette(routes=routes, exception_handlers=handlers), pages.refuse, entrance)


def _static(request: Request) -> Response:
    """One of a few files, by its name."""
    if (file := STATIC.get(request.path_params["file"])) is None:
        raise HTTPException(404)
    return FileResponse(file)
