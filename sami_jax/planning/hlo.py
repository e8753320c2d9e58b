"""The text of a compiled program (HLO), taken apart: computations, their instructions, and how often loops run."""

import dataclasses
import math
import re

BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2, "f64": 8, "s64": 8, "u64": 8}  # else 4

_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.*?) ([\w\-]+)\((.*)$")
_ARRAY = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\]")


@dataclasses.dataclass(frozen=True)
class Instruction:
    name: str
    type: str
    kind: str
    rest: str  # operands and attributes
    root: bool

    @property
    def operands(self) -> list[str]:
        return re.findall(r"%([\w.\-]+)", self.rest.split(")")[0])

    @property
    def source(self) -> str:
        """The operation in Python that it is for."""
        found = re.search(r'op_name="([^"]*)"', self.rest)
        return found[1] if found else ""

    @property
    def constant(self) -> int:
        return int(self.rest.split(")")[0])


@dataclasses.dataclass(frozen=True)
class Program:
    computations: dict[str, list[Instruction]]
    entry: str
    tiled: bool  # layouts are in tiles: it is a TPU's

    def trips(self, loop: Instruction) -> int:
        """How often a loop runs: as the compiler noted, or as it counts from 0 to a constant by a constant step; 1 where neither
        tells."""
        if known := re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.rest):
            return int(known[1])
        condition, body = loop_parts(loop)
        instructions = {i.name: i for i in self.computations.get(condition, [])}
        compare = next((i for i in instructions.values() if i.root and "direction=LT" in i.rest), None)
        if compare is None:
            return 1
        counter, limit = map(instructions.get, compare.operands[:2])
        if counter is None or limit is None or limit.kind != "constant":
            return 1
        place = re.search(r"index=(\d+)", counter.rest)
        step = _step(self.computations.get(body, []), int(place[1])) if place else 1
        return -(-limit.constant // step)


def parse(text: str) -> Program:
    computations: dict[str, list[Instruction]] = {}
    entry = current = ""
    for line in text.splitlines():
        if header := _COMPUTATION.match(line):
            current = header[2]
            computations[current] = []
            entry = current if header[1] else entry
        elif current and (found := _INSTRUCTION.match(line)):
            root, name, type_, kind, rest = found.groups()
            computations[current].append(Instruction(name, type_, kind, rest, bool(root)))
    return Program(computations, entry, ":T(" in text)


def loop_parts(loop: Instruction) -> tuple[str, str]:
    """Names of a loop's condition and body."""
    condition, body = (re.findall(rf"{part}=%?([\w.\-]+)", loop.rest)[0] for part in ("condition", "body"))
    return condition, body


def array_bytes(type_: str) -> int:
    """Of all arrays in a type, tuples included."""
    return sum(
        BYTES.get(dtype, 4) * math.prod(int(size) for size in sizes.split(",") if size)
        for dtype, sizes in _ARRAY.findall(type_)
    )


def shape_name(type_: str) -> str:
    """A type without layouts and scalars: "bf16[4096,14336]"."""
    return "+".join(dict.fromkeys(f"{dtype}[{sizes}]" for dtype, sizes in _ARRAY.findall(type_) if sizes))


def _step(body: list[Instruction], place: int) -> int:
    """What a loop's body adds to the element `place` of what it carries."""
    by_name = {i.name: i for i in body}
    carried = next(i for i in body if i.root).operands
    after = by_name.get(carried[place]) if place < len(carried) else None
    if after is None or after.kind != "add":
        return 1
    added = map(by_name.get, after.operands)
    return next((i.constant for i in added if i is not None and i.kind == "constant"), 1)
