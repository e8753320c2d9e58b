"""Canaries: a few fixed queries, answered under principles and under their antitheses while training goes on, that show a
collapse early. What they look at, and when they fire, is in `signs`.

Every sign is compared with the base model's on the same queries. They come from the training queries: a warning sign is
no score, and the held-out ones stay unseen.
"""

import dataclasses
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import jax
from ml_collections import ConfigDict

from sami_jax.data.jsonl import read_appended, read_json, read_jsonl, write_json, write_jsonl
from sami_jax.data.queries import Query
from sami_jax.data.shape import read_shaped
from sami_jax.evaluation.judge import Judge
from sami_jax.evaluation.measure import (
    EvaluationSet,
    judged_replies,
    measure,
    own_logprobs,
    share_followed,
    trained_principles,
)
from sami_jax.evaluation.signs import Signs, fired
from sami_jax.ground import hosts
from sami_jax.ground.digests import json_digest
from sami_jax.models.files import model_files
from sami_jax.models.pretrained import ModelFolder
from sami_jax.models.stack import lent
from sami_jax.principles import constitutions as composing
from sami_jax.principles.principle import Principle

NAME = "canaries"
STOPPED = "stopped.json"
STOP = {"update": int, "last_good": int, "rules": [str]}  # its content
SIGNS = "signs.json"  # of a look, in its folder
ASKED = "asked.json"  # beside the base's: the digest of what decides it
# Parts of a config that say nothing of how the base answers.
_OF_TRAINING = ("mesh", "optim", "lora", "train", "track")


def canary_set(config: ConfigDict, principles: Sequence[Principle], queries: Sequence[Query]) -> EvaluationSet:
    """The first `config.canaries.queries` queries, each under trained principles and under all their antitheses."""
    queries = queries[: config.canaries.queries]
    chosen = trained_principles(config, principles)
    sizes = (config.constitutions.principles, 2)
    root = f"{config.seed}/{NAME}"
    constitutions = []
    for index in range(len(queries)):
        first, _ = composing.compose(chosen, "positive_vs_rest", *sizes, root, index)
        constitutions.append((first, composing.opposite(first, chosen)))
    return EvaluationSet(NAME, queries, constitutions)


