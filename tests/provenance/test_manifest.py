"""run.json and `verify`: what was recorded is what is there; a run is continued as itself or not at all."""

import copy
import hashlib
import json

import pytest

from sami_jax.data.chat import DATE
from sami_jax.errors import UserError
from sami_jax.provenance.manifest import RunRecord, masked_fields, read_statement, uses
from sami_jax.provenance.verify import verify

PREDICATE = {
    "config": {
        "seed": 0,
        "model": {"path": "/a/base"},
        "constitutions": {"count": 2},
        "objective": {"normalize": "mean"},
        "optim": {"learning_rate": 1e-4},
        "evaluation": {"judge": "none"},
    },
    "seed": 0,
    "review": {"unapproved": []},
    "principles": [
        {
            "id": "kind",
            "version": 2,
            "hash": "sha256:ab",
            "status": "approved",
            "role": "trained",
            "approved_by": ["ann"],
            "phrasings": [["Be kind.", "Be cruel."]],
        }
    ],
    "inputs": {"queries": {"path": "/a/q.jsonl", "sha256": "12"}},
    "base_model": {"path": "/a/base", "files": {"model.safetensors": "34"}},
    "status": "running",
}
DEVICES = {"kind": "cpu", "count": 1}


@pytest.fixture
def workdir(tmp_path):
    """A finished run of one iteration."""
    record = RunRecord(tmp_path, PREDICATE, DEVICES)
    model = tmp_path / "iteration_1" / "model"
    model.mkdir(parents=True)
    (model / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "iteration_1" / "pairs.jsonl").write_text("{}\n")
    record.stage("sampled", 1, [tmp_path / "iteration_1" / "pairs.jsonl"])
    record.publish(model)
    record.finish("complete")
    return tmp_path


def changed(path: list, value) -> dict:
    predicate = copy.deepcopy(PREDICATE)
    part = predicate
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    return predicate


def test_a_run_that_is_older_than_a_field_goes_on_with_its_default(tmp_path):
    RunRecord(tmp_path, PREDICATE, DEVICES)
    RunRecord(tmp_path, changed(["config", "prompt"], {"date": DATE}), DEVICES)
    with pytest.raises(UserError, match=r"config.prompt.date was '2024-07-26', now '2026-11-30'"):
        RunRecord(tmp_path, changed(["config", "prompt"], {"date": "2026-11-30"}), DEVICES)


def test_is_an_in_toto_statement(workdir):
    statement = read_statement(workdir)
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    digest = {"sha256": hashlib.sha256(b"weights").hexdigest()}
    assert statement["subject"] == [{"name": "iteration_1/model/model.safetensors", "digest": digest}]
    found = verify(workdir)
    assert (found.files, found.principles, found.status) == (2, 1, "complete")


@pytest.mark.parametrize("file", ["iteration_1/model/model.safetensors", "iteration_1/pairs.jsonl"])
@pytest.mark.parametrize("change", ["flip", "remove"])
def test_a_changed_file_is_named(workdir, file, change):
    content = bytearray((workdir / file).read_bytes())
    content[0] ^= 1
    (workdir / file).write_bytes(content) if change == "flip" else (workdir / file).unlink()
    with pytest.raises(UserError, match=f"{file}: {'was changed' if change == 'flip' else 'missing'}"):
        verify(workdir)


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ('"learning_rate": 0.0001', '"learning_rate": 0.0002', "predicate.config.optim.learning_rate was changed"),
        ('"hash": "sha256:ab"', '"hash": "sha256:ac"', "predicate.principles[0].hash was changed"),
        ('"seed": 0', '"sead": 0', "predicate.config.seed is missing"),
        ('"status": "complete"', '"status": "complete", "approved": "by all"', "predicate.approved was added"),
        ("model.safetensors", "model.safetensorz", "subject[0].name was changed"),
    ],
)  # fmt: skip
def test_a_changed_manifest_field_is_named(workdir, old, new, field):
    file = workdir / "run.json"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new, 1))
    with pytest.raises(UserError) as error:
        verify(workdir)
    assert field in str(error.value)


