"""The notebooks, executed whole on CPU with small settings; what is kept of them holds no outputs."""

import json
import re
from pathlib import Path

import pytest
from support.flags import environment

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
def test_quickstart(tmp_path, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", environment()["XLA_FLAGS"])
    fewer = "load_config(CONFIG, train__updates=(2,), train__batch_size=16, evaluation__queries=4)"
    small = [('CONFIG = "tiny"', 'CONFIG = "tiny:smoke"'), ("load_config(CONFIG)", fewer)]
    told = executed("quickstart", tmp_path, *small)
    for shown in ("greeting:", "wins over base", "iteration 1", "[image]", " base  1. ", " trained  1. "):
        assert shown in told, f"{shown!r} is not in what it shows"
    assert (tmp_path / "runs/quickstart/report.html").exists()


@pytest.mark.slow
def test_tpu_on_whatever_devices_there_are(tmp_path, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", environment(devices=2)["XLA_FLAGS"])
    small = [("QUERIES_A_DEVICE = 8", "QUERIES_A_DEVICE = 2"), ("UPDATES = 12", "UPDATES = 3")]
    told = executed("tpu", tmp_path, *small)
    assert "2 x cpu" in told and "on each device (253, 64)" in told
    before, after = map(float, re.search(r"information (\S+) -> (\S+) nats", told).groups())
    assert after > before and "tokens/s on 2 device(s)" in told
    assert (tmp_path / "aligned/model.safetensors").exists()


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_no_outputs_are_kept(file):
    cells = json.loads(file.read_text(encoding="utf-8"))["cells"]
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in cells if cell["cell_type"] == "code")
    assert len(cells) > 5