class Canaries:
    """The canaries of one training stage. Their signs are kept in canaries.jsonl, the base's as update 0."""

    def __init__(
        self,
        config: ConfigDict,
        model: ModelFolder,
        frozen: dict,
        chosen: EvaluationSet,
        judge: Judge | None,
        mesh: jax.sharding.Mesh,
        folder: Path,
        done: int,
        earlier: Path | None = None,
    ):
        """
        Args:
          model: the base, with adapters if it is these that are trained.
          frozen: the weights beside them; {} where all are trained, and while the canaries answer.
          done: updates made before a stop; signs of later ones are measured again.
          earlier: folder of another stage of this run: what it measured of the base is taken, where it was asked alike.
        """
        self._config, self._model, self._frozen = config, model, frozen
        self._set, self._judge, self._mesh = chosen, judge, mesh
        self._folder = folder / NAME
        self._earlier = earlier and earlier / NAME / "0"
        self._file = folder / f"{NAME}.jsonl"
        told = [self._folder / str(row["update"]) / SIGNS for row in read_appended(self._file) if row["update"] <= done]
        self._looks = [Signs.read(file) for file in told if file.is_file()]
        hosts.once(lambda: self._forget_after(done))

    def _forget_after(self, done: int) -> None:
        """Removes what updates said that were made after `done` and are made again, lest it be taken for what the new ones say."""
        for folder in self._folder.glob("*"):
            if folder.name.isdecimal() and int(folder.name) > done:
                shutil.rmtree(folder)

    def looked_at(self, before: int) -> int:
        """The last update before one that was looked at; 0 where none was."""
        return max((look.update for look in self._looks if look.update < before), default=0)

    def look(self, update: int, params: dict) -> tuple[dict[str, float], list[str]]:
        """Measures the model after `update` updates, unless it was before a stop.

        Args:
          params: the weights that are trained, in any dtype.
        Returns:
          its signs by name, and one line for each rule that fired.
        """
        compute_dtype = self._config.train.compute_dtype
        if not self._looks:
            self._look_at_base()
        if self._looks[-1].update != update:
            computed = jax.tree.map(lambda w: w.astype(compute_dtype), params)
            with lent(self._frozen, computed) as whole:
                self._measure(update, self._model, whole)
        *before, now = self._looks
        return now.means, fired(self._config, before, now)

    def _look_at_base(self) -> None:
        """Every stage begins with the base, which answers as it did in the stage before."""
        folder, asked = self._folder / "0", self._asked()
        earlier = self._earlier
        if earlier and hosts.once(lambda: _copied(earlier, folder, asked)):
            self._add(Signs.read(folder / SIGNS))
            return
        base = dataclasses.replace(self._model, config=dataclasses.replace(self._model.config, adapter=None))
        # Weights beside adapters are the base's: read again, they would lie in memory twice.
        self._measure(0, base, self._frozen or base.load(self._mesh, self._config.train.compute_dtype))
        write_json(folder / ASKED, asked)

    def _asked(self) -> dict:
        """What decides how the base answers, as a digest. A base that was replaced is told by its files' sizes and times."""
        config = json.loads(self._config.to_json())
        chosen = {name: value for name, value in config.items() if name not in _OF_TRAINING}
        chosen |= {"compute_dtype": self._config.train.compute_dtype, "base": self._config.lora.base}
        files = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in model_files(self._model.folder)]
        return {"sha256": json_digest([chosen, dataclasses.asdict(self._set), files])}

    def _measure(self, update: int, model: ModelFolder, params: dict) -> None:
        folder = self._folder / str(update)
        metrics = measure(self._config, model, params, self._set, None, self._mesh, folder, None)
        rows, first = (read_jsonl(self._folder / str(number) / f"{NAME}.jsonl") for number in (update, 0))
        kept = own_logprobs(self._config, model, params, self._set, first, self._mesh)
        judged = None
        if self._judge:
            verdicts, whole = judged_replies(self._config, self._set, rows, self._judge)
            judged = [share_followed(verdict) for verdict in verdicts], whole
        look = Signs.of(update, metrics, rows, kept, judged, model.tokenizer, self._config.canaries.refusals)
        look.write(folder / SIGNS)
        self._add(look)

    def _add(self, look: Signs) -> None:
        self._looks.append(look)
        write_jsonl(self._file, [{"update": look.update, **look.means} for look in self._looks])


def _copied(earlier: Path, folder: Path, asked: dict) -> bool:
    """Copies a look's folder, whole or not at all, where what was asked is the same; whether it did."""
    if (
        not (earlier / ASKED).is_file()
        or read_json(earlier / ASKED, "remove it to have the base measured again") != asked
    ):
        return False
    partial = folder.with_name("0.partial")
    for leftover in (partial, folder):
        shutil.rmtree(leftover, ignore_errors=True)
    shutil.copytree(earlier, partial)
    partial.rename(folder)
    return True


@dataclasses.dataclass(frozen=True)
class Stop:
    """A training stage that its canaries stopped; stopped.json in its folder."""

    update: int  # after which they fired
    last_good: int  # the update whose model is kept; 0: none was good
    rules: list[str]  # one line for each that fired

    @property
    def reason(self) -> str:
        return "; ".join(self.rules)

    def write(self, folder: Path) -> None:
        write_json(folder / STOPPED, dataclasses.asdict(self))

    @classmethod
    def read(cls, folder: Path) -> "Stop | None":
        file = folder / STOPPED
        return cls(**read_shaped(file, STOP, "restore it")) if hosts.once(file.exists) else None
