"""The loop as a whole: what it leaves behind, that it continues after kill -9 to the same bits, that it refuses another run's folder."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import safetensors.numpy
from support.flags import environment
from support.quick import others_in_faults
from support.short_run import SHORT, assert_same, finish, sami, weights

from sami_jax import miniature
from sami_jax.cli import main
from sami_jax.provenance.audit import read_audit
from sami_jax.stages import loop


def test_a_run_leaves_what_is_promised(undisturbed):
    workdir, out, err, _ = undisturbed
    for name in (
        "responses.jsonl",
        "pairs.jsonl",
        "dropped.json",
        "metrics.jsonl",
        "evaluation.json",
        "checkpoints/2",
        "model/tokenizer.json",
    ):
        expected = workdir / "iteration_1" / name
        assert expected.exists(), expected
    assert list((workdir / "tensorboard").iterdir())
    report = (workdir / "report.html").read_text()
    assert "on held-out queries" in report and 'id="matrix"' in report and "all was as recorded" in report
    assert json.loads((workdir / "run.json").read_text())["predicate"]["config"]["train"]["updates"] == [2, 2]
    steps = [json.loads(line)["step"] for line in (workdir / "iteration_2" / "metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 2]
    for words in ("following", "wins over base", "well-formed", "MI, nats", "iteration 2", "constitution"):
        assert words in out
    assert re.search(r"sampling: \d+ in .* tokens/s", err)


# A file whose appearance says that the stage has begun, and how long to let it go on, seconds.
STAGES = {
    "after a checkpoint": "iteration_1/checkpoints/1/_CHECKPOINT_METADATA",
    "export": "iteration_1/model.partial",
    "second sampling": "iteration_2/responses.jsonl.partial",
}


@pytest.mark.parametrize(
    "stages", [["after a checkpoint"], pytest.param(list(STAGES), marks=pytest.mark.faults)], ids=len
)
def test_a_run_that_is_killed_goes_on_to_the_same_bits(undisturbed, tmp_path, capsys, stages):
    """One run, killed at each stage in turn and started again."""
    killed = []
    for name in stages:
        process = sami(tmp_path)
        while process.poll() is None and not (tmp_path / STAGES[name]).exists():
            time.sleep(0.002)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            killed.append(name)
        process.communicate()
    finish(sami(tmp_path))
    # A stage may be over before it is seen (the export's folder lives for milliseconds), most may not.
    assert len(killed) >= max(1, len(stages) - 2), killed
    assert_same(tmp_path, undisturbed.workdir)
    assert main(["verify", str(tmp_path)]) == 0 and "as recorded" in capsys.readouterr().out
    assert main(["report", str(tmp_path), "--language", "ja"]) == 0 and (tmp_path / "report.html").exists()


@pytest.mark.slow
def test_one_constitution_a_query_runs_to_its_end(commands, tmp_path):
    """There is nothing to contrast, and nothing to explain by contrast; no reason to fail."""
    options = ["--config.constitutions.count=1", "--config.constitutions.rule=iid", "--config.train.updates=(1,)"]
    argv = ["run", *SHORT, "--workdir", str(tmp_path / "run"), *options, "--config.filter.keep_equal=True"]
    status, said = commands.run(*argv)
    assert status == 0, said
    assert "not explained: " in said and (tmp_path / "run/report.html").exists()


def test_a_run_is_bound_to_its_principles(undisturbed, capsys):
    workdir = undisturbed.workdir
    predicate = json.loads((workdir / "run.json").read_text())["predicate"]
    by_id = {record["id"]: record for record in predicate["principles"]}
    assert by_id["greeting"]["role"] == "held out" and by_id["reason"]["role"] == "trained"
    assert {record["status"] for record in by_id.values()} == {"approved"} and predicate["review"]["unapproved"] == []
    for folder in ("iteration_1/model", "iteration_2/model", "iteration_2/checkpoints/model"):
        assert json.loads((workdir / folder / "principles.json").read_text()) == predicate["principles"]
    card = (workdir / "iteration_2/model/README.md").read_text()
    assert "| reason@1 | trained | approved |" in card and "without approval" not in card
    assert main(["principles", "used", str(workdir), "--principle", "reason@1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[-1] for line in lines] == [str(workdir / f"iteration_{n}/model") for n in (1, 2)]
    assert main(["principles", "used", str(workdir), "--principle", "reason@2"]) == 0
    assert "no run here used reason@2" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("iteration_2/model/model.safetensors", "model.safetensors: was changed"),
        ("iteration_1/model/tokenizer.json", "tokenizer.json: was changed"),
        ("iteration_1/responses.jsonl", "responses.jsonl: was changed"),
        ("iteration_2/evaluation.json", "evaluation.json: was changed"),
        ("run.json", "run.json: "),
        ("audit.jsonl", "audit.jsonl:1: the line was changed"),
    ],
)
def test_one_changed_byte_is_found_and_named(undisturbed, tmp_path, capsys, file, words):
    workdir = tmp_path / "run"
    shutil.copytree(undisturbed.workdir, workdir)
    assert main(["verify", str(workdir)]) == 0
    content = bytearray((workdir / file).read_bytes())
    content[len(content) // 2 if file != "audit.jsonl" else 20] ^= 1
    (workdir / file).write_bytes(content)
    capsys.readouterr()
    assert main(["verify", str(workdir)]) == 2
    [line] = capsys.readouterr().err.strip().splitlines()
    assert words in line


def test_one_changed_letter_of_a_principle_is_refused(commands, tmp_path):
    folder = tmp_path / "principles"
    shutil.copytree(miniature.PRINCIPLES, folder)
    file = folder / "reason.yaml"
    file.write_text(file.read_text().replace("Give a reason", "Give a Reason"))
    argv = ["run", *SHORT, "--workdir", str(tmp_path / "run"), f"--config.principles.path={folder}"]
    status, said = commands.run(*argv)
    [line] = said.strip().splitlines()
    assert status == 2
    assert "not approved: reason@1 (draft)" in line and f"sami principles approve reason --folder {folder}" in line
    assert not (tmp_path / "run").exists()


def test_principles_the_judge_does_not_know_are_refused(commands, tmp_path):
    folder = str(tmp_path / "principles")
    texts = ["--principle", "Be brief.", "--antithesis", "Go on."]
    assert commands.run("principles", "add", "brief", *texts, "--folder", folder)[0] == 0
    assert commands.run("principles", "approve", "brief", "--reviewer", "Aiko", "--folder", folder)[0] == 0
    overrides = [f"--config.principles.path={folder}", "--config.principles.held_out=()"]
    overrides += ["--config.principles.held_out_phrasings=0", "--config.constitutions.principles=1"]
    status, said = commands.run("run", *SHORT, *overrides, "--workdir", str(tmp_path / "run"))
    assert status == 2 and "config.evaluation.judge='miniature': cannot judge brief; set it to 'none'" in said


@pytest.mark.slow
def test_unapproved_principles_and_secrets(commands, tmp_path):
    """A run with --allow_unapproved says so wherever one looks; a key in the environment or the config is nowhere."""
    folder, workdir = tmp_path / "principles", tmp_path / "run"
    shutil.copytree(miniature.PRINCIPLES, folder)
    file = folder / "reason.yaml"
    file.write_text(file.read_text().replace("Give a reason", "Give a Reason"))
    options = [
        "--allow_unapproved",
        "--config.train.updates=(1,)",
        f"--config.principles.path={folder}",
        "--config.canaries.refusals=('planted key of the judge', 'sk-planted0123456789')",
    ]
    process = sami(workdir, *options, JUDGE_API_KEY="planted key of the judge")
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert "WARNING: not approved, used because of --allow_unapproved: reason@1" in err
    predicate = json.loads((workdir / "run.json").read_text())["predicate"]
    assert predicate["review"]["unapproved"] == ["reason@1"] and predicate["review"]["open"] == pytest.approx(1 / 12)
    card = (workdir / "iteration_1/model/README.md").read_text()
    assert "**Used without approval** (`--allow_unapproved`): reason@1" in card
    assert predicate["config"]["canaries"]["refusals"] == ["***", "***"]
    for written in [out, err, *(file.read_bytes().decode("latin-1") for file in workdir.rglob("*") if file.is_file())]:
        assert "planted" not in written
    # The run knows itself again although its config is masked, also where nobody knows any more that it is a secret.
    status, said = commands.run("run", *SHORT, "--workdir", str(workdir), *options)
    assert status == 0 and "planted" not in said
    assert not [file for file in workdir.rglob("*") if file.is_file() and b"planted" in file.read_bytes()]


def test_another_config_in_the_same_folder_is_refused(undisturbed, commands):
    status, said = commands.run(
        "run", *SHORT, "--workdir", str(undisturbed.workdir), "--config.optim.learning_rate=3e-5"
    )
    line = said.strip().splitlines()[-1]
    assert status == 2
    assert "config.optim.learning_rate was 0." in line and "now 3e-05" in line


def test_export_of_a_checkpoint_equals_the_exported_model(undisturbed, tmp_path):
    workdir = undisturbed.workdir
    assert (
        main(["export", "--checkpoint", str(workdir / "iteration_2/checkpoints"), "--output", str(tmp_path / "model")])
        == 0
    )
    exported = safetensors.numpy.load_file(tmp_path / "model" / "model.safetensors")
    for name, expected in weights(workdir).items():
        np.testing.assert_array_equal(exported[name], expected)
    for name in ("tokenizer.json", "generation_config.json", "README.md"):
        assert (tmp_path / "model" / name).read_bytes() == (workdir / "iteration_2/model" / name).read_bytes()


@pytest.mark.slow
def test_stages_alone_equal_the_loop(undisturbed, tmp_path):
    workdir = undisturbed.workdir
    pairs = str(workdir / "iteration_2/pairs.jsonl")
    whole = ["--config.train.microbatches=1"]  # a query for each device
    argv = [
        "train",
        *SHORT,
        *whole,
        "--pairs",
        pairs,
        "--output",
        str(tmp_path / "train"),
        "--iteration",
        "2",
        "--config.mesh.data=-1",
        "--config.mesh.fsdp=1",
    ]
    assert main(argv) == 0
    trained = safetensors.numpy.load_file(tmp_path / "train/model/model.safetensors")
    for name, expected in weights(workdir).items():  # eight devices here, one there
        np.testing.assert_allclose(trained[name], expected, atol=2e-5)
    model, out = str(workdir / "iteration_2/model"), tmp_path / "evaluate"
    assert (
        main(
            [
                "evaluate",
                *SHORT,
                *whole,
                "--model",
                model,
                "--output",
                str(out),
                "--baseline",
                str(workdir / "iteration_0"),
            ]
        )
        == 0
    )
    ours, loops = (json.loads((folder / "evaluation.json").read_text()) for folder in (out, workdir / "iteration_2"))
    assert ours["trained"]["following"] == loops["trained"]["following"]
    assert ours["trained"]["win_rate"] == loops["trained"]["win_rate"]


@pytest.mark.slow
@pytest.mark.skipif("SAMI_REFERENCE" not in os.environ, reason="needs the public reference data")
@pytest.mark.parametrize(
    "config",
    others_in_faults(["tldr_mistral7b", "hh_mistral7b", "tldr_mixtral8x7b", "diverse_llama3_70b"], "tldr_mixtral8x7b"),
)
def test_paper_configs_run_on_real_text(config, tmp_path):
    overrides = ["--config.train.updates=(1,)", "--config.evaluation.queries=2", "--config.train.batch_size=2"]
    overrides += ["--config.prompt.max_tokens=1024"]
    argv = [
        sys.executable,
        "-m",
        "sami_jax.cli",
        "run",
        f"--config={config}:smoke",
        "--workdir",
        str(tmp_path),
        *overrides,
    ]
    finished = subprocess.run(argv, env=environment(), capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    assert "the query was cut to fit" in finished.stderr or "hh" in config
    assert json.loads((tmp_path / "iteration_1/dropped.json").read_text())["queries"] == 2
    assert len((tmp_path / "iteration_0/evaluation/trained.jsonl").read_text()) > 500


def test_rows_passed_over_are_in_the_audit_log(tmp_path, monkeypatch, capsys):
    class Begun(Exception):
        pass

    def begun(*_):
        raise Begun

    monkeypatch.setattr(loop, "evaluate", begun)
    good = (miniature.QUERIES / "train.jsonl").read_text(encoding="utf-8")
    (tmp_path / "q.jsonl").write_text('{"id": 1}\n{"id": 2, "query"\n' + good, encoding="utf-8")
    argv = [
        "run",
        "--workdir",
        str(tmp_path / "run"),
        f"--config.data.queries={tmp_path}/q.jsonl",
        "--config.mesh.data=8",
    ]
    assert main(argv) == 2 and "q.jsonl:1: no query: nothing called" in capsys.readouterr().err
    with pytest.raises(Begun):
        main([*argv, "--skip_bad_rows"])
    [event] = [e for e in read_audit(tmp_path / "run" / "audit.jsonl") if e["event"] == "rows passed over"]
    missing = "no query: nothing called query or prompt or messages or chosen or info.post"
    assert event["counts"] == {str(tmp_path / "q.jsonl"): {missing: 1, "not valid JSON": 1}}
