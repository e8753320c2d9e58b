"""What a judge of single responses is: who decides which stated principles a response follows, and whether it is whole."""

import dataclasses
from collections.abc import Sequence
from typing import Protocol

from sami_jax.principles.constitutions import Constitution


@dataclasses.dataclass(frozen=True)
class Reply:
    """What a model answered."""

    query: str
    constitution: Constitution  # under which it was asked
    response: str
    ended: bool = True  # by itself, rather than at the limit of its tokens


class Judge(Protocol):
    @property
    def most(self) -> int | None:
        """Replies that it is asked about at a measurement; None: all."""
        ...

    def knows(self, id: str) -> bool:
        """Whether it can judge the principle of this id."""
        ...

    def followed(self, replies: Sequence[Reply]) -> list[dict[str, bool]]:
        """Of each reply, the id of each stated principle -> whether the side that is stated is followed. A principle without a
        verdict is absent."""
        ...

    def well_formed(self, reply: Reply) -> bool:
        """Whether the response is whole, whatever it says."""
        ...
