"""`sami push` against a hub that stands in: all files arrive as they were, the token nowhere, and what is refused is one line."""

import json
import shutil
import socket

import pytest
from huggingface_hub import constants
from support.fabricated_run import predicate
from support.hub_stand_in import TOKEN, standing_in

from sami_jax import miniature
from sami_jax.cli import main
from sami_jax.provenance.manifest import RunRecord

CARD = "---\ntags:\n- sami\n---\n# Greeter\n"
TO = ["--to", "my-team/greeter"]


@pytest.fixture
def hub(monkeypatch):
    with standing_in() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # the stand-in speaks the hub's older protocol
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        yield hub


@pytest.fixture
def model(tmp_path):
    """A model in the folder of a run that recorded it."""
    folder = tmp_path / "run" / "iteration_1" / "model"
    shutil.copytree(miniature.BASE, folder)
    (folder / "README.md").write_text(CARD)
    record = RunRecord(tmp_path / "run", predicate(), {"kind": "cpu", "count": 1, "processes": 1})
    record.publish(folder)
    return folder


def pushed(capsys, *argv: str) -> tuple[int, str, str]:
    status = main(["push", *map(str, argv)])
    out, err = capsys.readouterr()
    assert TOKEN not in out + err
    return status, out, err


def test_all_files_arrive_as_they_were(hub, model, capsys):
    (model / ".env").write_text("secret")
    (model / "LICENSE").write_text("free")
    status, out, _ = pushed(capsys, model, *TO, "--json")
    told = json.loads(out)
    assert status == 0 and told["url"].startswith(f"{hub.url}/my-team/greeter/commit/")
    arrived = hub.files["my-team/greeter"]
    expected = {file.name: file.read_bytes() for file in model.iterdir() if file.name != ".env"}
    assert arrived == expected and "model.safetensors" in arrived
    states = {file["name"]: file["state"] for file in told["files"]}
    assert states["LICENSE"] == "added since" and states["model.safetensors"] == "as the run left it"
    assert len(hub.commits) == 1 and not hub.private["my-team/greeter"]
    assert TOKEN.encode() not in b"".join(arrived.values())
    # Again, into the repository that is there now, with a card that somebody edited.
    (model / "README.md").write_text(CARD + "More.\n")
    status, out, _ = pushed(capsys, model, *TO)
    assert status == 0 and "MiB: http" in out and arrived["README.md"].endswith(b"More.\n")


def test_private(hub, model, capsys):
    assert pushed(capsys, model, *TO, "--private")[0] == 0
    assert hub.private["my-team/greeter"]
    hub.private["my-team/greeter"] = False
    hub.requests.clear()
    status, _, err = pushed(capsys, model, *TO, "--private")
    assert status == 2 and "is there, and public" in err and not any("commit" in one for one in hub.requests)


def test_a_dry_run_needs_neither_network_nor_token(hub, model, capsys, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    status, out, _ = pushed(capsys, model, *TO, "--dry_run")
    assert status == 0 and hub.requests == []
    assert "model.safetensors" in out and "# Greeter" in out and "as the run left it" in out and "MiB" in out
    status, out, _ = pushed(capsys, model, *TO, "--dry_run", "--json")
    assert json.loads(out)["card"] == CARD


def test_a_folder_of_no_run(hub, tmp_path, capsys):
    shutil.copytree(miniature.BASE, tmp_path / "model")
    status, out, err = pushed(capsys, tmp_path / "model", *TO, "--dry_run")
    assert status == 0 and "of no run here" in out and "has no model card" in err


def break_weights(model):
    content = bytearray((model / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (model / "model.safetensors").write_bytes(content)


def lead_out(model):
    (model / "notes.txt").symlink_to("/etc/hostname")


BROKEN = [
    (break_weights, "model.safetensors: was changed since the run recorded it"),
    (lambda m: (m / "chat_template.jinja").unlink(), "chat_template.jinja: missing"),
    (lambda m: (m / "model.safetensors").rename(m / "pytorch_model.bin"), "pickled weights are not loaded"),
    (lead_out, "notes.txt: leads out of the folder"),
    (lambda m: (m / "README.md").write_text(f"# {TOKEN}\n"), "README.md: holds what looks like a secret"),
    (lambda m: (m.parent.parent / "run.json").write_text("{"), "run.json"),
    (shutil.rmtree, "no such model folder"),
]


@pytest.mark.parametrize(("damage", "words"), BROKEN)
def test_what_is_not_as_recorded_is_not_sent(hub, model, capsys, damage, words):
    damage(model)
    status, out, err = pushed(capsys, model, *TO, "--quiet")
    assert status == 2 and words in err and err.count("\n") == 1 and out == ""
    assert hub.requests == []


@pytest.mark.parametrize("to", ["greeter", "a/b/c", ".a/b", "a/..", "https://hub/a/b", "a/b--c", ""])
def test_a_bad_name(hub, model, capsys, to):
    status, _, err = pushed(capsys, model, "--to", to)
    assert status == 2 and "must be OWNER/NAME" in err and hub.requests == []


def closed_port() -> str:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{found.getsockname()[1]}"


@pytest.mark.parametrize(
    ("variables", "answer", "words"),
    [
        ({"HF_TOKEN": ""}, None, "HF_TOKEN is not set"),
        ({"HF_TOKEN": "hf_anotherAnotherAnother"}, None, "does not know this HF_TOKEN"),
        ({}, 403, "this HF_TOKEN may not write there"),
        ({}, 418, "refused with status 418"),
        ({"HF_ENDPOINT": closed_port()}, None, "cannot be reached"),
    ],
)
def test_a_hub_that_refuses_is_one_line(hub, model, capsys, monkeypatch, variables, answer, words):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    hub.answer = answer
    status, out, err = pushed(capsys, model, *TO, "--quiet")
    assert status == 2 and words in err and err.count("\n") == 1 and out == ""
    assert "hf_another" not in err
