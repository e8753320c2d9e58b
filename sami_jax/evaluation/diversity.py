"""How much replies to one prompt differ: signs of a model that has come to say one thing."""

import math
from collections import Counter
from collections.abc import Hashable, Sequence

Reply = Sequence[Hashable]  # tokens, or words


def distinct(replies: Sequence[Reply], n: int = 2) -> float:
    """distinct-n (Li et al. 2016, arXiv 1510.03055): share of runs of n tokens, among those of all replies, that are different
    ones; 0 where there is no run."""
    runs = _runs(replies, n)
    return len(runs) / runs.total() if runs else 0.0


def entropy(replies: Sequence[Reply], n: int = 2) -> float:
    """Ent-n (Zhang et al. 2018, arXiv 1809.05972): entropy, nats, of which run of n tokens stands at a place drawn from all
    replies; 0 where there is no run."""
    runs = _runs(replies, n)
    return sum(-count / runs.total() * math.log(count / runs.total()) for count in runs.values())


def _runs(replies: Sequence[Reply], n: int) -> Counter:
    return Counter(tuple(reply[i : i + n]) for reply in replies for i in range(len(reply) - n + 1))
