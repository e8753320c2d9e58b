"""Every program, and every jitted stage, under leak checks. All other tests go without: under these checks nothing that was traced is kept,
which costs a third of their time."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.small_model import SMALL

from sami_jax.config import defaults
from sami_jax.contrast.scoring import score, score_tokens
from sami_jax.contrast.update import check_shared_prefix, init_state, make_update
from sami_jax.data.batches import ContrastExample, Shape, pack
from sami_jax.data.packing import Sizes
from sami_jax.evaluation.measure import _estimates
from sami_jax.models.config import LowRank
from sami_jax.planning.compiling import Programs
from sami_jax.planning.costs import Texts
from sami_jax.sampling.decoding import generate
from sami_jax.sampling.drawing import SamplingOptions

PROMPTS = [(1, 2, 3), (4, 5)]
UPDATE = ("add", "apply")
PROGRAMS = (*UPDATE, "prefill", "decode", "check", "score")
ADAPTED = dataclasses.replace(SMALL, adapter=LowRank(rank=2, alpha=4.0, targets=("query", "down")))
LOCAL = dataclasses.replace(SMALL, local=(True, False), query_norm="head", attention_cap=50.0, logit_cap=30.0)
# What changes a program: the model's parts, and settings by their names in the config. Mixtures of experts are left out: jax 0.10 takes the
# gradient of psum_scatter(all_gather(x)) in a shard_map for a leak, whatever is around it.
VARIANTS = {
    "plain": (SMALL, {"train.microbatches": 1}, PROGRAMS),
    "local layers, norms, caps": (LOCAL, {"train.remat": "full"}, PROGRAMS),
    "adapters": (ADAPTED, {"train.remat": "full"}, PROGRAMS),
    "contrasted": (SMALL, {"sampling.contrast": 0.5}, ("decode",)),
    "in turn, over the base": (
        SMALL,
        {"train.remat": "full", "train.constitutions_at_once": 1, "objective.over_base": True},
        UPDATE,
    ),
    "matmuls kept, KL, adafactor": (
        SMALL,
        {"train.remat": "dots", "objective.kl_weight": 0.1, "optim.name": "adafactor"},
        UPDATE,
    ),
    "bfloat16, stochastic, SFT, squared": (
        SMALL,
        {
            "train.param_dtype": "bfloat16",
            "train.compute_dtype": "bfloat16",
            "train.rounding": "stochastic",
            "objective.sft_weight": 0.1,
            "objective.loss": "squared",
        },
        UPDATE,
    ),
}


@pytest.fixture(autouse=True)
def leak_checks():
    with jax.check_tracer_leaks():
        yield


class Traced(Programs):
    """Traced, and no more."""

    def _compile(self, name: str, function, *arguments, **static):
        with jax.set_mesh(self.mesh):
            return function.trace(*arguments, **static)


@pytest.mark.parametrize("variant", VARIANTS)
def test_no_program_leaks_a_tracer(variant, mesh):
    model, settings, traced = VARIANTS[variant]
    config = defaults()
    config.train.batch_size, config.train.microbatches = 4, 2
    config.sampling.batch_size = config.evaluation.batch_size = 2
    config.update_from_flattened_dict(settings)
    programs = Traced(config, model, mesh, Texts(12, 4, 2))
    assert all(getattr(programs, name)() for name in traced)


def test_a_leak_is_seen():
    kept = []

    @jax.jit
    def leaking(x):
        kept.append(x * 2)
        return x

    with pytest.raises(Exception, match="Leaked trace"):
        leaking.trace(jnp.ones(2))


def test_no_stage_leaks_a_tracer(small_params, mesh):
    said = []
    options = SamplingOptions(temperature=1.0, top_p=0.9, max_new_tokens=4)
    sampling = dict(end_tokens=(0,), decode=said.append, mesh=mesh, batch_size=2)
    list(generate(small_params, SMALL, PROMPTS, [0, 1], options, **sampling))
    example = ContrastExample(tuple(PROMPTS), tuple((*ids, 7) for ids in said[-2:]))
    [(_, s)] = score(small_params, SMALL, [example], mesh, 1)
    _estimates(s[None], np.array([[len(response) for response in example.responses]]), "mean")
    list(score_tokens(small_params, SMALL, [dataclasses.replace(example, responses=example.responses[:1])], mesh, 1))

    config = defaults()
    config.objective.kl_weight, config.train.remat = 0.1, "dots"
    batch = pack([example], Shape(32, Sizes(8, 8, 16)))
    params = jax.tree.map(jnp.copy, small_params)  # an update takes the memory of what it is given
    with jax.set_mesh(mesh):
        check_shared_prefix(params, SMALL, config, [example], mesh)
        state = init_state(params, SMALL, config, mesh)
        make_update(SMALL, config, mesh)(state, [batch], {}, small_params)
