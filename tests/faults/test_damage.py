"""Every file of a checkpoint in turn, damaged in every way: it is found and named, the checkpoint before is taken, and the stage
ends in the same bits."""

import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from support.quick import others_slow
from support.short_run import Commands, changed

from sami_jax.stages.checkpoint import SEAL

OPTIONS = changed(
    "--config.train.updates=(3,)",
    "--config.train.batch_size=8",
    "--config.train.microbatches=1",
    "--config.canaries.action=off",
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, commands):
    """A finished training stage of three updates, and the pairs it was trained on."""
    folder = tmp_path_factory.mktemp("trained")
    pairs = folder / "pairs.jsonl"
    rows = [
        {
            "id": str(i),
            "query": f"How do I clean thing {i}?",
            "constitutions": ["1. Give a reason.", "1. Do not give a reason."],
            "responses": ["Use soap because it is quick.", "Use soap."],
            "finish_reasons": ["stop", "stop"],
        }
        for i in range(16)
    ]
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert train(commands, pairs, folder / "out")[0] == 0
    return pairs, folder / "out"


def train(commands: Commands, pairs: Path, output: Path, *more: str) -> tuple[int, str]:
    return commands.run("train", *OPTIONS, "--pairs", str(pairs), "--output", str(output), *more)


def files(output: Path) -> list[str]:
    """Those of the newest checkpoint, largest first."""
    newest = output / "checkpoints/3"
    found = sorted((file for file in newest.rglob("*") if file.is_file()), key=lambda file: -file.stat().st_size)
    return [file.relative_to(newest).as_posix() for file in found]


def assert_survives(kind: str, name: str, commands: Commands, trained, folder: Path) -> None:
    pairs, whole = trained
    output = folder / kind / name.replace("/", "-")
    for part in ("checkpoints", "metrics.jsonl"):
        copy = shutil.copytree if (whole / part).is_dir() else shutil.copy
        output.mkdir(parents=True, exist_ok=True)
        copy(whole / part, output / part)
    KINDS[kind](output / "checkpoints/3" / name)
    status, said = train(commands, pairs, output)
    assert status == 0, said
    [line] = [line for line in said.splitlines() if "WARNING" in line]
    assert f"checkpoint of update 3: {name} " in line and line.endswith(f"set aside: {output}/checkpoints/damaged/3")
    assert (output / "checkpoints/damaged/3").is_dir() and (output / "checkpoints/3" / SEAL).is_file()
    expected = safetensors.numpy.load_file(whole / "model/model.safetensors")
    for key, weight in safetensors.numpy.load_file(output / "model/model.safetensors").items():
        np.testing.assert_array_equal(weight, expected[key], err_msg=key)
    shutil.rmtree(output)


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    place = random.Random(file.name).randrange(len(content))
    content[place] ^= 1 << place % 8
    file.write_bytes(content)


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


KINDS = {"flipped": flip, "truncated": truncate, "deleted": Path.unlink, "emptied": lambda file: file.write_bytes(b"")}


@pytest.mark.faults
@pytest.mark.parametrize("kind", KINDS)
def test_any_damaged_file_of_a_checkpoint_is_found_and_the_run_completes(commands, trained, tmp_path, kind):
    names = files(trained[1])
    for name in names:
        assert_survives(kind, name, commands, trained, tmp_path)
    print(f"{len(names)} files {kind}")


@pytest.mark.parametrize("kind", others_slow(KINDS, "flipped"))
def test_a_damaged_file_of_a_checkpoint_is_found(commands, trained, tmp_path, kind):
    names = files(trained[1])
    chosen = {"flipped": names[0], "truncated": SEAL, "deleted": "_CHECKPOINT_METADATA", "emptied": names[-1]}
    assert_survives(kind, chosen[kind], commands, trained, tmp_path)


def test_where_all_are_damaged_training_begins_again_and_export_says_so(commands, trained, tmp_path):
    pairs, whole = trained
    output = tmp_path / "out"
    shutil.copytree(whole, output)
    shutil.rmtree(output / "model")
    flip(output / "checkpoints/3" / files(output)[0])
    export = ["export", "--checkpoint", str(output / "checkpoints"), "--output", str(tmp_path / "exported")]
    status, said = commands.run(*export)
    assert status == 0
    assert (
        "WARNING: checkpoint of update 3: " in said and "was changed; passed over" in said and "checkpoint 2: " in said
    )
    (output / "checkpoints/2" / SEAL).unlink()
    status, said = commands.run(*export)
    assert status == 2 and "no whole checkpoint here" in said
    status, said = train(commands, pairs, output)
    assert status == 0 and said.count("set aside") == 2
    expected = safetensors.numpy.load_file(whole / "model/model.safetensors")
    for key, weight in safetensors.numpy.load_file(output / "model/model.safetensors").items():
        np.testing.assert_array_equal(weight, expected[key], err_msg=key)


def test_another_dtype_is_not_restored_silently(commands, trained, tmp_path):
    pairs, whole = trained
    output = tmp_path / "out"
    shutil.copytree(whole, output)
    shutil.rmtree(output / "model")
    status, said = train(commands, pairs, output, "--config.optim.moment_dtype=bfloat16")
    assert status == 2
    [line] = [line for line in said.splitlines() if line.startswith("sami: ")]
    assert "checkpoints/3: optimizer/" in line and "is float32[" in line and "this run asks for bfloat16[" in line
