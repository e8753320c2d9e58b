"""What one tracker of a run is asked to do."""

from collections.abc import Mapping, Sequence
from typing import Protocol

Table = Sequence[Mapping[str, str]]  # rows: column -> text


class Tracker(Protocol):
    """One tracker's run. Names are slash-separated, as "iteration_1/loss"; tables hold no secrets and no control characters."""

    id: str  # by which it is continued
    faults: tuple[type[Exception], ...]  # of the service, for which no run is given up

    def describe(self, config: dict, principles: Table) -> None:
        """What the run is made from. Told in each life of the run."""

    def rewind(self, step: int) -> None:
        """What was told of this step and later ones comes again."""

    def tell(self, step: int, scalars: Mapping[str, float], tables: Mapping[str, Table]) -> None:
        """All there is of a step."""

    def close(self, done: bool) -> None:
        """Ends this life of the run; whether its work is done."""
