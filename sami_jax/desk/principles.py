"""The pages of principles: what waits, one with all that is known of it, and decisions under a reviewer's name."""

import urllib.parse
from collections.abc import Sequence
from pathlib import Path

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from sami_jax.desk.asking import Model
from sami_jax.desk.pages import Pages, check_inside, name_of, named
from sami_jax.errors import UserError
from sami_jax.ground.terminal import visible
from sami_jax.principles import reviewing
from sami_jax.principles.checks.conditions import canonical
from sami_jax.principles.differences import differences
from sami_jax.principles.files import principle_files, read_files
from sami_jax.principles.lint import check_one, text_errors
from sami_jax.principles.principle import Principle, approvers, content_hash, find, own_status, status
from sami_jax.report.write import spelt_out

ORDER = ("in review", "draft", "approved", "rejected", "superseded")  # what waits comes first
DECISIONS = {"approve": "approved", "reject": "rejected"}


class PrinciplePages:
    """The pages of a folder of principles."""

    def __init__(self, pages: Pages, folder: Path, model: Model | None):
        self._pages, self._folder, self._model = pages, folder, model

    def counts(self) -> dict[str, int]:
        """How many principles there are of each status."""
        principles = self._read().values()
        found = [status(p, principles) for p in principles]
        return {one: found.count(one) for one in ORDER if one in found}

    def listed(self, request: Request) -> HTMLResponse:
        files = self._read()
        groups = {one: [] for one in ORDER}
        for p in sorted(files.values(), key=lambda p: (p.id, p.version)):
            row = {"name": p.name, "text": p.phrasings[0][0], "antithesis": p.phrasings[0][1], "tags": p.tags}
            groups[status(p, files.values())].append(row | {"approvers": approvers(p), "check": bool(p.check)})
        return self._pages.page(request, "principles.html", groups={k: rows for k, rows in groups.items() if rows})

    def one(self, request: Request) -> HTMLResponse:
        done = request.query_params.get("done", "")
        return self._show(request, done if done in ("approved", "rejected", "comment", "edited", "unchanged") else "")

    def decide(self, request: Request) -> Response:
        """Approves, rejects or comments."""
        form, principle = request.state.form, self._found(request)
        comment, decision = form.get("comment", "").strip(), form.get("decision", "")
        try:
            name = named(request)
            _check_visible(comment)
            if form.get("seen") != content_hash(principle):
                return self._show(request, "changed", 409, comment=comment)
            self._pages.log.check(self._folder)
            if decision in DECISIONS:
                done = DECISIONS[decision]
                decided = reviewing.decide(self._folder, principle, name, done, comment)
            elif decision == "comment" and comment:
                done, decided = "comment", reviewing.remark(self._folder, principle, name, comment).name
            else:
                raise UserError("a comment without words; write some, or approve or reject")
        except reviewing.Changed:
            return self._show(request, "changed", 409, comment=comment)
        except UserError as error:
            return self._show(request, "", 400, comment=comment, fault=str(error))
        about = {"principle": decided, "content": self._hash_of(decided), "comment": comment}
        self._pages.log.add(self._folder, f"principle {done}", name, **about)
        return _to(decided, done)

    def edit(self, request: Request) -> Response:
        """Writes other words."""
        principle = self._found(request)
        typed = _typed(request.state.form)
        try:
            name = named(request)
            if request.state.form.get("seen") != content_hash(principle):
                return self._show(request, "changed", 409, typed=typed)
            phrasings = _phrasings(principle, typed)
            self._pages.log.check(self._folder)
            changed = reviewing.change(self._folder, principle, phrasings, principle.check)
        except reviewing.Changed:
            return self._show(request, "changed", 409, typed=typed)
        except UserError as error:
            return self._show(request, "", 400, typed=typed, fault=str(error))
        if content_hash(changed) == content_hash(principle):
            return _to(principle.name, "unchanged")
        about = {"principle": changed.name, "before": content_hash(principle), "content": content_hash(changed)}
        self._pages.log.add(self._folder, "principle edited", name, **about)
        return _to(changed.name, "edited")

    def ask(self, request: Request) -> HTMLResponse:
        """What the model says to a query under the principle, and under its antithesis."""
        if self._model is None:
            raise UserError("no model was given; start the desk with --model DIR")
        query, principle = request.state.form.get("query", "").strip(), self._found(request)
        try:
            answers = self._model.answers(query, principle.phrasings[0])
        except UserError as error:
            return self._show(request, "", 400, query=query, fault=str(error))
        return self._show(request, "", query=query, answers=answers)

    def _read(self) -> dict[Path, Principle]:
        check_inside(self._folder, *principle_files(self._folder))
        return read_files(self._folder)

    def _found(self, request: Request) -> Principle:
        return find(list(self._read().values()), request.path_params["name"], self._folder)

    def _hash_of(self, name: str) -> str:
        return content_hash(find(list(self._read().values()), name, self._folder))

    def _show(
        self,
        request: Request,
        done: str,
        status_code: int = 200,
        *,
        typed: Sequence[tuple[str, str]] = (),
        comment: str = "",
        query: str = "",
        answers: Sequence[str] = (),
        fault: str = "",
    ) -> HTMLResponse:
        """The page of one principle.

        Args:
          done: what was done before, a key of the texts below "done/".
          typed: texts that were not written, and are kept in the form.
        """
        files = self._read()
        principles = sorted(files.values(), key=lambda p: (p.id, p.version))
        principle = find(principles, request.path_params["name"], self._folder)
        file = next(file for file, p in files.items() if p == principle)
        present = content_hash(principle)
        before = [p for p in principles if p.id == principle.id and p.version < principle.version]
        approved = [p for p in before if own_status(p) == "approved"]
        return self._pages.page(
            request,
            "principle.html",
            status_code,
            done=done,
            fault=fault,
            principle=principle,
            status=status(principle, principles),
            seen=present,
            check={
                side: canonical(given) for side, given in (principle.check.sides if principle.check else {}).items()
            },
            reviews=[(review, review.content == present) for review in principle.reviews],
            findings=[*check_one(file.name, principle)],
            nearest=reviewing.nearest(principle, principles),
            versions=[p.name for p in principles if p.id == principle.id and p.name != principle.name],
            approved=approved[-1].name if approved else "",
            difference=list(differences(approved[-1], principle))[2:] if approved else [],
            editing=bool(typed),
            wordings=[*(typed or principle.phrasings), ("", "")],
            comment=comment,
            asks=self._model is not None,
            query=query,
            answers=answers,
            known=bool(name_of(request)),
        )


