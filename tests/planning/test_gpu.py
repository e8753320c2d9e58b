"""Plans for NVIDIA GPUs, compiled without one. Skipped where the extra plan-gpu is not installed, but for what is refused before it."""

import dataclasses
import importlib.metadata
import os
import subprocess
import sys
from importlib import resources

import jax
import jax.numpy as jnp
import pytest

from sami_jax.cli import main
from sami_jax.config import defaults
from sami_jax.errors import UserError
from sami_jax.ground import accelerators
from sami_jax.ground.accelerators import CUDA_PLUGINS, is_installed
from sami_jax.models.config import ModelConfig
from sami_jax.models.experts import mix_experts
from sami_jax.planning import topology
from sami_jax.planning.costs import Texts
from sami_jax.planning.plan import make_plan
from sami_jax.planning.topology import GPUS, Topology, open_topology
from sami_jax.sharding import make_mesh, named_sharding

needs_plugin = pytest.mark.skipif(
    not any(map(is_installed, CUDA_PLUGINS.values())), reason="compiles with sami_jax[plan-gpu]"
)
MODEL = ModelConfig("llama", 512, 256, 2, 4, 2, 64, 512, max_positions=1024)
TEXTS = Texts(prefix=128, response=64, count=2)


def small_config():
    config = defaults()
    config.train.compute_dtype, config.train.param_dtype = "bfloat16", "float32"
    config.train.batch_size, config.train.microbatches = 8, 2
    config.sampling.max_new_tokens, config.sampling.batch_size = 64, 8
    return config


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ("h100", "give KIND:"),
        ("h100:0", "give PARTITIONSxHOSTSxDEVICES"),
        ("h100:2x8", "give PARTITIONSxHOSTSxDEVICES"),
        ("h100:1x1x8,num_slices=2", "give KIND:"),
        ("b9:1x1x8", "a100, h100, h200"),
    ],
)
def test_shapes_that_are_none_are_refused_in_one_line(asked, words):
    with pytest.raises(UserError, match=f"^--topology={asked}: ") as error:
        open_topology(asked)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_without_the_plugin_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(topology, "is_installed", lambda module: False)
    with pytest.raises(UserError, match=r"pip install 'sami_jax\[plan-gpu\]'"):
        open_topology("h100:8")


def test_another_jaxlibs_plugin_is_named(monkeypatch):
    monkeypatch.setattr(topology, "is_installed", lambda module: module.endswith("12"))
    monkeypatch.setattr(importlib.metadata, "version", lambda package: "0.10.2" if package == "jaxlib" else "0.1.2")
    with pytest.raises(
        UserError, match=r"jax-cuda12-pjrt 0\.1\.2 is of another jaxlib .*; pip install jax-cuda12-pjrt=="
    ):
        open_topology("h100:8")


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ("INTERNAL: libdevice not found at ./libdevice.10.bc", "pip install nvidia-cuda-nvcc-cu12"),
        ("UNAVAILABLE: No PTX compilation provider is available", "pip install nvidia-cuda-nvcc-cu12"),
        ("FAILED_PRECONDITION: cannot be read\nand more", "--topology=h100:8: FAILED_PRECONDITION: cannot be read"),
    ],
)
def test_what_the_compiler_complains_of_is_one_line(monkeypatch, told, words):
    def refuse(**_):
        raise jax.errors.JaxRuntimeError(told)

    monkeypatch.setattr(topology, "_look_for_plugin", lambda: None)
    monkeypatch.setattr("jax.experimental.topologies.get_topology_desc", refuse)
    with pytest.raises(UserError) as error:
        open_topology("h100:8")
    assert words in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--topology=h100:8", "--memory_fraction=1.5"], "--memory_fraction 1.5: must be"),
        (["--topology=v5e:2x2", "--memory_fraction=0.5"], "--memory_fraction 0.5: of GPUs"),
    ],
)
def test_a_share_of_memory_that_is_none(options, words, capfd):
    assert main(["plan", *options]) == 2
    err = capfd.readouterr().err.strip()
    assert words in err and "\n" not in err


@pytest.mark.parametrize("kind", GPUS)
def test_what_the_compiler_reads_has_the_memory_that_plans_count_with(kind):
    text = (resources.files("sami_jax.planning") / "specifications" / f"{kind}.txtpb").read_text(encoding="utf-8")
    assert f"device_memory_size: {GPUS[kind].memory}\n" in text


