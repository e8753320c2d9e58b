"""Every jitted stage under leak checks, which the slow tests, that pass through all of them, go without."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from support.small_model import SMALL

from sami_jax.config import defaults
from sami_jax.contrast.scoring import score, score_tokens
from sami_jax.contrast.update import check_shared_prefix, init_state, make_update
from sami_jax.data.batches import ContrastExample, Shape, pack
from sami_jax.data.packing import Sizes
from sami_jax.evaluation.measure import _estimates
from sami_jax.sampling.decoding import generate
from sami_jax.sampling.drawing import SamplingOptions

PROMPTS = [(1, 2, 3), (4, 5)]


def test_no_stage_leaks_a_tracer(small_params, mesh):
    assert jax.config.jax_check_tracer_leaks
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