def _typed(form: dict[str, str]) -> list[tuple[str, str]]:
    """The wordings in a form, without pairs of empty ones."""
    found = []
    for number in range(len(form)):
        if f"principle-{number}" in form:
            pair = (form[f"principle-{number}"].strip(), form.get(f"antithesis-{number}", "").strip())
            found += [pair] if any(pair) else []
    return found


def _phrasings(principle: Principle, typed: Sequence[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """The wordings that are meant. What a form cannot show as it is, and nobody touched, stays.

    Raises:
      UserError: a text that is empty, or is none that could be approved.
    """
    as_shown = {spelt_out(text): text for pair in principle.phrasings for text in pair}
    phrasings = tuple((as_shown.get(one, one), as_shown.get(other, other)) for one, other in typed)
    wanted = Principle(principle.id, phrasings or (("", ""),), principle.version)
    if phrasings != principle.phrasings and (errors := text_errors(wanted)):
        raise UserError(f"{principle.name}: {errors[0]}")
    return phrasings


def _check_visible(comment: str) -> None:
    if visible(comment) != comment:
        raise UserError("the comment holds invisible control characters; type it again")


def _to(name: str, done: str) -> RedirectResponse:
    return RedirectResponse(f"/principles/{urllib.parse.quote(name, safe='')}?done={done}", 303)
