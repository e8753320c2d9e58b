"""Plans of a small model for a TPU topology, really compiled."""

import copy
import dataclasses
import json

import jax
import pytest

from sami_jax.cli import main
from sami_jax.config import defaults
from sami_jax.errors import UserError
from sami_jax.models.adapters import adapted
from sami_jax.models.config import ModelConfig
from sami_jax.models.published import SHAPES
from sami_jax.planning.compiling import Programs, bytes_on_each
from sami_jax.planning.costs import Texts
from sami_jax.planning.plan import make_plan
from sami_jax.planning.show import as_json
from sami_jax.planning.suggest import best_mesh, predicted_peak, what_fits
from sami_jax.planning.topology import CHIPS, open_topology
from sami_jax.sharding import make_mesh

MODEL = ModelConfig(
    family="llama",
    vocab_size=512,
    d_model=256,
    n_layers=2,
    n_heads=4,
    n_kv_heads=2,
    head_dim=64,
    d_ff=512,
    max_positions=1024,
)
TEXTS = Texts(prefix=128, response=64, count=2)


@pytest.fixture
def config():
    config = defaults()
    config.train.compute_dtype = "bfloat16"
    config.train.batch_size, config.train.microbatches = 8, 2
    config.sampling.max_new_tokens = 64
    config.sampling.batch_size = 8
    return config


@pytest.fixture(scope="module")
def topology():
    return open_topology("v5e:2x2")


@pytest.mark.slow
def test_a_plan_says_what_is_in_memory(config, topology):
    plan = make_plan(config, MODEL, topology, TEXTS)
    weights = sum(leaf.size for leaf in jax.tree.leaves(abstract(MODEL)))
    assert plan.mesh == {"fsdp": 4} and plan.queries == 4
    # Masters and two moments of 4 bytes each, and gradients; all split by four but for the norms' scales.
    assert plan.state == pytest.approx(12 * weights / 4, rel=0.01)
    assert plan.gradient == pytest.approx(4 * weights / 4, rel=0.01)
    phases = {phase.name: phase for phase in plan.phases}
    assert phases["training: microbatch"].resident == pytest.approx(8 * weights / 4, rel=0.01)
    assert phases["training: microbatch"].arguments >= 8 * weights / 4
    assert phases["canaries: decode"].peak == phases["sampling: decode"].peak + plan.state
    assert phases["canaries: scoring"].peak == phases["evaluation: scoring"].peak + plan.state
    assert phases["training: self-check"].resident == pytest.approx(8 * weights / 4, rel=0.01)  # the moments
    assert phases["training: self-check"].peak < phases["training: microbatch"].peak
    assert plan.fits and plan.fullest.peak == max(phase.peak for phase in plan.phases)
    sent = {one.kind for program in plan.programs for one in program.collectives}
    assert "all-gather" in sent or "collective-permute" in sent
    assert all(seconds > 0 for seconds in plan.times.iterations) and plan.chip_hours > 0
    told = json.loads(json.dumps(as_json(plan, None, 1.2)))
    assert told["fits"] and told["chips"] == 4 and told["suggestion"] is None
    assert {phase["name"] for phase in told["phases"]} == set(phases)
    assert told["cost"] == pytest.approx(1.2 * plan.chip_hours)


def abstract(model):
    from sami_jax.models.decoder import abstract_params

    return abstract_params(model)


@pytest.mark.faults
def test_two_slices_split_the_data(config):
    config.mesh.data, config.train.microbatches = 2, 1
    plan = make_plan(config, MODEL, open_topology("v5e:2x2,num_slices=2"), TEXTS)
    assert plan.mesh == {"data": 2, "fsdp": 4} and plan.fits


@pytest.mark.slow
def test_what_has_no_room_is_refused_with_its_largest_arrays(config):
    # 87 GB of masters and moments on one chip of 16.
    config.train.batch_size = config.train.microbatches = 2
    plan = make_plan(config, SHAPES["mistral-7b"], open_topology("v5e:1x1"), TEXTS)
    assert not plan.fits and not plan.programs and plan.times is None
    assert plan.fullest.peak > 100e9
    assert any("mlp" in buffer.source and "14336" in buffer.shape for buffer in plan.largest)


