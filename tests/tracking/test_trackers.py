"""What trackers are told, by the same names each, also of a run that was stopped and goes on: read back from what they wrote."""

import json
import struct
from pathlib import Path

import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog

from sami_jax.cli import main
from sami_jax.config import load_config
from sami_jax.data.jsonl import write_json, write_jsonl
from sami_jax.errors import UserError
from sami_jax.stages import metrics
from sami_jax.tracking import trackers
from sami_jax.tracking.trackers import IDS, Trackers, check_trackers, open_trackers

PRINCIPLE = {
    "id": "calm",
    "version": 1,
    "role": "trained",
    "status": "approved",
    "phrasings": [["Be calm.", "Be wild."]],
}
RESPONSE = {"id": "1", "query": "Q", "constitution": "1. Be calm.", "response": "R\x1b[2J sk-planted0123456789"}
LOSSES = "iteration_1/loss"


def config_of(*to: str):
    return load_config("tiny", ["--config.train.updates=(3,2)", f"--config.track.to={to!r}"])[0]


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)


def live(config, workdir: Path, updates: range, resume_step: int = 0) -> None:
    """A life of a run: the base's evaluation, if it is not there, then updates of the first iteration."""
    with open_trackers(config, workdir) as told:
        told.describe(json.loads(config.to_json()), [PRINCIPLE])
        metrics.tell_again(told, config, workdir)
        base = workdir / "iteration_0"
        if not base.exists():
            write_jsonl(base / "evaluation" / "trained.jsonl", [RESPONSE] * 5)
            write_json(
                base / "evaluation.json", {"trained": {"following": 0.5, "mean_s": [[1.0]], "win_rate": float("nan")}}
            )
            metrics.tell_evaluation(told, config, 0, base)
        log = metrics.MetricsLog(workdir / "iteration_1", told, config, 1, resume_step)
        for number in updates:
            log.write(number, {"loss": 1 / number, "kl": float("nan")})


def two_lives(name: str, workdir: Path):
    """Killed in update 3, whose last checkpoint is that of update 1; config and what was kept of the tracker's id."""
    config = config_of(name)
    live(config, workdir, range(1, 3))
    with open(workdir / "iteration_1/metrics.jsonl", "a") as stream:  # killed before a tracker heard of it
        stream.write('{"step": 3, "loss": 0.3333333333333333}\n')
    ids = json.loads((workdir / IDS).read_text())
    live(config, workdir, range(2, 4), resume_step=1)
    assert json.loads((workdir / IDS).read_text()) == ids
    return config, ids[name]


def frames(content: bytes, place: int = 0):
    """Of TensorBoard's files: length, checksum, bytes, checksum."""
    while place < len(content):
        (length,) = struct.unpack_from("<Q", content, place)
        yield content[place + 12 : place + 12 + length]
        place += 16 + length


def test_tensorboard_forgets_what_comes_again(tmp_path):
    two_lives("tensorboard", tmp_path)
    files = sorted((tmp_path / "tensorboard").iterdir(), key=lambda file: file.stat().st_mtime_ns)
    assert len(files) == 2
    kept: list[tuple[str, int, float]] = []
    texts = set()
    for event in map(Event.FromString, (frame for file in files for frame in frames(file.read_bytes()))):
        if event.session_log.status == SessionLog.START:  # as TensorBoard itself does
            kept = [one for one in kept if one[1] < event.step]
        for value in event.summary.value:
            if value.metadata.plugin_data.plugin_name == "text":
                texts.add((value.tag.removesuffix("/text_summary"), value.tensor.string_val[0].decode()))
            else:
                kept.append((value.tag, event.step, round(value.simple_value, 4)))
    losses = [(LOSSES, 1, 1.0), (LOSSES, 2, 0.5), (LOSSES, 3, 0.3333)]
    assert kept == [("evaluation/trained/following", 0, 0.5), *losses]
    names = dict(texts)
    assert "Be wild." in names["principles"] and '"learning_rate"' in names["config"]
    assert "\x1b" not in names["evaluation/trained/examples"] and "planted" not in names["evaluation/trained/examples"]


