"""What would fit: meshes for a topology, leaner training, larger topologies, each tried by compiling."""

import copy
import dataclasses
import itertools
from collections.abc import Iterator, Mapping

from ml_collections import ConfigDict

from sami_jax.errors import UserError
from sami_jax.kernels.attention import LANES
from sami_jax.models.config import ModelConfig
from sami_jax.planning import costs
from sami_jax.planning.costs import Texts
from sami_jax.planning.plan import Plan, make_plan
from sami_jax.planning.topology import LARGER, MEMORY_FRACTION, Topology, open_topology
from sami_jax.sharding import MESH_AXES

TRIES = 4  # candidates compiled before giving up
LEANER = (
    {},
    {"optim.moment_dtype": "bfloat16"},
    {"optim.name": "adafactor"},
    {"lora.rank": 16},
    {"lora.rank": 16, "lora.base": "int8"},
    {"lora.rank": 16, "lora.base": "nf4"},
)


@dataclasses.dataclass(frozen=True)
class Suggestion:
    changes: Mapping[str, object]  # config fields
    topology: Topology
    plan: Plan  # which fits

    def arguments(self) -> list[str]:
        """What to write on the command line."""
        changes = [f"--config.{field}={value}" for field, value in self.changes.items()]
        fraction = self.topology.fraction
        own = [f"--memory_fraction={fraction:g}"] if fraction not in (None, MEMORY_FRACTION) else []
        return [f"--topology={self.topology.name}", *own, *changes]


def best_mesh(config: ConfigDict, model: ModelConfig, topology: Topology, texts: Texts) -> Suggestion | None:
    """The mesh with the shortest estimated run, of those that are predicted to fit best."""
    candidates = []
    for mesh in _meshes(model, topology):
        changes = mesh | _one_query_each(config, mesh)
        changed = _changed(config, changes)
        peak = predicted_peak(changed, model, topology, texts)
        candidates.append((peak > topology.chip.memory, mesh["mesh.tensor"] * mesh["mesh.expert"], peak, changes))
    candidates.sort(key=lambda candidate: candidate[:3])
    tried = (_try(config, model, topology, texts, changes) for *_, changes in candidates[:TRIES])
    fitting = [(found.plan.times.run, found) for found in tried if found and found.plan.fits and found.plan.times]
    return min(fitting, key=lambda one: one[0])[1] if fitting else None


def what_fits(config: ConfigDict, model: ModelConfig, topology: Topology, texts: Texts) -> Suggestion | None:
    """The first of a row of changes that fits: leaner training here, then larger topologies."""
    tries = 0
    for larger, leaner in itertools.product(_with_larger(topology), LEANER):
        for mesh in sorted(_meshes(model, larger), key=lambda mesh: mesh["mesh.tensor"]):
            changes = mesh | _one_query_each(config, mesh) | _kernel(config, model, larger) | leaner
            if "lora.base" in leaner and config.train.remat == "none":
                changes |= {"train.remat": "dots"}  # what else a quantized base is refused with
            if predicted_peak(_changed(config, changes), model, larger, texts) > larger.chip.memory:
                continue
            found = _try(config, model, larger, texts, changes)
            if found and found.plan.fits:
                return found
            tries += 1
            if tries == TRIES:
                return None
            break
    return None


def predicted_peak(config: ConfigDict, model: ModelConfig, topology: Topology, texts: Texts) -> float:
    """Bytes on each device, roughly, without compiling: to choose what is worth compiling."""
    weights = costs.count_weights(model)
    devices = len(topology.devices) // topology.slices
    tensor, expert = config.mesh.tensor, config.mesh.expert
    lora = config.lora.rank > 0
    moments = {"adamw": 8, "rmsprop": 4, "lion": 4, "adafactor": 0.1}[config.optim.name]
    if config.optim.moment_dtype == "bfloat16":
        moments /= 2
    master = 4 if config.train.param_dtype == "float32" else 2
    held = {"": 2.0, "bfloat16": 2.0, "float32": 4.0, "int8": 1.03, "nf4": 0.53}[config.lora.base]
    state = held + 0.1 if lora else master + moments + 4  # bytes a weight: frozen, or masters, moments and gradient
    rows = config.train.batch_size / config.train.microbatches / (len(topology.devices) / tensor) * texts.count
    tokens = rows * (texts.prefix + texts.count * texts.response)
    layer = 2 * (weights.total - 2 * weights.unembedding) / model.n_layers / tensor / expert
    kept = 2 * tokens * model.d_model * model.n_layers
    within = 16 * tokens * model.d_ff / tensor + 2 * tokens * 10 * model.d_model
    training = state * weights.total / devices + kept + within + 1.5 * layer + 3 * weights.unembedding / tensor
    positions = texts.prefix + config.sampling.max_new_tokens
    cache = config.sampling.batch_size * costs.cache_bytes(model, positions) / len(topology.devices)
    sampling = held * weights.total / devices + 1.2 * cache + 2 * layer
    waiting = 0 if config.canaries.action == "off" else (state - (held if lora else 4)) * weights.total / devices
    return max(training, sampling + waiting)


def _meshes(model: ModelConfig, topology: Topology) -> Iterator[dict[str, int]]:
    devices = len(topology.devices) // topology.slices
    for tensor in (1, 2, 4, 8):
        for expert in (1, 2, 4, 8):
            fits_model = model.n_kv_heads % tensor == 0 and (expert == 1 or (model.n_experts or 1) % expert == 0)
            fsdp, rest = divmod(devices, tensor * expert)
            if fits_model and fsdp and not rest and model.d_model % (fsdp * expert) == 0:
                sizes = {"data": topology.slices, "fsdp": fsdp, "expert": expert, "tensor": tensor}
                yield {f"mesh.{axis}": sizes[axis] for axis in MESH_AXES}


def _one_query_each(config: ConfigDict, mesh: dict[str, int]) -> dict[str, int]:
    """As many microbatches as leave one query to each share of a batch."""
    shares = mesh["mesh.data"] * mesh["mesh.fsdp"] * mesh["mesh.expert"]
    return {"train.microbatches": max(config.train.batch_size // shares, 1)}


def _kernel(config: ConfigDict, model: ModelConfig, topology: Topology) -> dict[str, str]:
    able = not topology.gpus and model.head_dim % LANES == 0 and not model.attention_cap
    return {"model.attention": "splash"} if able and config.model.attention == "xla" else {}


def _with_larger(topology: Topology) -> Iterator[Topology]:
    yield topology
    kind = topology.name.partition(":")[0]
    for shape in LARGER[kind]:
        larger = open_topology(f"{kind}:{shape}", topology.fraction)
        if len(larger.devices) > len(topology.devices):
            yield larger


def _changed(config: ConfigDict, changes: Mapping[str, object]) -> ConfigDict:
    changed = copy.deepcopy(config)
    changed.update_from_flattened_dict(changes)
    return changed


def _try(
    config: ConfigDict, model: ModelConfig, topology: Topology, texts: Texts, changes: Mapping[str, object]
) -> Suggestion | None:
    changed = _changed(config, changes)
    model = dataclasses.replace(model, attention=changed.model.attention)
    try:
        plan = make_plan(changed, model, topology, texts)
    except UserError:  # a mesh that this model cannot be split over
        return None
    new = {
        field: value
        for field, value in changes.items()
        if config.to_dict()[field.split(".")[0]][field.split(".")[1]] != value
    }
    return Suggestion(new, topology, plan)
