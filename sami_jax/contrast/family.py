"""The family of objectives: rows of settings of one critic, X = beta (S - R), and nothing else (docs/method.md).

What the fields mean stands in config/settings.py. Every row is for any number of constitutions C; names are those of the
methods that it becomes for C = 2.
"""

from typing import NamedTuple


class Member(NamedTuple):
    """The fields of `config.objective` that a name sets."""

    normalize: str = "mean"
    beta: float = 1.0
    over_base: bool = False
    row_weight: float = 0.5
    column_weight: float = 0.5
    squared: bool = False
    margin: float = 0.0
    sft_weight: float = 0.0
    bare: bool = False


FAMILY = {
    # SAMI (arXiv 2404.14313), as its authors' code computes it.
    "sami": Member(),
    # The same with the base as reference.
    "sami-base": Member("sum", 0.1, over_base=True),
    # DPO (arXiv 2305.18290) between responses under one constitution, as RLCD (arXiv 2307.12950) pairs them.
    "dpo": Member("sum", 0.1, over_base=True, row_weight=1.0, column_weight=0.0),
    # DPO between constitutions of one response: the prompt contrast of MIPO, also called reverse preferences.
    "mipo": Member("sum", 0.1, over_base=True, row_weight=0.0, column_weight=1.0),
    # SimPO (arXiv 2405.14734): beta 2 and a margin of half of it, as its authors advise for base models.
    "simpo": Member("mean", 2.0, row_weight=1.0, column_weight=0.0, margin=1.0),
    # IPO (arXiv 2310.12036), over means as TRL has it; beta is the paper's tau.
    "ipo": Member("mean", 0.1, over_base=True, row_weight=1.0, column_weight=0.0, squared=True),
    # Supervised finetuning on own responses under their own constitutions.
    "sft": Member(row_weight=0.0, column_weight=0.0, sft_weight=1.0),
    # Context distillation (arXiv 2112.00861): the same on responses under principles alone, with the constitution taken out of the prompt.
    "distill": Member(row_weight=0.0, column_weight=0.0, sft_weight=1.0, bare=True),
}
