"""Judges of single responses: which stated principles a response follows, and whether it is whole."""

from collections.abc import Mapping
from typing import Protocol

from sami_jax.miniature import judge as miniature_judge
from sami_jax.miniature import world


class Judge(Protocol):
    def knows(self, id: str) -> bool:
        """Whether it can judge the principle of this id."""
        ...

    def followed(self, query: str, response: str, stated: Mapping[str, bool]) -> dict[str, bool]:
        """Principle id -> whether the response follows the stated side: True the principle, False its antithesis."""
        ...

    def well_formed(self, query: str, response: str) -> bool:
        """Whether the response is whole, whatever it says."""
        ...


class MiniatureJudge:
    """Exact, for the miniature's world."""

    @staticmethod
    def knows(id: str) -> bool:
        return id in miniature_judge.CHECKERS

    followed = staticmethod(miniature_judge.followed)
    well_formed = staticmethod(world.well_formed)


def make_judge(name: str) -> Judge | None:
    """The judge of `config.evaluation.judge`; None where nobody judges."""
    return MiniatureJudge() if name == "miniature" else None
