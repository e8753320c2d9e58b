"""The launchers among commands that only pretend: see support/pretend.py."""

import time

import pytest
from support.launch_world import World

# Each would come out different if some shell read it once too often, or a template or Kubernetes saw more than a text in it.
HARD = [
    "--config.train.updates=(2,4,6)",
    '--config.prompt.training=Say "it\'s" $HOME `date` $(date) \\n; ${NAME} $$ & < > * # é 日本',
    "--config.prompt.generation=two\nlines  and two spaces ",
    "--config.principles.held_out=[]{}: - 'x'",
    "--config.empty=",
]


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path)
    yield world
    world.close()


@pytest.fixture
def hard():
    return HARD


@pytest.fixture
def wait_for():
    def wait(happened, seconds: float = 20) -> None:
        end = time.monotonic() + seconds
        while not happened():
            assert time.monotonic() < end, "it did not happen"
            time.sleep(0.02)

    return wait
