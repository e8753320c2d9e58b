"""What would a model say? A model folder answers under a principle and under its antithesis."""

import threading
from collections.abc import Sequence
from pathlib import Path

from sami_jax.errors import UserError

MOST_TOKENS = 120  # of an answer
LONGEST_QUERY = 2000  # characters


class Model:
    """A model folder, read when it is first asked; one question at a time."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._model = None
        self._busy = threading.Lock()

    def answers(self, query: str, statements: Sequence[str]) -> list[str]:
        """The likeliest response to a query under each statement, by the model's chat template where it has one.

        Raises:
          UserError: no query, or one that is too long; a model that cannot be used, or that is being asked already.
        """
        if not 0 < len(query) <= LONGEST_QUERY:
            raise UserError(f"a query has 1 to {LONGEST_QUERY} characters; write one")
        if not self._busy.acquire(blocking=False):
            raise UserError("the model is answering somebody else; ask again in a moment")
        try:
            return self._ask(query, statements)
        finally:
            self._busy.release()

    def _ask(self, query: str, statements: Sequence[str]) -> list[str]:
        from sami_jax import api
        from sami_jax.models.pretrained import open_model
        from sami_jax.principles.constitutions import numbered
        from sami_jax.sharding import ALL_DEVICES, make_mesh

        if self._model is None:
            files, mesh = open_model(self._folder).chatting_if_it_can(), make_mesh(ALL_DEVICES)
            self._model = api.Model(files, files.load(mesh, "float32"), mesh)
        constitutions = [[numbered([one]) for one in statements]]
        room = self._model.files.config.max_positions
        limits = {"max_new_tokens": min(MOST_TOKENS, room // 2), "temperature": 0.0, "batch_size": len(statements)}
        return [str(answer).strip() for answer in api.sample(self._model, [query], constitutions, **limits)[0]]
