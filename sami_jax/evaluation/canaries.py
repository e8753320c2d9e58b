"""Canaries: a few fixed queries, answered under principles and under their antitheses while training goes on, that show a
collapse early: replies that break, swell, shrink, repeat themselves or refuse, or a mutual information that is high because
constitutions leak into replies rather than because they are followed.

Every sign is compared with the base model's on the same queries. They come from the training queries: a warning sign is
no score, and the held-out ones stay unseen.
"""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from sami_jax.data.jsonl import read_appended, read_jsonl, write_json, write_jsonl
from sami_jax.data.queries import Query
from sami_jax.data.shape import read_shaped
from sami_jax.evaluation.judges import Judge
from sami_jax.evaluation.measure import EvaluationSet, measure, trained_principles
from sami_jax.ground import hosts
from sami_jax.models.pretrained import ModelFolder
from sami_jax.models.stack import joined
from sami_jax.principles import constitutions as composing
from sami_jax.principles.principle import Principle

NAME = "canaries"
STOPPED = "stopped.json"
STOP = {"update": int, "last_good": int, "rules": [str]}  # its content
GRAM = 4  # tokens; a reply that repeats itself repeats runs of this length


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
    ):
        """
        Args:
          model: the base, with adapters if it is these that are trained.
          frozen: the weights beside them; {} where all are trained.
          done: updates made before a stop; signs of later ones are measured again.
        """
        self._config, self._model, self._frozen = config, model, frozen
        self._set, self._judge, self._mesh = chosen, judge, mesh
        self._folder = folder / NAME
        self._file = folder / f"{NAME}.jsonl"
        self._signs = [row for row in read_appended(self._file) if row["update"] <= done]

    def looked_at(self, before: int) -> int:
        """The last update before one that was looked at; 0 where none was."""
        return max((row["update"] for row in self._signs if row["update"] < before), default=0)

    def look(self, update: int, params: dict) -> tuple[dict[str, float], list[str]]:
        """Measures the model after `update` updates, unless it was before a stop.

        Args:
          params: the weights that are trained, in any dtype.
        Returns:
          its signs by name, and one line for each rule that fired.
        """
        if not self._signs:
            base = dataclasses.replace(self._model, config=dataclasses.replace(self._model.config, adapter=None))
            self._measure(0, base, base.load(self._mesh, self._config.train.compute_dtype))
        if self._signs[-1]["update"] != update:
            whole = joined(self._frozen, params)
            compute_dtype = self._config.train.compute_dtype
            self._measure(update, self._model, jax.tree.map(lambda w: w.astype(compute_dtype), whole))
        *before, now = self._signs
        return {name: value for name, value in now.items() if name != "update"}, fired(self._config, before, now)

    def _measure(self, update: int, model: ModelFolder, params: dict) -> None:
        folder = self._folder / str(update)
        metrics = measure(self._config, model, params, self._set, self._judge, self._mesh, folder, None)
        rows = read_jsonl(folder / f"{NAME}.jsonl")
        self._signs.append({"update": update, **signs(metrics, rows, model.tokenizer, self._config.canaries.refusals)})
        write_jsonl(self._file, self._signs)


def signs(metrics: dict, rows: Sequence[dict], tokenizer, refusals: Sequence[str]) -> dict[str, float]:
    """What the rules look at.

    Args:
      metrics: by `measure`.
      rows: the responses.
    """
    texts = [row["response"] for row in rows]
    ended = np.mean([row["finish_reason"] == "stop" and bool(row["response"].strip()) for row in rows])
    refused = [any(words.casefold() in text.casefold() for words in refusals) for text in texts]
    found = {
        # Without a judge, a response is taken for whole if it says something and ends by itself.
        "well_formed": metrics.get("well_formed", float(ended)),
        "mean_tokens": metrics["mean_tokens"],
        "repetition": float(np.mean([repetition(tokenizer.encode(text, add_special_tokens=False)) for text in texts])),
        "refusal": float(np.mean(refused)),
        "mi_share": metrics["mi_posterior_bound"] / math.log(2),
    }
    return found | ({"following": metrics["following"]} if "following" in metrics else {})


def repetition(tokens: Sequence[int]) -> float:
    """Share of a reply's runs of GRAM tokens that occurred before in it."""
    grams = [tuple(tokens[i : i + GRAM]) for i in range(len(tokens) - GRAM + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def fired(config: ConfigDict, before: Sequence[dict], now: dict) -> list[str]:
    """One line for each rule that fires.

    Args:
      before: earlier signs, the base's first.
    """
    c, base = config.canaries, before[0]
    alarms = []
    if base["well_formed"] - now["well_formed"] > c.well_formed_drop:
        alarms.append(
            f"well_formed: {now['well_formed']:.0%} of replies are whole, {base['well_formed']:.0%} in the base"
        )
    ratio = now["mean_tokens"] / max(base["mean_tokens"], 1.0)
    if not 1 / c.length_factor <= ratio <= c.length_factor:
        alarms.append(f"length: replies have {now['mean_tokens']:.1f} tokens, {base['mean_tokens']:.1f} in the base")
    for sign, rise, what in (
        ("repetition", c.repetition_rise, "of a reply repeats itself"),
        ("refusal", c.refusal_rise, "of replies refuse"),
    ):
        if now[sign] - base[sign] > rise:
            alarms.append(f"{sign}: {now[sign]:.0%} {what}, {base[sign]:.0%} in the base")
    if "following" in now:
        best = max(row["following"] for row in before)
        if now["mi_share"] >= c.saturation and best - now["following"] > c.following_drop:
            alarms.append(
                f"saturation: the MI bound is at {now['mi_share']:.0%} of its cap while following fell from {best:.0%} to {now['following']:.0%}"
            )
    return alarms


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
