"""What a run costs that another config would not, said before it begins."""

import jax
from ml_collections import ConfigDict

from sami_jax.ground.terminal import say
from sami_jax.models.config import ModelConfig
from sami_jax.planning import costs
from sami_jax.planning.costs import Texts
from sami_jax.planning.topology import GIB
from sami_jax.sharding import TENSOR_AXIS, batch_shards, weight_shards

LARGE_GATHERING = GIB / 4  # bytes a token that are worth a line


def say_bills(config: ConfigDict, model: ModelConfig, mesh: jax.sharding.Mesh) -> None:
    memory = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")
    for bill in (attention_bill(config, model, mesh, memory), decoding_bill(config, model, mesh)):
        if bill:
            say(f"WARNING: {bill}")


def attention_bill(config: ConfigDict, model: ModelConfig, mesh: jax.sharding.Mesh, memory: int | None) -> str | None:
    """What XLA's attention takes of a device's memory in the longest microbatch, and what takes less; None where it is little.

    Args:
      memory: of a device, bytes; None where nobody knows.
    """
    texts = Texts(config.prompt.max_tokens, config.sampling.max_new_tokens, config.constitutions.count)
    at_once = config.train.constitutions_at_once or texts.count
    rows = config.train.batch_size / config.train.microbatches * at_once / batch_shards(mesh)
    scores = costs.score_bytes(model, texts, rows, mesh.shape[TENSOR_AXIS])
    if memory is None or scores <= costs.LARGE_SCORES * memory:
        return None
    kernels = {} if model.attention_cap else {"gpu": "'cudnn'", "tpu": "'splash'"}
    kernel = kernels.get(mesh.devices.flat[0].platform)
    leaner = "more config.train.microbatches, or fewer config.train.constitutions_at_once, take less"
    return (
        f"config.model.attention='xla': scores of attention take up to {scores / GIB:.1f} of a device's {memory / GIB:.1f} GiB in training; "
        + (f"{kernel} holds none; else {leaner}" if kernel else leaner)
    )


def decoding_bill(config: ConfigDict, model: ModelConfig, mesh: jax.sharding.Mesh) -> str | None:
    """What a token costs where weights are gathered for it, and what costs less; None where it is little."""
    itemsize = jax.numpy.dtype(config.train.compute_dtype).itemsize
    sent = costs.gathered_bytes(model, itemsize, weight_shards(mesh), mesh.shape[TENSOR_AXIS])
    if sent < LARGE_GATHERING:
        return None
    return (
        f"sampling gathers the weights of config.mesh at every token, {sent / GIB:.1f} GiB to each device; what is split by mesh.tensor in "
        "place of mesh.fsdp is not gathered (`sami plan` tells what each mesh sends)"
    )
