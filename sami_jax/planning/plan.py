"""The plan of a run on a topology: does it fit, what does it send, how long will it take."""

import dataclasses

import jax
from ml_collections import ConfigDict

from sami_jax.config import iterations
from sami_jax.contrast.update import check_microbatches, needs_base
from sami_jax.errors import UserError
from sami_jax.models.adapters import adapted
from sami_jax.models.config import ModelConfig
from sami_jax.planning import costs
from sami_jax.planning.compiling import Buffer, Compiled, Programs, bytes_on_each, largest_weights
from sami_jax.planning.costs import Texts
from sami_jax.planning.topology import Topology
from sami_jax.sharding import TENSOR_AXIS, make_mesh

# Shares of the peaks that times are estimated with. They are assumed, not measured: the first real run tells better.
FLOPS_SHARE, BANDWIDTH_SHARE, LINKS_SHARE = 0.5, 0.7, 0.4


# When each program runs; those of canaries run once more, while the state waits.
STAGES = {
    "self-check": "training",
    "microbatch": "training",
    "optimizer": "training",
    "prefill": "sampling",
    "decode": "sampling",
    "scoring": "evaluation",
    "merged": "merging",
}
ANSWERING = ("prefill", "decode", "scoring")


@dataclasses.dataclass(frozen=True)
class Phase:
    """A time of a run, by what lies in a device's memory then, bytes."""

    name: str
    resident: int  # besides what the program is given
    arguments: int
    temporaries: int  # what the program makes, results that take no argument's place included

    @property
    def peak(self) -> int:
        return self.resident + self.arguments + self.temporaries


@dataclasses.dataclass(frozen=True)
class Times:
    """Estimates, seconds."""

    update: float
    iterations: tuple[float, ...]  # sampling, updates and evaluation

    @property
    def run(self) -> float:
        return sum(self.iterations)


@dataclasses.dataclass(frozen=True)
class Plan:
    topology: Topology
    mesh: dict[str, int]
    texts: Texts
    queries: int  # of a microbatch
    microbatches: int  # of an update
    state: int  # bytes on each device: trained weights and optimizer state
    gradient: int  # bytes: their sum over microbatches
    phases: tuple[Phase, ...]
    programs: tuple[Compiled, ...]  # none where the state alone does not fit
    largest: tuple[Buffer, ...]  # that lie in memory at the fullest time
    scores: float  # bytes on each device: attention's scores in a microbatch, where no kernel spares them
    capped: bool  # attention has a soft cap, which kernels do not know
    flops: float  # of an update, in all
    least_sent: float  # bytes by each device in a microbatch, if all shared the weights, at the least
    times: Times | None

    @property
    def fullest(self) -> Phase:
        return max(self.phases, key=lambda phase: phase.peak)

    @property
    def fits(self) -> bool:
        refused = any(program.refusal for program in self.programs)
        return bool(self.programs) and not refused and self.fullest.peak <= self.topology.chip.memory

    @property
    def chip_hours(self) -> float:
        return self.times.run / 3600 * self.topology.chips if self.times else 0.0


