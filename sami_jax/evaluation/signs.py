"""The signs that canaries look at, reply by reply, and the rules that tell a collapse from chance and from success: replies that
break, swell, shrink, repeat themselves or refuse, or a mutual information that is high because constitutions leak into
replies rather than because they are followed.

The same queries are answered at each look, by the same seeds, so that a look is compared with the base's reply by reply. A rule
fires on a change that matters, by its field in the config, and that chance does not explain.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import scipy.special
from ml_collections import ConfigDict

from sami_jax.config import iterations
from sami_jax.data.jsonl import read_json, write_json
from sami_jax.evaluation.echo import echoes

GRAM = 4  # tokens; a reply that repeats itself repeats runs of this length
OPENING = 80  # characters of a reply in which it refuses, if it does
RULES = 7  # each may fire by chance; length counts twice


@dataclasses.dataclass(frozen=True)
class Signs:
    """One look.

    Attributes:
      update: after which it was taken; 0 is the base.
      mi_share: the posterior bound on the mutual information, as a share of its cap.
      replies: by sign, [Q, 2] values: of each query the reply under principles, and the one under their antitheses.
        well_formed, refusal, echo, following: 0 or 1, following also between; tokens; repetition: a share; kept_logprob: mean log-likelihood
        per token, nats, of the base's reply under this model.
    """

    update: int
    mi_share: float
    replies: Mapping[str, np.ndarray]

    @classmethod
    def of(
        cls,
        update: int,
        metrics: Mapping,
        rows: Sequence[dict],
        kept: np.ndarray,
        judged: tuple[Sequence[float], Sequence[bool]] | None,
        tokenizer,
        refusals: Sequence[str],
    ) -> "Signs":
        """
        Args:
          metrics: by `measure`.
          rows: the responses, two a query.
          kept: [Q, 2], kept_logprob.
          judged: following, NaN where there is no verdict, and whether a reply is whole: by `judged_replies`. Without a judge, a response is taken for whole if it says something and ends by itself.
          refusals: texts that mark a refusal.
        """
        texts = [row["response"] for row in rows]
        ended = [row["finish_reason"] == "stop" and bool(row["response"].strip()) for row in rows]
        found = {
            "well_formed": judged[1] if judged else ended,
            "tokens": [row["tokens"] for row in rows],
            "repetition": [repetition(tokenizer.encode(text, add_special_tokens=False)) for text in texts],
            "echo": [echoes(row["response"], row["constitution"]) for row in rows],
            "refusal": [refuses(text, refusals) for text in texts],
            "kept_logprob": kept,
        }
        if judged and not np.isnan(judged[0]).all():
            found["following"] = judged[0]
        # Rounded as they are written: a look that is read back is the same.
        values = {name: np.asarray(each, float).reshape(-1, 2).round(6) for name, each in found.items()}
        return cls(update, metrics["mi_posterior_bound"] / math.log(2), values)

    @property
    def means(self) -> dict[str, float]:
        """By name, as canaries.jsonl, the metrics and the report have them."""
        names = {"tokens": "mean_tokens"}
        found = {names.get(name, name): float(np.nanmean(values)) for name, values in self.replies.items()}
        return found | {"mi_share": self.mi_share}

    def write(self, file: Path) -> None:
        replies = {
            name: [[None if math.isnan(value) else value for value in row] for row in values.tolist()]
            for name, values in self.replies.items()
        }
        write_json(file, dataclasses.asdict(self) | {"replies": replies})

    @classmethod
    def read(cls, file: Path) -> "Signs":
        content = read_json(file, "remove its folder to have it measured again")
        replies = {name: np.asarray(values, float) for name, values in content["replies"].items()}
        if "echo" not in replies:  # of an earlier version, which did not look for them
            replies["echo"] = np.zeros_like(replies["refusal"])
        return cls(content["update"], content["mi_share"], replies)


def repetition(tokens: Sequence[int] | Sequence[str]) -> float:
    """Share of a reply's runs of GRAM tokens that occurred before in it."""
    grams = [tuple(tokens[i : i + GRAM]) for i in range(len(tokens) - GRAM + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def refuses(text: str, refusals: Sequence[str]) -> bool:
    """Whether a reply begins by refusing. Further on, the words may be anybody's, as in a story or an advice."""
    opening = _plain(text.strip()[:OPENING])[:OPENING]
    return any(map(opening.__contains__, _plain_refusals(tuple(refusals))))


@functools.lru_cache(maxsize=8)
def _plain_refusals(refusals: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(map(_plain, refusals))


def _plain(text: str) -> str:
    return text.casefold().replace("\u2019", "'")


def fired(config: ConfigDict, before: Sequence[Signs], now: Signs) -> list[str]:
    """One line for each rule that fires; by chance alone, in a share `canaries.false_alarms` of runs at most.

    Args:
      before: earlier looks, the base's first.
    """
    c, base = config.canaries, before[0]
    chance = c.false_alarms / (RULES * looks(config))
    then, means = base.means, now.means

    def rises(sign: str, bound: float) -> bool:
        return _certain(now.replies[sign] - base.replies[sign], bound, chance)

    alarms = []
    if _certain(base.replies["well_formed"] - now.replies["well_formed"], c.well_formed_drop, chance):
        alarms.append(
            f"well_formed: {means['well_formed']:.0%} of replies are whole, {then['well_formed']:.0%} in the base"
        )
    ratio = means["mean_tokens"] / max(then["mean_tokens"], 1.0)
    change = now.replies["tokens"] - base.replies["tokens"]
    if (ratio > c.length_factor and _certain(change, 0.0, chance)) or (
        ratio < 1 / c.length_factor and _certain(-change, 0.0, chance)
    ):
        alarms.append(f"length: replies have {means['mean_tokens']:.1f} tokens, {then['mean_tokens']:.1f} in the base")
    if rises("repetition", c.repetition_rise):
        alarms.append(
            f"repetition: {means['repetition']:.0%} of a reply repeats itself, {then['repetition']:.0%} in the base"
        )
    if rises("echo", c.echo_rise):
        alarms.append(f"echo: {means['echo']:.0%} of replies repeat their constitution, {then['echo']:.0%} in the base")
    # A principle may ask for refusals, or its antithesis: a collapse refuses whatever is asked for.
    refusals = now.replies["refusal"] - base.replies["refusal"]
    if all(_certain(side[:, None], c.refusal_rise, chance) for side in refusals.T):
        alarms.append(
            f"refusal: {means['refusal']:.0%} of replies refuse, under principles and antitheses alike, {then['refusal']:.0%} in the base"
        )
    if now.mi_share >= c.saturation and (wrong := _wrong(config, before, now, chance)):
        alarms.append(f"saturation: the MI bound is at {now.mi_share:.0%} of its cap while {wrong}")
    return alarms


def _wrong(config: ConfigDict, before: Sequence[Signs], now: Signs, chance: float) -> str:
    """What went wrong while the bound rose: replies repeat their constitutions, or a judge's verdicts fell, or, where there is no
    judge, the base's own replies became unlikely; "" where nothing did."""
    echo = now.replies["echo"] - before[0].replies["echo"]
    if _certain(echo, config.canaries.echo_rise / 2, chance):
        return (
            f"replies that repeat their constitution rose from {before[0].means['echo']:.0%} to {now.means['echo']:.0%}"
        )
    judged = all("following" in look.replies for look in (*before, now))
    sign = "following" if judged else "kept_logprob"
    best = max(before, key=lambda look: np.nanmean(look.replies[sign]))
    was, is_now = best.means[sign], now.means[sign]
    if sign == "following":
        bound, words = config.canaries.following_drop, f"following fell from {was:.0%} to {is_now:.0%}"
    else:
        bound = config.canaries.logprob_drop
        words = f"the base's own replies fell from {was:.2f} to {is_now:.2f} nats a token"
    fall = best.replies[sign] - now.replies[sign]
    return words if _certain(fall, bound, chance / len(before)) else ""  # the best of so many is good by chance, too


def _certain(differences: np.ndarray, bound: float, chance: float) -> bool:
    """Whether the mean of differences [Q, ...] is above a bound, and above 0 by more than chance explains: by Student's t over
    queries, whose replies belong together. Replies without a verdict are left out."""
    by_query = np.ma.masked_invalid(differences.reshape(len(differences), -1)).mean(axis=1).compressed()
    if not len(by_query):
        return False
    mean, count = by_query.mean(), len(by_query)
    if mean <= bound:
        return False
    if count == 1:
        return True
    return bool(mean > scipy.special.stdtrit(count - 1, 1 - chance) * by_query.std(ddof=1) / math.sqrt(count))


def looks(config: ConfigDict) -> int:
    """In a whole run."""
    every = config.train.checkpoint_every or 1  # where nobody has chosen, as many as can be
    return sum(math.ceil(config.train.updates[n - 1] / every) for n in iterations(config))
