"""What is said before a run begins."""

from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
from support.small_model import SMALL

from sami_jax.config import defaults
from sami_jax.models.adapters import adapted
from sami_jax.models.published import SHAPES
from sami_jax.planning.topology import GIB
from sami_jax.sharding import MESH_AXES
from sami_jax.stages.bills import attention_bill, decoding_bill
from sami_jax.stages.preparation import _choose_checkpoints, recorded


@pytest.mark.parametrize(
    ("changes", "every", "said"),
    [
        (
            {},
            3,
            "  a checkpoint every 3 updates, and at the end of each iteration: one takes 81 GiB (config.train.checkpoint_every)\n",
        ),
        ({"lora.rank": 16}, 1, ""),  # of adapters
        ({"train.checkpoint_every": 2}, 2, ""),
    ],
)
def test_checkpoints_are_as_seldom_as_they_are_large(changes, every, said, capsys):
    config = defaults()
    config.update_from_flattened_dict(changes)
    _choose_checkpoints(config, adapted(SHAPES["mistral-7b"], config.lora))
    assert recorded(config)["train"]["checkpoint_every"] == every and capsys.readouterr().err == said
    config.train.checkpoint_every = 0
    _choose_checkpoints(config, SMALL)
    assert config.train.checkpoint_every == 1


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ((1, 1, 1, 1), None),
        ((8, 1, 1, 1), None),
        ((1, 1, 1, 8), None),
        ((1, 8, 1, 1), " 11.6 GiB"),
        ((1, 4, 1, 2), " 5.0 GiB"),
    ],
)
def test_what_a_token_costs_on_a_split_mesh_is_said(sizes, said):
    """11.59 GiB are what a compiler for GPUs makes of Mistral-7B on eight."""
    config = defaults()
    config.train.compute_dtype = "bfloat16"
    mesh = Mock(shape=dict(zip(MESH_AXES, sizes, strict=True)))
    bill = decoding_bill(config, SHAPES["mistral-7b"], mesh)
    assert said in bill if said else bill is None
    assert decoding_bill(config, SMALL, mesh) is None


LONG = 31_000  # tokens of a prompt


@pytest.mark.parametrize(
    ("platform", "changes", "said"),
    [
        (
            "gpu",
            {},
            "take up to 134.8 of a device's 80.0 GiB in training; 'cudnn' holds none; else more config.train.microbatches, or",
        ),
        (
            "tpu",
            {},
            "take up to 134.8 of a device's 80.0 GiB in training; 'splash' holds none; else more config.train.microbatches, or",
        ),
        ("gpu", {"train.constitutions_at_once": 1}, "take up to 67.4 of"),
        ("gpu", {"train.microbatches": 8}, "take up to 269.5 of"),
        ("gpu", {"prompt.max_tokens": 1024}, None),
        ("cpu", {}, "GiB in training; more config.train.microbatches, or"),
    ],
)
def test_the_bill_of_long_rows_is_named(platform, changes, said):
    config = defaults()
    config.update_from_flattened_dict({"prompt.max_tokens": LONG} | changes)
    devices = np.full((1, 8, 1, 1), SimpleNamespace(platform=platform), object)
    mesh = Mock(devices=devices, shape=dict(zip(MESH_AXES, devices.shape, strict=True)))
    bill = attention_bill(config, SHAPES["mistral-7b"], mesh, 80 * GIB)
    assert said in bill if said else bill is None
    assert attention_bill(config, SHAPES["mistral-7b"], mesh, None) is None
