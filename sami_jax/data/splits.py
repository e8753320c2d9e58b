"""Which queries are trained on, in which iteration, and which are held out: nothing is judged that was trained on."""

import dataclasses
import unicodedata
from collections.abc import Sequence

from ml_collections import ConfigDict

from sami_jax.data.queries import Query, read_source
from sami_jax.data.rows import Skipped
from sami_jax.data.sources import sources
from sami_jax.errors import UserError
from sami_jax.ground.terminal import say


@dataclasses.dataclass(frozen=True)
class Split:
    """Queries to train on and others to evaluate on; no text is in both."""

    training: list[Query]
    held_out: list[Query]
    records: dict[str, dict]  # what was read, for a manifest, by config field


def split_queries(data: ConfigDict, skipped: Skipped | None = None) -> Split:
    """Reads the queries that a run's `data` names. Of those to evaluate on, what stands in training too is left out and counted.

    Held out are all of `eval_queries`, or the last `eval_fraction` of `queries` where it is "" or the same file.

    Args:
      skipped: takes bad rows; None refuses them.
    Raises:
      UserError: nothing can be read, or all that is to be evaluated on is trained on.
    """
    read = {name: read_source(source, skipped) for name, source in sources(data).items()}
    training, place = read["queries"].queries, data.eval_queries or data.queries
    if "eval_queries" in read:
        chosen = read["eval_queries"].queries
    else:
        if data.eval_queries:
            say(
                f"WARNING: {place}: one file to train and to evaluate on; its last {data.eval_fraction:.0%} are held out"
            )
        count = max(1, round(len(training) * data.eval_fraction))
        training, chosen = training[:-count], training[-count:]
    trained = {normalized(query.text) for query in training}
    held_out = [query for query in chosen if normalized(query.text) not in trained]
    dropped = len(chosen) - len(held_out)
    if not held_out:
        raise UserError(
            f"{place}: each of the {len(chosen)} queries to evaluate on stands among those to train on too; name others in "
            "config.data.eval_queries"
        )
    if dropped:
        say(f"{place}: {dropped} of {len(chosen)} queries to evaluate on stand among those to train on too; left out")
    records = {name: one.record for name, one in read.items()}
    records[list(records)[-1]] |= {"held_out": len(held_out), "trained_on_too": dropped}
    return Split(training, held_out, records)


def of_iteration(queries: Sequence[Query], splits: int, iteration: int) -> list[Query]:
    """The queries of one iteration (from 1): splits that take turns (paper, section 4), and of which no two share a text."""
    turn = (iteration - 1) % splits
    return [query for query, number in zip(queries, _numbers(queries), strict=True) if number % splits == turn]


def distinct(queries: Sequence[Query]) -> int:
    """How many texts there are."""
    return len(set(_numbers(queries)))


def normalized(text: str) -> str:
    """What is left of a text where forms of letters, their case and white space make no difference."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _numbers(queries: Sequence[Query]) -> list[int]:
    """For each query, the number of its text in the order in which texts first appear."""
    numbers: dict[str, int] = {}
    return [numbers.setdefault(normalized(query.text), len(numbers)) for query in queries]
