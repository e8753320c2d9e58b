"""Eight host devices, strict broadcasting; models and runs that many tests share."""

import os
from pathlib import Path

from support import flags

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = flags.HERE
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Programs that a worker, or a process that a test starts, has compiled before are not compiled again.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parent.parent / ".pytest_cache" / "compiled"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

import hypothesis
import jax
import pytest

# The same examples every time, however slow the machine is.
hypothesis.settings.register_profile("tests", deadline=None, derandomize=True, database=None, max_examples=60)
hypothesis.settings.load_profile("tests")
jax.config.update("jax_numpy_rank_promotion", "raise")

from support import short_run
from support.scripted_model import free_port, serving
from support.small_model import SMALL, mesh_of

from sami_jax.models.decoder import init_params


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


# What takes longest starts first, and others run beside it.
FIRST = [
    "test_a_run_that_is_killed_goes_on_to_the_same_bits",
    "test_two_processes_killed_and_continued_equal_one",
    "test_base_against_itself_and_against_a_trained_model",
    "test_a_collapsing_run_is_stopped_and_its_last_good_model_kept",
    "test_nothing_grows_in_a_long_run",  # of the fault tests; its worker keeps the one behind it too: a short one
    "test_no_input_brings_a_traceback[10000-index]",
]


def pytest_collection_modifyitems(items):
    def place(item) -> int:
        names = (item.name, item.name.partition("[")[0])
        return next((FIRST.index(name) for name in names if name in FIRST), len(FIRST))

    items.sort(key=place)