def test_lines_cut_off_the_logs_end_are_noticed(workdir):
    lines = (workdir / "audit.jsonl").read_text().splitlines(keepends=True)
    (workdir / "audit.jsonl").write_text("".join(lines[:-1]))
    with pytest.raises(UserError, match=r"run\.json: predicate.status was changed"):
        verify(workdir)
    (workdir / "audit.jsonl").unlink()
    with pytest.raises(UserError, match=r"audit\.jsonl: missing"):
        verify(workdir)


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (["config", "optim", "learning_rate"], 2e-4, "config.optim.learning_rate was 0.0001, now 0.0002"),
        (["principles", 0, "hash"], "sha256:cd", "principles: kind@2 was 'sha256:ab', now 'sha256:cd'"),
        (["inputs", "queries", "sha256"], "99", "inputs.queries was '12', now '99'"),
        (["base_model", "files", "model.safetensors"], "99", "base_model: model.safetensors was '34', now '99'"),
    ],
)
def test_another_run_is_refused_with_the_difference(workdir, path, value, words):
    with pytest.raises(UserError) as error:
        RunRecord(workdir, changed(path, value), DEVICES)
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("path", "value"), [(["config", "model", "path"], "/b/base"), (["principles", 0, "approved_by"], ["ann", "bob"])]
)
def test_the_same_run_elsewhere_goes_on(workdir, path, value):
    RunRecord(workdir, changed(path, value), DEVICES)
    assert read_statement(workdir)["predicate"]["status"] == "complete"
    verify(workdir)


def test_ordinary_words_are_no_secrets(tmp_path, monkeypatch):
    """Of a variable that manuals advise to fill with anything."""
    made_from = changed(["config", "prompt"], {"training": "Do not promise anything. Never ask the password. {query}"})
    for name, value in (("OPENAI_API_KEY", "anything"), ("DB_PASSWORD", "password")):
        monkeypatch.setenv(name, value)
    RunRecord(tmp_path, made_from, DEVICES)
    assert read_statement(tmp_path)["predicate"]["config"] == made_from["config"]
    monkeypatch.delenv("OPENAI_API_KEY")
    RunRecord(tmp_path, made_from, DEVICES)
    verify(tmp_path)


def test_a_masked_run_is_compared_by_what_it_was_made_from(tmp_path, monkeypatch):
    key, other = "my-vllm-token-123", "your-vllm-token-456"
    made_from = changed(["config", "prompt"], {"training": f"Say {key}. {{query}}"})
    monkeypatch.setenv("OPENAI_API_KEY", key)
    RunRecord(tmp_path, made_from, DEVICES)
    assert read_statement(tmp_path)["predicate"]["config"]["prompt"]["training"] == "Say ***. {query}"
    assert key not in (tmp_path / "run.json").read_text() + (tmp_path / "audit.jsonl").read_text()
    assert masked_fields(read_statement(tmp_path)["predicate"]) == ["config.prompt.training"]
    monkeypatch.setenv("OPENAI_API_KEY", other)
    RunRecord(tmp_path, made_from, DEVICES)  # the same, whatever is secret today
    another = changed(["config", "prompt"], {"training": f"Say {other}. {{query}}"})
    with pytest.raises(UserError, match=r"config.prompt.training was 'Say \*\*\*") as error:
        RunRecord(tmp_path, another, DEVICES)
    assert other not in str(error.value)
    RunRecord(tmp_path, PREDICATE, DEVICES, force=True)
    assert masked_fields(read_statement(tmp_path)["predicate"]) == []
    verify(tmp_path)


def test_going_on_does_not_hide_a_change(workdir):
    weights = workdir / "iteration_1/model/model.safetensors"
    weights.write_bytes(b"other weights")
    record = RunRecord(workdir, PREDICATE, DEVICES)
    record.stage("sampled", 1, [workdir / "iteration_1" / "pairs.jsonl"])
    record.publish(weights.parent)
    record.finish("complete")
    with pytest.raises(UserError, match=r"model\.safetensors: was changed"):
        verify(workdir)


def test_a_crash_between_log_and_manifest_mends_itself(workdir):
    before = (workdir / "run.json").read_bytes()
    record = RunRecord(workdir, PREDICATE, DEVICES)
    record.finish("stopped by canaries")
    del record
    (workdir / "run.json").write_bytes(before)  # as if the second write had never come
    with pytest.raises(UserError, match="status"):
        verify(workdir)
    RunRecord(workdir, PREDICATE, DEVICES).finish("stopped by canaries")
    assert verify(workdir).status == "stopped by canaries"


def test_uses(workdir):
    [use] = uses(workdir)
    assert (use.principle, use.role, use.status) == ("kind@2", "trained", "approved")
    assert use.model == str(workdir / "iteration_1" / "model")


@pytest.mark.parametrize("content", ["", "[]", "{", json.dumps({"_type": "x", "predicateType": "y"})])
def test_a_damaged_manifest_is_refused(tmp_path, content):
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(UserError, match="damaged manifest"):
        read_statement(tmp_path)