def test_between_hosts_a_gpu_sends_what_the_network_takes():
    @dataclasses.dataclass
    class Device:
        process_index: int

    one, two = (tuple(Device(number // 8 % hosts) for number in range(16)) for hosts in (1, 2))
    chip = GPUS["h100"]
    assert Topology("h100:1x1x16", chip, one, 1, 0.75).links == chip.links
    assert Topology("h100:1x2x8", chip, two, 1, 0.75).links == chip.network


def test_kernels_of_other_devices_are_refused(monkeypatch):
    from sami_jax.planning.plan import check_attention

    gpus = Topology("h100:1x1x1", GPUS["h100"], (), 1, 0.75)
    for attention, words in (("splash", "a kernel of TPUs"), ("cudnn", "plan with xla")):
        with pytest.raises(UserError, match=f"config.model.attention={attention}: .*{words}"):
            check_attention(dataclasses.replace(MODEL, attention=attention), gpus)
    check_attention(MODEL, gpus)


@needs_plugin
@pytest.mark.slow
def test_a_plan_for_two_gpus():
    plan = make_plan(small_config(), MODEL, open_topology("h100:1x1x2"), TEXTS)
    assert plan.fits and plan.mesh == {"fsdp": 2}
    assert plan.topology.chip.memory == int(0.75 * GPUS["h100"].memory)
    programs = {program.name: program for program in plan.programs}
    assert set(programs) == {"self-check", "microbatch", "optimizer", "prefill", "decode", "scoring"}
    # Weights gathered twice, gradients scattered once; norms' scales and their gradients are small.
    assert 0.9 < programs["microbatch"].sent / plan.least_sent < 1.5
    assert max(programs["microbatch"].outputs, programs["decode"].outputs) < 1024  # metrics; all else is in its place
    assert plan.times and all(seconds > 0 for seconds in plan.times.iterations)


@needs_plugin
@pytest.mark.slow
def test_experts_are_gathered_without_a_copy_of_all_layers():
    layers, experts, width, hidden = 32, 4, 256, 512
    mesh = make_mesh({"fsdp": 2}, open_topology("h100:1x1x2").devices)

    def argument(shape, axes, dtype=jnp.bfloat16):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=named_sharding(mesh, axes))

    def forward(x, weights, chosen, stacks):
        return jax.lax.scan(lambda x, layer: (mix_experts(x, weights, chosen, *layer), None), x, stacks)[0]

    rows = ("batch", None, None)
    into, out = ("layer", "experts", "expert_embed", "mlp"), ("layer", "experts", "mlp", "expert_embed")
    gates, downs = argument((layers, experts, width, hidden), into), argument((layers, experts, hidden, width), out)
    asked = [argument((2, 512, width), rows), argument((2, 512, 2), rows), argument((2, 512, 2), rows, jnp.int32)]
    with jax.set_mesh(mesh):
        made = jax.jit(forward).lower(*asked, (gates, gates, downs)).compile()
    assert made.memory_analysis().temp_size_in_bytes < gates.size * 2 / 2  # of one stack, a device's half


@needs_plugin
@pytest.mark.slow
def test_one_gpu_has_the_layers_apart():
    plan = make_plan(small_config(), MODEL, open_topology("a100:1", 0.9), TEXTS)
    assert plan.fits and plan.topology.chip.memory == int(0.9 * GPUS["a100"].memory)
    phases = {phase.name: phase for phase in plan.phases}
    # What prefill does not read (the unembedding, the last layer's MLP) lies there all the same.
    assert phases["sampling: prefill"].resident >= 2 * 512 * 256
    assert phases["canaries: prefill"].resident >= plan.state


@needs_plugin
@pytest.mark.slow
@pytest.mark.parametrize("verb", ["plan", "other"])
def test_with_the_extra_and_no_gpu_nothing_else_is_said(verb):
    if accelerators.has_nvidia_gpu():
        pytest.skip("there is a GPU")
    code = "import jax; print(jax.devices()[0].platform)" if verb == "other" else (
        "import os; os.environ['JAX_PLATFORMS'] = 'cpu'\n"
        "from sami_jax.planning.topology import open_topology; print(len(open_topology('h200:4').devices))"
    )  # fmt: skip
    start = "from sami_jax.cli.start import set_up; set_up()\n"
    environment = {name: value for name, value in os.environ.items() if name not in accelerators._SPOKEN_OF}
    done = subprocess.run([sys.executable, "-c", start + code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout.strip() == ("4" if verb == "plan" else "cpu")
