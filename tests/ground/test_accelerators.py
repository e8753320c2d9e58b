"""Which accelerators a machine has; and libtpu is left alone where there is no TPU."""

import os
import subprocess
import sys
from importlib.machinery import ModuleSpec

import jax
import pytest

from sami_jax import sharding
from sami_jax.doctor.machine import driver
from sami_jax.ground import accelerators
from sami_jax.ground.accelerators import (
    cuda_extra,
    find_cuda_again,
    find_libtpu_again,
    has_tpu,
    left_idle,
    nvidia_driver,
    pass_over_cuda,
    pass_over_libtpu,
)

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
        "from sami_jax.ground.accelerators import pass_over_cuda, pass_over_libtpu; pass_over_cuda(); pass_over_libtpu()\n"
        "import jax; print(jax.devices())\n"
    )
    environment = {name: value for name, value in os.environ.items() if name not in accelerators._SPOKEN_OF}
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0 and done.stderr == "" and done.stdout


@pytest.mark.parametrize(
    ("platforms", "gpu", "driver", "passed_over"),
    [
        ("", False, False, True),
        ("cpu", False, False, True),
        ("cuda", False, False, False),
        ("", True, False, False),
        ("", False, True, False),
    ],
)
def test_a_cuda_plugin_is_passed_over_where_no_driver_can_run_it(monkeypatch, platforms, gpu, driver, passed_over):
    name = accelerators.CUDA_PLUGINS["jax-cuda12-pjrt"]
    found = ModuleSpec(name, None)
    monkeypatch.setattr(accelerators, "_spec", lambda module: found if module == name else None)
    monkeypatch.setattr(accelerators, "_has_library", lambda library: driver)
    monkeypatch.setattr(accelerators, "has_nvidia_gpu", lambda: gpu)
    monkeypatch.setenv("JAX_PLATFORMS", platforms)
    monkeypatch.delitem(sys.modules, name, raising=False)
    pass_over_cuda()
    if passed_over:
        assert sys.modules[name].initialize() is None
    assert find_cuda_again() == [name] * passed_over
    assert name not in sys.modules and find_cuda_again() == []


DRIVERS = {
    "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024\nGCC version:  12.2.0\n": ("550.54.15", "cuda12"),
    "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build  (dvs-builder@x)\n": ("580.65.06", "cuda13"),
    "NVRM version: NVIDIA UNIX x86_64 Kernel Module  470.82.01  Wed Oct 27 2021\n": ("470.82.01", None),
}  # fmt: skip


def machine_with(root, files: dict[str, str]):
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


@pytest.mark.parametrize("text", DRIVERS)
def test_the_driver_says_which_extra_goes_with_it(tmp_path, text):
    version, extra = DRIVERS[text]
    root = machine_with(tmp_path, {"proc/driver/nvidia/version": text})
    assert nvidia_driver(root) == version and cuda_extra(version) == extra
    [finding] = driver(root)
    assert finding.found.startswith(version) and (extra or "too old") in finding.found + finding.advice


@pytest.mark.parametrize(
    ("files", "variables", "words"),
    [
        ({}, {}, None),
        ({"dev/nvidia0": ""}, {}, "an NVIDIA GPU that jax does not use; pip install 'sami_jax[cuda13]'"),
        ({"proc/driver/nvidia/version": next(iter(DRIVERS))}, {}, "sami_jax[cuda12]"),
        ({"dev/accel0": ""}, {}, "a TPU that jax does not use; pip install 'sami_jax[tpu]'"),
        ({"dev/nvidia0": ""}, {"JAX_PLATFORMS": "cpu"}, None),
        ({"dev/nvidia0": ""}, {"CUDA_VISIBLE_DEVICES": ""}, None),
    ],
)
def test_a_cpu_beside_an_accelerator_is_said(tmp_path, monkeypatch, files, variables, words):
    for name in ("JAX_PLATFORMS", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    said = left_idle(machine_with(tmp_path, files))
    assert (said is None) if words is None else (said is not None and words in said)


def test_it_is_said_where_devices_are_laid_out(monkeypatch, capsys):
    monkeypatch.setattr(sharding, "left_idle", lambda: "WARNING: computing on the CPU")
    sharding.make_mesh({"data": -1})
    assert "computing on the CPU" in capsys.readouterr().err
    sharding.make_mesh({}, jax.devices()[:1])  # whose devices are chosen
    assert capsys.readouterr().err == ""
