"""Checks tried on responses: how often each side of each principle is followed, and where both sides are, or neither."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from sami_jax.data.fields import BadRow, absent, plain_id, require, texts_in
from sami_jax.data.rows import Skipped, read_rows
from sami_jax.errors import UserError
from sami_jax.evaluation.echo import echoes
from sami_jax.evaluation.statistics import mean_interval
from sami_jax.principles import constitutions as composing
from sami_jax.principles.checks.check import Checks
from sami_jax.principles.principle import Principle, current

# A line of a run's responses or pairs, or of what `sami sample` writes.
COLUMNS = ("id", "query", "constitution", "constitutions", "response", "responses")


@dataclasses.dataclass(frozen=True)
class Tried:
    """A response, held against one principle's check."""

    id: str | int  # of the query
    response: str
    stated: bool | None  # which side its constitution states: True the principle; None: there was no constitution
    echo: bool  # repeats its constitution, and so follows nothing
    principle: bool
    antithesis: bool


@dataclasses.dataclass(frozen=True)
class Trial:
    """What became of the responses under one side of one principle."""

    name: str  # id@version
    side: str  # "principle" or "antithesis"
    responses: int
    followed: int
    interval: tuple[float, float]  # 95 %, of the share that follow, which knows what belongs to one query
    both: int  # follow the principle and the antithesis
    neither: int  # echoes aside
    echoes: int
    examples: tuple[Tried, ...]

    def record(self) -> dict:
        """For programs."""
        found = {
            field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "examples"
        }
        return found | {"share": self.followed / self.responses}


def try_checks(file: Path, principles: Sequence[Principle], skipped: Skipped | None = None) -> list[Trial]:
    """
    Args:
      file: of responses, with the constitutions they were written under; without, each is held against both sides of every principle.
      principles: all versions; of each id the one that a run would use counts.
      skipped: takes the rows that cannot be used; None: the first of them is an error.
    Raises:
      UserError: no principle has a check, a bad row, or a file without good ones; names it.
    """
    checked = {p.id: p for p in current(principles) if p.check}
    if not checked:
        raise UserError("none of these principles has a check; write 'check:' into their files, see docs/principles.md")

    def read(row: dict) -> list[tuple[str, Tried]]:
        id = plain_id(row)
        try:
            return [
                tried for said in _responses(row) for tried in _tried(id, row.get("query"), *said, checked, principles)
            ]
        except UserError as error:
            raise BadRow("the response cannot be checked", f": {error}") from None

    found = [tried for _, row in read_rows(file, COLUMNS, ("id",), read, skipped) for tried in row]
    trials = []
    for id, principle in checked.items():
        for side in (True, False):
            tried = [one for name, one in found if name == id and one.stated in (side, None)]
            if tried:
                trials.append(_trial(principle.name, side, tried))
    if not trials:
        raise UserError(f"{file}: no constitution in it states a principle that has a check")
    return trials


def _responses(row: dict) -> list[tuple[str | None, str]]:
    """(constitution, response) of a row."""
    if absent(row.get("responses")):
        require(row, "response")
        texts = row["response"], row.get("constitution")
        if not all(isinstance(text, str | None) for text in texts):
            raise BadRow("response or constitution is no text", "; mend the line")
        return [(None if absent(texts[1]) else texts[1], texts[0])]
    responses, constitutions = texts_in(row["responses"]), texts_in(row.get("constitutions"))
    if responses is None or constitutions is None or len(responses) != len(constitutions):
        raise BadRow("responses and constitutions are not lists of as many texts", "; mend the line")
    return list(zip(constitutions, responses, strict=True))


def _tried(
    id: str | int,
    query,
    constitution: str | None,
    response: str,
    checked: dict[str, Principle],
    principles: Sequence[Principle],
) -> list[tuple[str, Tried]]:
    prompt = query if isinstance(query, str) else ""
    stated = composing.stated(composing.read(constitution, principles)) if constitution else dict.fromkeys(checked)
    echo = bool(constitution) and echoes(response, constitution or "")
    found = []
    for name in stated.keys() & checked.keys():
        check: Checks | None = checked[name].check
        sides = [bool(check) and not echo and check.follows(response, side, prompt) for side in (True, False)]
        found.append((name, Tried(id, response, stated[name], echo, *sides)))
    return found


def _trial(name: str, side: bool, tried: Sequence[Tried]) -> Trial:
    followed = [one.principle if side else one.antithesis for one in tried]
    _, low, high = mean_interval(followed, [str(one.id) for one in tried])
    return Trial(
        name,
        "principle" if side else "antithesis",
        len(tried),
        sum(followed),
        (low, high),
        sum(one.principle and one.antithesis for one in tried),
        sum(not one.principle and not one.antithesis and not one.echo for one in tried),
        sum(one.echo for one in tried),
        tuple(tried),
    )
