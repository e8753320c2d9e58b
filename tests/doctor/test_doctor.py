"""`sami doctor`: what it finds, what it says of what is missing, and its exit status."""

import importlib.metadata
import json
import subprocess
import sys

import jax
import pytest

from sami_jax.cli import main
from sami_jax.doctor import machine, packages
from sami_jax.doctor.finding import MISSING, NOTE, OK


def examined(capsys) -> tuple[int, dict]:
    """Exit status, and findings by what they are about; all of stdout is JSON, and nothing is said beside it."""
    status = main(["doctor", "--json"])
    out, err = capsys.readouterr()
    told = json.loads(out)
    assert err == "" and told["ready"] == (status == 0)
    return status, {finding["about"]: finding for finding in told["findings"]}


def test_a_machine_that_is_ready(capsys):
    status, found = examined(capsys)
    assert status == 0
    assert found["jax"]["found"] == jax.__version__ and found["python"]["state"] == OK
    assert f"{jax.device_count()} x cpu" in found["devices"]["found"]
    assert found["trial program"]["found"].startswith("compiled in") and "GiB" in found["host memory"]["found"]


def test_jax_that_does_not_start_is_told_in_one_line(capsys, monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "abacus")
    status, found = examined(capsys)
    assert status == 1 and found["jax"]["state"] == MISSING
    assert "abacus" in found["jax"]["found"] and "\n" not in found["jax"]["found"]
    assert "unset JAX_PLATFORMS=abacus" in found["jax"]["advice"]
    assert main(["doctor"]) == 1
    assert "Not ready: jax" in capsys.readouterr().out


def test_jax_that_hangs_or_aborts(monkeypatch):
    monkeypatch.setattr(machine, "PATIENCE", 0.01)
    [finding] = machine.devices()
    assert finding.state == MISSING and "did not start within" in finding.found
    for printed, status in (("", -6), ("out of luck\n", 134)):
        done = subprocess.CompletedProcess([], status, "", printed)
        monkeypatch.setattr(machine.subprocess, "run", lambda *_, done=done, **__: done)
        [finding] = machine.devices()
        assert (printed.strip() or "status -6") in finding.found


def test_a_wrong_result_is_no_ready_machine():
    told = {"compiled": 1.0, "ran": 0.1, "right": False, "devices": []}
    assert machine._trial(told).state == MISSING
    assert machine._trial(told | {"right": True}).state == OK


@pytest.mark.parametrize(
    ("asked", "about", "state", "advice"),
    [
        (["nonesuch>=3"], "nonesuch", MISSING, "pip install 'nonesuch>=3'"),
        ([f"jax<{importlib.metadata.version('jax')}"], "jax", MISSING, "pip install 'jax<"),
        (['nonesuch; extra == "hub"'], "extra hub", NOTE, "pip install 'sami_jax[hub]'"),
        (['nonesuch; python_version < "3"'], "extra hub", OK, ""),
    ],
)
def test_what_is_missing_is_named_with_how_to_install_it(monkeypatch, asked, about, state, advice):
    monkeypatch.setattr(packages.importlib.metadata, "requires", lambda name: asked if name == packages.PACKAGE else [])
    [finding] = [finding for finding in packages.installed() if finding.about == about]
    assert finding.state == state and advice in finding.advice


def test_extras_of_requirements_are_looked_into(monkeypatch):
    asked = {packages.PACKAGE: ['jax[abacus]; extra == "cuda"'], "jax": ['beads; extra == "abacus"']}
    monkeypatch.setattr(packages.importlib.metadata, "requires", lambda name: asked[name])
    [finding] = [finding for finding in packages.installed() if finding.about == "extra cuda"]
    assert finding.state == NOTE and finding.found == "without beads"


def test_every_extra_is_known_to_the_doctor():
    provided = set(importlib.metadata.metadata(packages.PACKAGE).get_all("Provides-Extra"))
    assert provided - {"dev", "test"} == set(packages.EXTRAS)


def test_doctor_starts_without_jax():
    code = "import sys; sys.modules['jax'] = None\nfrom sami_jax.cli.parser import new_parser; new_parser()\nfrom sami_jax.doctor import machine, packages"
    subprocess.run([sys.executable, "-c", code], check=True)