def wandb_records(file: Path):
    """Of W&B's files: a header of 7 bytes, then blocks of 32 KiB of records with checksum, length and kind."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, place, part = file.read_bytes(), 7, b""
    while place + 7 < len(content):
        if (left := 32768 - place % 32768) < 7:
            place += left
            continue
        length, kind = struct.unpack_from("<HB", content, place + 4)
        part += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # the whole, or the last part
            yield Record.FromString(part)
            part = b""


@pytest.mark.slow
def test_wandb_offline(tmp_path):
    import wandb

    _, id = two_lives("wandb", tmp_path)
    wandb.teardown()  # as at the end of a process: waits until all is on disk
    files = sorted(tmp_path.glob(f"wandb/offline-run-*-{id}/run-{id}.wandb"))
    assert len(files) == 2
    for file, updates in zip(files, (2, 3), strict=True):
        rows, configs = {}, {}
        for record in wandb_records(file):
            if record.HasField("run"):
                assert (record.run.run_id, record.run.project, record.run.display_name) == (id, "sami", tmp_path.name)
            for update in record.run.config.update if record.HasField("run") else record.config.update:
                configs[update.key or update.nested_key[0]] = update.value_json
            if record.HasField("history"):
                row = {
                    "/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item
                }
                assert row["_step"] not in rows
                rows[row["_step"]] = {name: value for name, value in row.items() if not name.startswith("_")}
        # Each life's file holds all steps until its end, once.
        assert list(rows) == list(range(updates + 1))
        assert rows[0]["evaluation/trained/following"] == 0.5
        assert [rows[n] for n in range(1, updates + 1)] == [{LOSSES: 1 / n} for n in range(1, updates + 1)]
        assert "learning_rate" in configs["optim"]
        tables = [path.read_text() for path in file.parent.rglob("*.table.json")]
        assert any("Be wild." in table for table in tables) and any("x1b" in table for table in tables)
        assert not any("planted" in table for table in tables)


@pytest.mark.slow
def test_mlflow_in_a_local_store(tmp_path):
    import mlflow

    config, id = two_lives("mlflow", tmp_path)
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    found = client.get_run(id)
    assert found.info.status == "FINISHED" and found.info.run_name == tmp_path.name
    assert found.data.params["optim.learning_rate"] == str(config.optim.learning_rate)
    assert [(m.step, m.value) for m in client.get_metric_history(id, LOSSES)] == [(n, 1 / n) for n in range(1, 4)]
    assert [m.value for m in client.get_metric_history(id, "evaluation/trained/following")] == [0.5]
    artifacts = Path(found.info.artifact_uri.removeprefix("file://"))
    assert artifacts.is_relative_to(tmp_path)
    examples = json.loads((artifacts / "evaluation/trained/examples/0.json").read_text())
    assert len(examples) == 3 and examples[0]["response"] == "R\\x1b[2J ***"
    assert json.loads((artifacts / "principles.json").read_text())[0]["antithesis"] == "Be wild."
    assert json.loads((artifacts / "config.json").read_text())["track"]["to"] == ["mlflow"]
    # A store that does not have the run.
    write_json(tmp_path / IDS, {"mlflow": "0" * 32})
    with pytest.raises(UserError, match=r"mlflow, sqlite:.*remove trackers\.json to begin a new one") as error:
        open_trackers(config, tmp_path)
    assert "\n" not in str(error.value)


def test_steps_count_updates_and_evaluations():
    config = config_of()
    evaluations = [metrics.steps_before(config, iteration + 1) for iteration in (0, 1, 2)]
    assert evaluations == [0, 4, 7]  # with updates 1 to 3, and 5 to 6


def test_a_service_that_fails_is_left_out(capsys):
    class Failing:
        id, faults, calls = "x", (ConnectionError,), 0

        def tell(self, *_):
            self.calls += 1
            raise ConnectionError("no\nroute")

    failing = Failing()
    told = Trackers({"mlflow": failing})
    for step in range(2):
        told.tell(step, {"a": 1.0})
    assert (
        failing.calls == 1 and "WARNING: mlflow does not follow this run any more: no route" in capsys.readouterr().err
    )


def test_what_is_missing_is_said_before_anything_costly(tmp_path, monkeypatch, capsys):
    def refused(name: str) -> str:
        argv = ["run", "--config=tiny", f"--config.track.to=('{name}',)", "--workdir", str(tmp_path / "run")]
        assert main(argv) == 2 and not (tmp_path / "run").exists()
        [line] = capsys.readouterr().err.splitlines()
        return line

    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda name: name)
    assert "wandb has no key; set WANDB_API_KEY in the environment, or WANDB_MODE=offline" in refused("wandb")
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda name: None)
    for name in ("wandb", "mlflow"):
        assert f"config.track.to: {name} is not installed; pip install 'sami_jax[{name}]'" in refused(name)
    assert "track.to=('tensorbord',): must be some of tensorboard, wandb, mlflow" in refused("tensorbord")
    check_trackers(config_of())
