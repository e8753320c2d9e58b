"""A plan as people read it, and as programs do."""

import dataclasses

from rich import box
from rich.table import Table

from sami_jax.ground.terminal import show, show_table
from sami_jax.planning.costs import LARGE_SCORES
from sami_jax.planning.plan import Plan, Times
from sami_jax.planning.suggest import Suggestion
from sami_jax.planning.topology import GIB
from sami_jax.sharding import EXPERT_AXIS, FSDP_AXIS

SHOWN = 8  # collectives


def show_plan(plan: Plan, price: float | None) -> None:
    """Prints a plan.

    Args:
      price: of a chip (a GPU) for an hour, in any currency.
    """
    topology, texts = plan.topology, plan.texts
    mesh = ", ".join(f"{axis}={size}" for axis, size in plan.mesh.items()) or "one device"
    share = f", {topology.fraction:g} of what it has" if topology.fraction is not None else ""
    show(
        f"{topology.name}: {topology.chips} x {topology.one} of {topology.chip.memory / GIB:.2f} GiB a device{share}; mesh {mesh}"
    )
    show(
        f"An update of {plan.microbatches} microbatches of {plan.queries} queries; a query: {texts.count} prompts of "
        f"{texts.prefix} tokens, {texts.count} responses of {texts.response}"
    )
    show_table(_memory(plan))
    verdict, fullest = ("fits", "bold green") if plan.fits else ("does NOT fit", "bold red"), plan.fullest
    left = topology.chip.memory - fullest.peak
    show(
        f"{verdict[0]}: at the fullest ({fullest.name}) {fullest.peak / GIB:.2f} of {topology.chip.memory / GIB:.2f} GiB, "
        f"{abs(left) / GIB:.2f} GiB {'to spare' if left >= 0 else 'too much'}",
        style=verdict[1],
    )
    if plan.scores > LARGE_SCORES * topology.chip.memory:
        kernel = "cudnn" if topology.gpus else "splash"
        other = "no kernel knows this model's soft cap" if plan.capped else f"'{kernel}' holds none"
        show(
            f"config.model.attention='xla' holds {plan.scores / GIB:.2f} GiB of attention's scores in a microbatch; {other}"
        )
    if not plan.fits:
        show("largest buffers then, on each device:")
        for buffer in plan.largest:
            show(f"  {buffer.bytes / GIB:6.2f} GiB  {buffer.shape}  {buffer.source}")
    if plan.programs:
        _show_sent(plan)
        _show_decoding(plan)
    if plan.times:
        _show_times(plan, plan.times, price)


def show_suggestion(suggestion: Suggestion | None) -> None:
    if suggestion is None:
        show("Nothing found that fits; try a larger topology.")
        return
    fullest = suggestion.plan.fullest
    show(
        f"This fits, {fullest.peak / GIB:.2f} of {suggestion.topology.chip.memory / GIB:.2f} GiB, compiled: "
        + " ".join(suggestion.arguments())
    )


def as_json(plan: Plan, suggestion: Suggestion | None, price: float | None) -> dict:
    """All that is known, sizes in bytes, times in seconds."""
    return {
        "topology": plan.topology.name,
        "chips": plan.topology.chips,
        "memory": plan.topology.chip.memory,
        "mesh": plan.mesh,
        "queries_a_microbatch": plan.queries,
        "microbatches": plan.microbatches,
        "tokens": plan.texts._asdict(),
        "fits": plan.fits,
        "fullest": {"phase": plan.fullest.name, "bytes": plan.fullest.peak},
        "state": plan.state,
        "gradient": plan.gradient,
        "attention_scores": plan.scores,
        "phases": [dataclasses.asdict(phase) | {"peak": phase.peak} for phase in plan.phases],
        "programs": [dataclasses.asdict(program) for program in plan.programs],
        "largest": [dataclasses.asdict(buffer) for buffer in plan.largest],
        "update_flops": plan.flops,
        "fsdp_minimum": plan.least_sent,
        "times": plan.times and dataclasses.asdict(plan.times) | {"run": plan.times.run},
        "chip_hours": plan.chip_hours,
        "cost": None if price is None else price * plan.chip_hours,
        "suggestion": suggestion and suggestion.arguments(),
    }


def _memory(plan: Plan) -> Table:
    table = Table(title="Memory of each device, GiB", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("when", no_wrap=True)
    for column in ("besides", "arguments", "temporaries", "together"):
        table.add_column(column, justify="right", no_wrap=True)
    for phase in plan.phases:
        sizes = (phase.resident, phase.arguments, phase.temporaries, phase.peak)
        table.add_row(phase.name, *(f"{size / GIB:.2f}" for size in sizes))
    return table


def _show_sent(plan: Plan) -> None:
    (program,) = (one for one in plan.programs if one.name == "microbatch")
    if not program.collectives:
        return
    table = Table(title="Sent by each device in a microbatch, GiB", title_justify="left", box=box.SIMPLE_HEAD)
    for column in ("what", "of", "times", "sent"):
        table.add_column(column, justify="left" if column in ("what", "of") else "right", no_wrap=column != "of")
    for one in program.collectives[:SHOWN]:
        table.add_row(one.kind, one.shape, str(one.times), f"{one.sent / GIB:.2f}")
    rest = sum(one.sent for one in program.collectives[SHOWN:])
    table.add_row(f"{max(len(program.collectives) - SHOWN, 0)} others", "", "", f"{rest / GIB:.2f}")
    show_table(table)
    show(
        f"together {program.sent / GIB:.2f} GiB, {program.sent / plan.least_sent:.2f} times the least that fully sharded weights "
        f"need; the largest result is {max(one.largest for one in program.collectives) / GIB:.2f} GiB"
    )


def _show_decoding(plan: Plan) -> None:
    (program,) = (one for one in plan.programs if one.name == "decode")
    split = [f"mesh.{axis}={plan.mesh[axis]}" for axis in (FSDP_AXIS, EXPERT_AXIS) if axis in plan.mesh]
    if split:
        show(
            f"decoding gathers the weights that {' and '.join(split)} split at every token: {program.sent / GIB:.2f} GiB sent by each device; "
            "what is split by mesh.tensor is not gathered"
        )


def _show_times(plan: Plan, times: Times, price: float | None) -> None:
    one = plan.topology.one
    each = ", ".join(f"{seconds / 60:.1f}" for seconds in times.iterations)
    show(
        f"An update: {plan.flops / 1e15:.2f} PFLOP. Estimated, at assumed shares of the peaks: {times.update:.0f} s an update, "
        f"{each} minutes an iteration; {plan.chip_hours:.1f} {one}-hours a run"
        + ("" if price is None else f", {price * plan.chip_hours:,.2f} at {price:g} a {one}-hour")
    )
    compiled = ", ".join(f"{program.name} {program.seconds:.0f} s" for program in plan.programs)
    show(f"Compiled here: {compiled}")
    if plan.topology.gpus:
        show(
            "Compiled without a GPU, which chooses some of its kernels as it runs: memory is known to about 2 GiB, and no time is promised"
        )
