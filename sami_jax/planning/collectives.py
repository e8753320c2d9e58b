"""The collectives of a compiled program: which, how often, and how many bytes each device sends.

A loop's body stands once in a program's text: it is multiplied by the loop's trip count.
"""

import dataclasses
import math
import re

from sami_jax.planning import hlo

KINDS = ("all-gather", "reduce-scatter", "all-reduce", "all-to-all", "collective-permute")


@dataclasses.dataclass(frozen=True)
class Collective:
    kind: str  # one of KINDS
    shape: str  # of what each device has of it, "bf16[4096,14336]"
    source: str  # the operation in Python that it is for
    largest: int  # bytes of its result, once
    times: int  # it runs, in one run of the program
    sent: float  # bytes, by each device, all times together


def collectives(program: hlo.Program) -> list[Collective]:
    """What a program sends, like ones together, largest share first."""
    found: dict[tuple, Collective] = {}
    _visit(program, program.entry, 1, found)
    together: dict[tuple, Collective] = {}
    for one in found.values():
        key = (one.kind, one.shape, one.source)
        before = together.get(key)
        more = (one.times, one.sent) if before is None else (before.times + one.times, before.sent + one.sent)
        together[key] = dataclasses.replace(one, times=more[0], sent=more[1])
    return sorted(together.values(), key=lambda one: -one.sent)


def _visit(program: hlo.Program, name: str, times: int, found: dict[tuple, Collective]) -> None:
    """Adds what a computation sends when it runs `times` times."""
    instructions = program.computations.get(name, [])
    types = {instruction.name: instruction.type for instruction in instructions}
    for instruction in instructions:
        kind = instruction.kind.removesuffix("-start")
        if kind == "while":
            _visit(program, hlo.loop_parts(instruction)[1], times * program.trips(instruction), found)
        elif kind in KINDS:
            one = _one(instruction, kind, types, name)
            # On TPUs one that goes on beside other work stands in several computations, under one number; on GPUs many share a number.
            numbered = program.tiled and kind == "all-gather"
            number = re.search(r"channel_id=(\d+)", instruction.rest) if numbered else None
            key = (one.kind, number[1]) if number else (one.kind, instruction.name, name)
            found[key] = dataclasses.replace(one, times=times, sent=one.sent * times)
        else:
            for called in re.findall(r"(?:calls|to_apply|branch_computations)=\{?%?([\w.\-]+)", instruction.rest):
                _visit(program, called, times, found)


def _one(instruction: hlo.Instruction, kind: str, types: dict[str, str], computation: str) -> Collective:
    given = sum(hlo.array_bytes(types.get(name, "")) for name in instruction.operands)
    group = _group_size(instruction.rest)
    share = (group - 1) / group
    # XLA for TPUs keeps the scatter of a sum as a sum, in a computation of this name, of which each device keeps a part.
    if kind == "all-reduce" and "all-reduce-scatter" in computation:
        kind = "reduce-scatter"
    sent = {
        "all-gather": given * (group - 1),
        "reduce-scatter": given * share,
        "all-reduce": 2 * given * share,
        "all-to-all": given * share,
        "collective-permute": given,
    }[kind]
    result = given * group if kind == "all-gather" else given
    return Collective(kind, hlo.shape_name(instruction.type), instruction.source, result, 1, sent)


def _group_size(attributes: str) -> int:
    """Devices that take part in one, from any of the ways in which groups are written."""
    if lists := re.search(r"replica_groups=\{\{([\d,]*)\}", attributes):
        return len(lists[1].split(","))
    if iota := re.search(r"replica_groups=\[(\d+),(\d+)\]", attributes):
        return int(iota[2])
    if mesh := re.search(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", attributes):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", mesh[1]))
        return math.prod(int(sizes[axis]) for axis in re.findall(r"'(\w+)'", mesh[2]) if axis in sizes)
    return 1