@pytest.mark.slow
def test_predictions_follow_the_optimizer(config, topology):
    def peak(**changes):
        changed = copy.deepcopy(config)
        changed.update_from_flattened_dict({name.replace("__", "."): value for name, value in changes.items()})
        return predicted_peak(changed, SHAPES["mistral-7b"], topology, TEXTS)

    assert peak() > peak(optim__moment_dtype="bfloat16") > peak(optim__name="adafactor") > peak(lora__rank=8)


def test_a_quantized_base_is_counted_as_it_is_held(config):
    """Bytes a weight of the blocks' matrices, embeddings in bfloat16 beside them."""
    config.lora.rank = 16
    model = SHAPES["mistral-7b"]
    embeddings = 2 * 2 * model.vocab_size * model.d_model
    matrices = sum(leaf.size for leaf in jax.tree.leaves(abstract(model)["blocks"]) if len(leaf.shape) > 2)
    for base, bytes_each in {"": 2, "float32": 4, "int8": 8.25 / 8, "nf4": 4.25 / 8}.items():
        config.lora.base = base
        programs = Programs(config, adapted(model, config.lora), make_mesh({}, jax.devices()[:1]), TEXTS)
        assert bytes_on_each(programs.frozen()) == pytest.approx(bytes_each * matrices + embeddings, rel=1e-3)


@pytest.mark.faults
def test_the_best_mesh_fits(config, topology, monkeypatch):
    monkeypatch.setattr("sami_jax.planning.suggest.TRIES", 1)
    found = best_mesh(config, MODEL, topology, TEXTS)
    assert found.plan.fits and "--topology=v5e:2x2" in found.arguments()


@pytest.mark.slow
def test_what_is_tried_on_a_small_chip_is_a_quantized_base(config, monkeypatch):
    """Nothing is kept of one for the backward pass: with remat "none" it would be refused."""
    tried = []
    monkeypatch.setattr("sami_jax.planning.suggest.TRIES", 2)
    monkeypatch.setattr("sami_jax.planning.suggest._try", lambda *given: tried.append(given[-1]))
    config.train.remat = "none"
    assert what_fits(config, SHAPES["mistral-7b"], open_topology("v5e:1x1"), TEXTS) is None
    assert [one["lora.rank"] for one in tried] == [16, 16]
    assert [(one.get("lora.base"), one.get("train.remat")) for one in tried] == [(None, None), ("int8", "dots")]


@pytest.mark.slow
@pytest.mark.parametrize("asked", ["v5e", "v9:2x2", "v5e:2x2,num_slices=two", "v5e:banana"])
def test_unknown_topologies_are_refused_in_one_line(asked):
    with pytest.raises(UserError, match="--topology=") as error:
        open_topology(asked)
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_a_mesh_that_does_not_divide_names_axis_and_dimension(config, topology):
    config.mesh.tensor = 4
    with pytest.raises(UserError, match=r"config\.mesh\.tensor=4 does not divide .*kv_heads dimension of 2"):
        make_plan(config, MODEL, topology, TEXTS)


def test_capacities_are_stated_a_device():
    assert CHIPS["v5e"].memory == 15.75 * 2**30 and CHIPS["tpu7x"].devices == 2
    assert all(dataclasses.asdict(chip)["links"] < chip.bandwidth for chip in CHIPS.values())


@pytest.mark.faults
def test_json_of_the_command(capfd, monkeypatch):
    monkeypatch.setenv("JAX_ENABLE_COMPILATION_CACHE", "0")
    assert main(["plan", "--topology=v5e:1x1", "--json", "--price=1.2", "--config.train.microbatches=64"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert found["fits"] and found["chips"] == 1 and found["suggestion"] is None
    assert {phase["name"] for phase in found["phases"]} >= {"training: microbatch", "sampling: decode"}
    assert found["cost"] == pytest.approx(1.2 * found["chip_hours"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--topology=v5e:2x2", "--config.model.path=nowhere"], "no such folder; set config.model.shape"),
        (["--topology=v5e:2x2", "--prefix=-1"], "--prefix -1"),
        (["--topology=v5e:2x2", "--price=-1"], "--price -1"),
        (["--topology=v5e:2x2", "--config.train.microbatches=32"], "cannot be split over 4 devices"),
    ],
)
def test_bad_input_is_one_line(options, words, capfd):
    assert main(["plan", *options]) == 2
    err = capfd.readouterr().err.strip()
    assert words in err and "\n" not in err