def make_plan(config: ConfigDict, model: ModelConfig, topology: Topology, texts: Texts) -> Plan:
    """Compiles a run's programs for the topology, unless the training state alone has no room there.

    Args:
      model: the base model's.
    Raises:
      UserError: a mesh that does not use the topology's devices, or does not divide the model.
    """
    mesh = make_mesh(config.mesh.to_dict(), topology.devices)
    check_microbatches(config, mesh)
    check_attention(model, topology)
    trained = adapted(model, config.lora)
    programs = Programs(config, trained, mesh, texts)
    state = bytes_on_each(programs.state)
    gradient = bytes_on_each(programs.total())
    plan = Plan(
        topology=topology,
        mesh={axis: size for axis, size in mesh.shape.items() if size > 1},
        texts=texts,
        queries=programs.microbatch(),
        microbatches=config.train.microbatches,
        state=state,
        gradient=gradient,
        phases=(Phase("training state", 0, state + gradient, 0),),
        programs=(),
        largest=tuple(largest_weights(programs.state)),
        scores=costs.score_bytes(model, texts, programs.together(), mesh.shape[TENSOR_AXIS]),
        capped=model.attention_cap is not None,
        flops=costs.update_flops(model, texts, config.train.batch_size, _base_responses(config, texts)),
        least_sent=costs.fsdp_bytes(model, len(topology.devices) // topology.slices),
        times=None,
    )
    if state + gradient > topology.chip.memory:
        return plan
    made = [programs.check, programs.add, programs.apply, programs.prefill, programs.decode, programs.score]
    if config.lora.base:
        made.append(programs.score_merged)
    compiled = {one.name: one for one in (make() for make in made)}
    plan = dataclasses.replace(plan, phases=_phases(config, programs, compiled), programs=tuple(compiled.values()))
    program = compiled[plan.fullest.name.split(": ")[1]]
    largest = sorted([*program.largest, *plan.largest], key=lambda buffer: -buffer.bytes)
    times = _times(config, model, topology, texts, programs, compiled)
    return dataclasses.replace(plan, largest=tuple(largest[: len(plan.largest)]), times=times)


def check_attention(model: ModelConfig, topology: Topology) -> None:
    """Raises UserError where attention goes by a kernel that cannot be compiled for the topology."""
    wanted = model.attention
    if topology.gpus and wanted == "cudnn":
        raise UserError(
            "config.model.attention=cudnn: cuDNN compiles its kernels on the GPU itself; plan with xla, which needs no less memory"
        )
    if wanted == ("splash" if topology.gpus else "cudnn"):
        other = "TPUs" if topology.gpus else "NVIDIA GPUs"
        raise UserError(f"config.model.attention={wanted}: a kernel of {other}, not of {topology.name}; set it to xla")


def _base_responses(config: ConfigDict, texts: Texts) -> int:
    """Responses of each row that the base reads in an update: for the KL term its own alone."""
    return texts.count if config.objective.over_base else int(config.objective.kl_weight > 0)


def _phases(config: ConfigDict, programs: Programs, compiled: dict[str, Compiled]) -> tuple[Phase, ...]:
    state = programs.state
    frozen = bytes_on_each(programs.frozen())
    optimizer = bytes_on_each(state.opt_state)
    # The base is in memory beside the state: adapters are trained on it, or the objective compares with it.
    base = frozen or (bytes_on_each(programs.weights()) if needs_base(config) else 0)
    resident = {"self-check": optimizer + (0 if frozen else base), "microbatch": optimizer, "optimizer": base}
    phases = [_phase(f"{STAGES[name]}: {name}", resident.get(name, 0), one) for name, one in compiled.items()]
    if config.canaries.action != "off":
        # Canaries answer while the state waits; weights beside adapters are lent to them.
        held = bytes_on_each(state) + (0 if frozen else base)
        phases += [_phase(f"canaries: {name}", held, compiled[name]) for name in ANSWERING]
    return tuple(phases)


def _phase(name: str, resident: int, program: Compiled) -> Phase:
    return Phase(name, resident + program.unused, program.arguments, program.temporaries + program.outputs)


def _times(
    config: ConfigDict,
    model: ModelConfig,
    topology: Topology,
    texts: Texts,
    programs: Programs,
    compiled: dict[str, Compiled],
) -> Times:
    chip, devices = topology.chip, len(topology.devices)

    def seconds(flops: float, moved: float, program: str) -> float:
        """The slowest of computing, reading and writing memory, and sending, which go on beside one another."""
        return max(
            flops / devices / (chip.flops * FLOPS_SHARE),
            moved / (chip.bandwidth * BANDWIDTH_SHARE),
            compiled[program].sent / (topology.links * LINKS_SHARE),
        )

    weights = 2 * costs.count_weights(model).total
    tensor = programs.mesh.shape["tensor"] * programs.mesh.shape["expert"]
    queries = programs.microbatch()
    flops = costs.update_flops(model, texts, queries, _base_responses(config, texts), recomputed=True)
    moved = (7 if needs_base(config) else 6) * weights / tensor
    microbatch = seconds(flops, moved, "microbatch")
    if topology.slices > 1:  # each slice's gradients, in bfloat16, are added up over the slower network
        weights_here = sum(leaf.size for leaf in jax.tree.leaves(programs.state.params)) / (devices / topology.slices)
        microbatch += 2 * 2 * weights_here / chip.network
    change = 2 * bytes_on_each(programs.state) / (chip.bandwidth * BANDWIDTH_SHARE)
    update = config.train.microbatches * microbatch + change

    # Sampling keeps its rows full: as many steps as there are tokens in a row's share of the responses.
    group = seconds(costs.prefill_flops(model, texts.prefix) * programs.group, weights / tensor, "prefill")
    context = texts.prefix + texts.response / 2
    cache = costs.cache_bytes(model, int(context)) * programs.rows / devices
    step = seconds(costs.decode_flops(model, programs.rows, context), weights / tensor + cache, "decode")

    def answering(prompts: int) -> float:
        prompts *= 2 if config.sampling.contrast else 1
        return prompts / programs.group * group + prompts * texts.response / programs.rows * step

    evaluated = answering(config.evaluation.queries * texts.count)
    found = [
        answering(config.train.updates[n - 1] * config.train.batch_size * texts.count)
        + config.train.updates[n - 1] * update
        + evaluated
        for n in iterations(config)
    ]
    return Times(update, tuple(found))
