"""The pages of ratings: blinded pairs, one at a time; and, for those who are done, how raters agree."""

import threading
from pathlib import Path

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from sami_jax.data.cells import from_cell
from sami_jax.desk.pages import Pages, check_inside, name_of, named
from sami_jax.errors import UserError
from sami_jax.evaluation.ratings import KEY, Agreement, agreement, between_raters, import_ratings
from sami_jax.evaluation.sheets import (
    BETTER,
    CANNOT_SAY,
    SHEET,
    Rating,
    read_ratings,
    read_sheet,
    sheet_of,
    texts,
    write_ratings,
)
from sami_jax.evaluation.verdicts import Verdict, read_verdicts
from sami_jax.ground.lock import alone_in
from sami_jax.ground.terminal import visible

CHOICES = (*BETTER, CANNOT_SAY)
LONGEST_REASON = 2000  # characters


class RatingPages:
    """The pages of a folder that `sami rate export` wrote."""

    def __init__(self, pages: Pages, folder: Path, verdicts: Path | None):
        """
        Args:
          verdicts: a judge's on the same pairs.
        Raises:
          UserError: no such folder, or one without a sheet.
        """
        self._pages, self._folder, self._verdicts = pages, folder, verdicts
        check_inside(folder, folder / SHEET, folder / KEY)
        self._items = [texts(row) for row in read_sheet(folder / SHEET)]
        self._agreement = threading.Lock()  # which takes a while to compute

    def progress(self, name: str) -> tuple[int, int]:
        """How many items this rater has looked at, and how many there are."""
        return len(self._rated(name)) if name else 0, len(self._items)

    def start(self, request: Request) -> HTMLResponse:
        name = name_of(request)
        done, count = self.progress(name)
        next_one = self._next(self._rated(name)) if name else None
        return self._pages.page(request, "ratings.html", done=done, count=count, next=next_one)

    def one(self, request: Request) -> Response:
        if not name_of(request):
            return RedirectResponse("/ratings", 303)
        return self._show(request, self._place(request))

    def rate(self, request: Request) -> Response:
        """Writes a rating, and goes on to the next item that has none."""
        form, place = request.state.form, self._place(request)
        name, better, reason = named(request), form.get("better", ""), form.get("reason", "").strip()
        if better not in CHOICES:
            raise UserError(f"no such rating; one of {', '.join(CHOICES)}")
        if visible(reason) != reason or len(reason) > LONGEST_REASON:
            raise UserError(f"a reason has at most {LONGEST_REASON} visible characters; write it again")
        item = self._items[place - 1]["item"]
        self._pages.log.check(self._folder)
        with alone_in(self._folder):
            rated = self._rated(name)
            if _told(rated.get(item)) != form.get("seen", ""):
                return self._show(request, place, 409, changed=True)
            rated[item] = Rating(better, reason)
            write_ratings(self._folder, name, rated)
        self._pages.log.add(self._folder, "rated", name, item=item, better=better, reason=reason)
        following = self._next(rated, place)
        return RedirectResponse(f"/ratings/{following}" if following else "/ratings", 303)

    def agreed(self, request: Request) -> HTMLResponse:
        """How raters agree, for those who cannot be swayed by it any more."""
        done, count = self.progress(name_of(request))
        if done < count:
            return self._pages.page(request, "closed.html", 403, done=done, count=count)
        with self._agreement:
            raters = self._finished()
            ratings = {name: self._imported(name) for name in raters}
            rows = [row for one in ratings.values() for row in one]
            judged = {name: self._with_judge(one) for name, one in ratings.items()} if self._verdicts else {}
            together = self._with_judge(rows) if self._verdicts and len(ratings) > 1 else None
            between = between_raters(rows)
        return self._pages.page(
            request,
            "agreement.html",
            raters=raters,
            between=between,
            judged=judged,
            together=together,
            judge=bool(self._verdicts),
        )

    def _show(self, request: Request, place: int, status: int = 200, changed: bool = False) -> HTMLResponse:
        rated = self._rated(name_of(request))
        item = self._items[place - 1]
        return self._pages.page(
            request,
            "rating.html",
            status,
            item=item,
            place=place,
            count=len(self._items),
            done=len(rated),
            given=rated.get(item["item"]) or Rating(""),
            seen=_told(rated.get(item["item"])),
            choices=CHOICES,
            changed=changed,
        )

    def _place(self, request: Request) -> int:
        place = request.path_params["place"]
        if not 1 <= place <= len(self._items):
            raise UserError(f"no item {place}; there are 1 to {len(self._items)}")
        return place

    def _rated(self, name: str) -> dict[str, Rating]:
        check_inside(self._folder, sheet_of(self._folder, name))
        return read_ratings(self._folder, name)

    def _next(self, rated: dict[str, Rating], after: int = 0) -> int | None:
        """The place of the first item without a rating, behind a place if there is one; None where all have one."""
        open_ones = [place for place, one in enumerate(self._items, start=1) if one["item"] not in rated]
        return next((place for place in open_ones if place > after), open_ones[0] if open_ones else None)

    def _finished(self) -> list[str]:
        """The names of those who have looked at every item."""
        names = []
        for file in sorted(self._folder.glob("ratings.*.csv")):
            check_inside(self._folder, file)
            rows = read_sheet(file)
            raters = {from_cell(row["rater"]) for row in rows if row["better"]}
            names += [
                name for name in raters if all(row["better"] for row in rows) and sheet_of(self._folder, name) == file
            ]
        return sorted(names)

    def _imported(self, name: str) -> list[dict]:
        """What `sami rate import` makes of a rater's sheet; nothing where no item has a rating."""
        if all(rating.better == CANNOT_SAY for rating in self._rated(name).values()):
            return []
        return import_ratings(sheet_of(self._folder, name), self._folder / KEY).rows

    def _with_judge(self, rows: list[dict]) -> Agreement | None:
        rated = [Verdict(row["win"], row["id"], row["constitution"]) for row in rows]
        return agreement(rated, read_verdicts(self._verdicts)) if self._verdicts else None


def _told(rating: Rating | None) -> str:
    return f"{rating.better}: {rating.reason}" if rating else ""
