"""Which accelerators a machine has; and libtpu is left alone where there is no TPU."""

import os
import subprocess
import sys

import pytest

from sami_jax.ground import accelerators
from sami_jax.ground.accelerators import find_libtpu_again, has_tpu, pass_over_libtpu

PCI = "sys/bus/pci/devices/0000:00:04.0/"


@pytest.mark.parametrize(
    ("files", "there"),
    [
        ({}, False),
        ({"dev/accel0": ""}, True),
        ({"dev/vfio/0": ""}, True),
        ({"dev/vfio/vfio": ""}, False),  # the kernel's module alone
        ({"dev/accel/accel0": ""}, False),  # a laptop's neural processor
        ({f"{PCI}vendor": "0x1ae0\n", f"{PCI}class": "0x088000\n"}, True),
        ({f"{PCI}vendor": "0x1ae0\n", f"{PCI}class": "0x020000\n"}, False),  # the network of Google's cloud
        ({f"{PCI}vendor": "0x1ae0\n", f"{PCI}class": "0x010802\n"}, False),  # its disks
        ({f"{PCI}vendor": "0x10de\n", f"{PCI}class": "0x088000\n"}, False),
        ({f"{PCI}vendor": "0x1ae0\n"}, False),
    ],
)
def test_a_tpu_is_told_from_what_looks_like_one(tmp_path, files, there):
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    assert has_tpu(tmp_path) == there


@pytest.mark.parametrize(
    ("variables", "there", "passed_over"),
    [
        ({}, False, True),
        ({"JAX_PLATFORMS": ""}, False, True),
        ({}, True, False),
        ({"JAX_PLATFORMS": "tpu"}, False, False),
        ({"TPU_NAME": "mine"}, False, False),
        ({"JAX_FORCE_TPU_INIT": "1"}, False, False),
        ({"TPU_LIBRARY_PATH": "/my/libtpu.so"}, False, False),
    ],
)
def test_libtpu_is_passed_over_where_nobody_speaks_of_a_tpu(monkeypatch, variables, there, passed_over):
    for name in accelerators._SPOKEN_OF:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(accelerators, "has_tpu", lambda: there)
    before = dict(os.environ)
    pass_over_libtpu()
    assert (dict(os.environ) != before) == passed_over
    find_libtpu_again()
    assert dict(os.environ) == before


def test_without_a_tpu_jax_starts_in_silence():
    if has_tpu():
        pytest.skip("there is a TPU")
    code = (
        "from sami_jax.ground.accelerators import pass_over_libtpu; pass_over_libtpu()\n"
        "import jax; print(jax.devices())\n"
    )
    environment = {name: value for name, value in os.environ.items() if name not in accelerators._SPOKEN_OF}
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0 and done.stderr == "" and done.stdout
