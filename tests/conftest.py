"""Eight host devices, strict broadcasting, leak checks; small models that many tests share."""

import importlib.metadata
import os
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Most of a test's time is compilation, and without optimization it is a third on jax 0.10. Whole runs, as processes, compile as
# a user's do, but for those that ask for this. XLA_FLAGS given from outside come last, and win.
UNOPTIMIZED = "--xla_backend_optimization_level=0"
if importlib.metadata.version("jax").startswith("0.10."):  # later ones end a process that names the flag
    UNOPTIMIZED += " --xla_cpu_use_fusion_emitters=false"
_FLAGS = ["--xla_force_host_platform_device_count=8", UNOPTIMIZED, os.environ.get("XLA_FLAGS", "")]
os.environ["XLA_FLAGS"] = " ".join(_FLAGS)
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Programs that a worker, or a process that a test starts, has compiled before are not compiled again.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parent.parent / ".pytest_cache" / "compiled"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

import hypothesis
import jax
import numpy as np
import pytest

# The same examples every time, however slow the machine is.
hypothesis.settings.register_profile("tests", deadline=None, derandomize=True, database=None, max_examples=60)
hypothesis.settings.load_profile("tests")
jax.config.update("jax_numpy_rank_promotion", "raise")

import short_run
from scripted_model import free_port, serving

from sami_jax.data.batches import ContrastBatch, ContrastExample, Shape, pack
from sami_jax.models.config import ModelConfig
from sami_jax.models.decoder import init_params
from sami_jax.packing import Sizes
from sami_jax.sharding import make_mesh

SMALL = ModelConfig(
    family="mistral",
    vocab_size=96,
    d_model=32,
    n_layers=2,
    n_heads=4,
    n_kv_heads=2,
    head_dim=8,
    d_ff=64,
    max_positions=128,
    sliding_window=7,
)


def mesh_of(data: int, fsdp: int, tensor: int, expert: int = 1) -> jax.sharding.Mesh:
    sizes = {"data": data, "fsdp": fsdp, "expert": expert, "tensor": tensor}
    return make_mesh(sizes, jax.devices()[: data * fsdp * expert * tensor])


@pytest.fixture(autouse=True)
def leak_checks(request):
    """Under leak checks nothing that was traced is kept, so that whole stages take minutes: slow tests go without."""
    costly = any(request.node.get_closest_marker(name) for name in ("slow", "faults"))
    with jax.check_tracer_leaks(not costly):
        yield


@pytest.fixture(scope="session")
def session_folder(tmp_path_factory) -> Path:
    """One for all workers of this session."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def undisturbed(session_folder) -> short_run.Undisturbed:
    """A run by SHORT that nothing happened to. Of all tests: leave it as it is."""
    return short_run.once(session_folder / "undisturbed", short_run.SHORT)


@pytest.fixture(scope="session")
def warm(session_folder) -> short_run.Undisturbed:
    """Likewise by DISTURBED, and it found its programs compiled."""
    short_run.once(session_folder / "cold", short_run.DISTURBED)
    return short_run.once(session_folder / "warm", short_run.DISTURBED)


@pytest.fixture(scope="session")
def improved(session_folder) -> short_run.Undisturbed:
    """Likewise by IMPROVED."""
    return short_run.once(session_folder / "improved", short_run.IMPROVED)


@pytest.fixture(scope="session")
def commands():
    """Runs `sami` commands on one device."""
    commands = short_run.Commands()
    yield commands
    commands.close()


@pytest.fixture(scope="session")
def mesh():
    return mesh_of(1, 1, 1)


@pytest.fixture(scope="session")
def server():
    """Base URL of a real server of the OpenAI protocol."""
    with serving(free_port()) as url:
        yield url


@pytest.fixture(scope="session")
def small_params(mesh):
    return init_params(SMALL, 0, mesh)


def random_batch(seed: int, queries: int, count: int, prefix: int = 12, response: int = 9) -> ContrastBatch:
    """Ragged random prompts and responses of SMALL's vocabulary."""
    rng = np.random.default_rng(seed)

    def texts(longest: int) -> tuple[tuple[int, ...], ...]:
        lengths = rng.integers(1, longest + 1, count)
        return tuple(tuple(rng.integers(0, SMALL.vocab_size, length).tolist()) for length in lengths)

    examples = [ContrastExample(texts(prefix), texts(response)) for _ in range(queries)]
    return pack(examples, Shape(prefix + count * response, Sizes(prefix, response, count * response)))


def pytest_collection_modifyitems(items):
    """The soak takes as long as all other fault tests together: it starts first, and they run beside it.

    All but the one behind it, which its worker keeps: a short one.
    """
    first = ["test_nothing_grows_in_a_long_run", "test_no_input_brings_a_traceback[10000-index]"]
    items.sort(key=lambda item: first.index(item.name) if item.name in first else len(first))
