"""What was kept: two results files of lm-eval in the report, and what is not compared."""

import copy
import glob
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.fabricated_run import fabricate

from sami_jax import miniature
from sami_jax.cli import main
from sami_jax.report.data import gather
from sami_jax.report.kept import read_kept, section
from sami_jax.report.texts import Words

RECIPE = Path(__file__).parents[2] / "docs/judging.md"
TASKS = ("arc", "gsm", "mix", "words")


def results(model: str, **values: dict) -> dict:
    """As lm-eval 0.4.13 writes them."""
    rows = {
        "arc": {"name": "arc", "alias": " - arc", "sample_len": 100, "acc,none": 0.6, "acc_stderr,none": 0.04},
        "gsm": {"alias": "gsm", "em,strict": 0.3, "em_stderr,strict": 0.03, "em,loose": 0.4, "em_stderr,loose": 0.03},
        "mix": {"alias": "mix", "acc,none": 0.5, "acc_stderr,none": "N/A", "sample_count": {"acc,none": 200}},
        "words": {"alias": "words", "ppl,none": 25.0, "ppl_stderr,none": 0.5},
    }
    for task, changed in values.items():
        rows[task] |= changed
    return {
        "results": rows,
        "groups": {"mix": rows["mix"]},
        "group_subtasks": {"mix": ["arc", "gsm"]},
        "configs": {
            task: {"task": task, "doc_to_text": f"{{{{q}}}} <function f at {hex(id(model))}>", "num_fewshot": 0}
            | {"metadata": {"version": 1.0, "pretrained": model, "config_source": f"{model}/{task}.yaml"}}
            for task in TASKS
            if task != "mix"
        },
        "versions": dict.fromkeys(TASKS, 1.0),
        "n-shot": dict.fromkeys(TASKS, 0),
        "higher_is_better": {"arc": {"acc": True}, "gsm": {"em": True}, "mix": {"acc": True}, "words": {"ppl": False}},
        "n-samples": {task: {"original": 1200, "effective": 1200} for task in TASKS if task != "mix"},
        "config": {"model": "hf", "model_args": {"pretrained": model, "dtype": "float32"}, "fewshot_seed": 1234},
        "lm_eval_version": "0.4.13",
        "model_name": model,
        "chat_template": None,
    }


@pytest.fixture
def run(tmp_path):
    return fabricate(tmp_path / "run")


@pytest.fixture
def two(run, tmp_path):
    """The base's results and the aligned model's, and what puts them into the report."""

    class Two:
        base = results("models/base")
        aligned = results(f"{run}/iteration_1/model", arc={"acc,none": 0.45}, words={"ppl,none": 22.0})
        files = tmp_path / "base.json", tmp_path / "aligned.json"

        def write(self) -> None:
            for file, content in zip(self.files, (self.base, self.aligned), strict=True):
                file.write_text(content if isinstance(content, str) else json.dumps(content))

        def report(self, *options: str) -> int:
            self.write()
            return main(["report", str(run), "--kept", *map(str, self.files), *options])

        def section(self, language: str = "en") -> dict:
            """What the page shows of them; without its curves, which take the most of its time."""
            self.write()
            return section(read_kept(run, *self.files), gather(run), Words(language))

    return Two()


WORSE = {"difference": "-0.1500 (-0.2609 to -0.0391)", "good": "higher is better", "shown": "worse"}
SAME = {"difference": "+0.0000 (-0.0832 to +0.0832)", "good": "higher is better", "shown": "no difference shown"}


def test_the_figures(two):
    found = two.section()
    assert [tuple(row.values()) for row in found["rows"]] == [
        ("arc", "acc", "1,200", "0.6000 ± 0.0400", "0.4500 ± 0.0400", *WORSE.values()),
        ("gsm", "em (strict)", "1,200", "0.3000 ± 0.0300", "0.3000 ± 0.0300", *SAME.values()),
        ("gsm", "em (loose)", "1,200", "0.4000 ± 0.0300", "0.4000 ± 0.0300", *SAME.values()),
        ("mix (group)", "acc", "-", "0.5000", "0.5000", "+0.0000", "higher is better", "-"),
        (
            "words",
            "ppl",
            "1,200",
            "25.00 ± 0.50",
            "22.00 ± 0.50",
            "-3.00 (-4.39 to -1.61)",
            "lower is better",
            "better",
        ),
    ]
    counted = "Of 4 figures whose difference can be judged, 1 are better, 2 show no difference, 1 are worse."
    assert found["sentence"] == counted and found["notes"] == []
    models = [(label, model, file) for label, model, file, _ in found["files"]]
    aligned = two.aligned["model_name"]
    assert models == [("base model", "models/base", "base.json"), ("aligned model", aligned, "aligned.json")]
    row = two.section("ja")["rows"][0]
    assert (row["difference"], row["good"], row["shown"]) == ("-0.1500（-0.2609〜-0.0391）", "高いほど良い", "悪化")  # noqa: RUF001


def test_the_figures_for_programs(two, capsys):
    assert two.report("--json") == 0
    first, *others = json.loads(capsys.readouterr().out)["kept"]
    assert len(others) == 4 and (first["task"], first["metric"], first["direction"]) == ("arc", "acc", "worse")
    assert first["difference"] == pytest.approx(-0.15) and first["interval"] == pytest.approx(
        [-0.2609, -0.0391], abs=1e-4
    )
    mix = next(one for one in others if one["task"] == "mix")
    assert mix["interval"] is None and mix["aligned"] == [0.5, None]


def test_the_page(two, run):
    """Texts of the files stay texts; without the files there is no such section."""
    evil = "<script>alert(1)</script>\x1b[31m"
    for one in (two.base, two.aligned):
        one["results"][evil] = {f"{evil},{evil}": 0.5}
    two.aligned["results"][evil + "2"] = {"acc,none": 0.5}
    two.aligned["config"]["model_args"]["pretrained"] = evil
    assert two.report() == 0
    page = (run / "report.html").read_text(encoding="utf-8")
    assert '<a href="#kept">What was kept</a>' in page and "-0.1500 (-0.2609 to -0.0391)" in page
    assert "<script" not in page and "\x1b" not in page and page.count("&lt;script&gt;alert(1)") == 6
    assert main(["report", str(run)]) == 0 and 'id="kept"' not in (run / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "values",
    [
        {"acc_stderr,none": "N/A"},
        {"acc_stderr,none": 0.0, "acc,none": 1.0},  # all answers right: by that formula a certainty, which it is not
        {"acc_stderr,none": float("nan")},
        {"acc,none": float("inf")},
        {"acc,none": float("nan")},
    ],
)
def test_where_nothing_tells_how_far_it_may_be_off(two, values):
    two.aligned["results"]["arc"] |= values
    row = two.section()["rows"][0]
    assert row["shown"] == "-" and " to " not in row["difference"]


def test_what_is_better_may_be_unknown(two):
    for one in (two.base, two.aligned):
        one["higher_is_better"]["arc"] = {"acc": None}
    row = two.section()["rows"][0]
    assert (row["good"], row["shown"]) == ("", "-") and " to " in row["difference"]


def test_what_only_one_file_has_is_said(two):
    two.base["results"]["extra"] = {"acc,none": 0.5, "acc_stderr,none": 0.1}
    two.aligned["results"]["arc"] |= {"acc_norm,none": 0.5}
    notes = two.section()["notes"]
    assert notes == [
        "Not compared, since only the file of the base model has it: extra.",
        "Not compared, since only the file of the aligned model has it: arc acc_norm,none.",
    ]


def test_what_may_differ_is_said(two):
    two.aligned |= {"lm_eval_version": "0.4.12"}
    two.aligned["config"]["model_dtype"] = "torch.bfloat16"
    version, dtype = two.section()["notes"]
    assert "differ in lm_eval_version: 0.4.13 for the base model, 0.4.12 for the aligned model." in version
    assert "differ in config.model_dtype: null for the base model, torch.bfloat16 for" in dtype


def test_another_model_than_the_verdict_is_on_is_said(two):
    two.aligned["config"]["model_args"] = "pretrained=models/other,dtype=float32"  # as lm-eval 0.4.8 wrote it
    [note] = two.section()["notes"]
    assert "file is of models/other. Seen from here, that is not the model of iteration 1" in note


def test_adapters_are_told_from_their_base(two, run):
    two.aligned["config"]["model_args"] = {"pretrained": "models/base", "peft": f"{run}/iteration_1/adapter"}
    assert two.section()["files"][1][1] == f"{run}/iteration_1/adapter" and two.section()["notes"] == []


def change(place: str, value):
    """Of a results file."""

    def changed(content: dict) -> dict:
        content = part = copy.deepcopy(content)
        *keys, last = place.split("/")
        for key in keys:
            part = part.setdefault(key, {})
        part[last] = value
        return content

    return changed


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        ("versions/arc", 2.0, "arc: its version (versions) is 1.0 in"),
        ("n-shot/arc", 5, "arc: the number of examples in its prompt (n-shot) is 0 in"),
        ("n-samples/arc", {"original": 1200, "effective": 10}, "arc: the number of its questions (n-samples) is"),
        ("group_subtasks/mix", ["arc"], 'mix: the tasks in this group (group_subtasks) is ["arc", "gsm"] in'),
        ("configs/arc/doc_to_text", "Q: {{q}}", "arc: its setting doc_to_text is"),
        ("configs/arc/metadata/lengths", [4096], None),  # only one of them has it
        ("config/fewshot_seed", 7, "--seed (config.fewshot_seed) is 1234 in"),
        ("config/limit", 10, "--limit (config.limit) is null in"),
        ("chat_template", "{{ messages }}", "the chat template (chat_template) is null in"),
        ("config/gen_kwargs", {}, None),  # as good as null
    ],
)
def test_what_was_asked_otherwise_is_not_compared(two, capsys, place, value, words):
    two.aligned = change(place, value)(two.aligned)
    if words is None:
        assert two.section()["rows"][0]["shown"] == "worse"
        return
    assert two.report() == 2
    [line] = capsys.readouterr().err.strip().splitlines()
    assert words in line and "base.json" in line and "aligned.json: the two cannot be compared; run lm-eval" in line


def test_other_questions_are_not_compared(two, capsys):
    """Where both files were written with --log_samples."""
    two.base["task_hashes"] = {"arc": "ab"}
    assert two.section()["notes"] == []
    two.aligned["task_hashes"] = {"arc": "cd"}
    assert two.report() == 2 and "arc: the hash of its questions (task_hashes) is ab in" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (lambda content: "{", "not readable JSON"),
        (lambda content: "[1]", "the content is [1], not an object"),
        (lambda content: {"accuracy": 0.5}, "results is missing"),
        (lambda content: {"results": {"arc": 0.5}}, "results.arc is 0.5, not an object"),
        (lambda content: {"results": {"arc": {"acc": 0.5, "acc_stderr": 0.1}}}, "no figure under results"),
        (change("results/arc/acc,none", "high"), "results.arc.acc,none is 'high', not int | float"),
        (change("results/arc/acc,none", True), "results.arc.acc,none is True, not int | float"),
        (change("results/arc/acc_stderr,none", "?"), "the standard error of results.arc.acc,none is '?'"),
        (change("results/arc/acc_stderr,none", -0.1), "the standard error of results.arc.acc,none is -0.1, below 0"),
        (change("versions", [1]), "versions is [1], not an object"),
        (change("results", {"other": {"acc,none": 0.5}}), "has no task and metric that"),
        (change("config/model_args/pretrained", "models/base"), "is of models/base, as"),
    ],
)
def test_a_bad_file_is_one_line(two, capsys, made, words):
    two.aligned = made(two.aligned)
    assert two.report() == 2
    [line] = capsys.readouterr().err.strip().splitlines()
    assert "aligned.json" in line and words in line


def test_a_file_that_is_not_there_is_one_line(two, run, capsys):
    two.write()
    assert main(["report", str(run), "--kept", str(two.files[0]), str(run / "nothing.json")]) == 2
    assert "nothing.json: No such file or directory; give the results file" in capsys.readouterr().err


def test_the_wrong_order_is_told(two, capsys):
    two.base, two.aligned = two.aligned, two.base
    assert two.report() == 2
    assert "a model of this run; give the base's results first" in capsys.readouterr().err


def test_one_file_is_not_enough(run, capsys):
    with pytest.raises(SystemExit) as refused:
        main(["report", str(run), "--kept", "base.json"])
    assert refused.value.code == 2 and "--kept: expected 2 arguments" in capsys.readouterr().err


@pytest.mark.slow
def test_the_recipe(tmp_path, monkeypatch, capsys):
    """The commands of the page, as they stand there, on its task: lm-eval asks the embedded base, and one that forgot some of it."""
    pytest.importorskip("lm_eval", reason="needs lm-eval[hf]")
    from safetensors.numpy import load_file, save_file

    told = RECIPE.read_text(encoding="utf-8").split("## What was kept")[1].split("\n## ")[0]
    blocks = dict(re.findall(r"^```(\w+)\n(.*?)^```$", told, re.S | re.M))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    shutil.copytree(miniature.BASE, "models/mine")
    aligned = fabricate(tmp_path / "runs/mine", trained=3) / "iteration_3/model"
    shutil.copytree(miniature.BASE, aligned)
    weights = load_file(aligned / "model.safetensors")
    save_file({key: weight * 0.9 for key, weight in weights.items()}, aligned / "model.safetensors", {"format": "pt"})
    Path("tasks").mkdir()
    Path("tasks/kept.yaml").write_text(blocks["yaml"])
    Path("tasks/kept.jsonl").write_text(blocks["json"])

    install, *asked = blocks["text"].strip().splitlines()
    assert install.startswith("pip install 'lm-eval[hf]")
    for command in asked:
        program, *options = shlex.split(command)
        assert program == "lm-eval"
        done = subprocess.run([sys.executable, "-m", "lm_eval", *options], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
    program, *options = shlex.split(blocks["sh"])
    assert program == "sami"
    assert main([name for option in options for name in (glob.glob(option) or [option])]) == 0
    files = [Path(name) for pattern in ("base", "aligned") for name in glob.glob(f"kept/{pattern}_*.json")]
    found = section(read_kept(Path("runs/mine"), *files), gather(Path("runs/mine")), Words("en"))
    written = [json.loads(file.read_text())["results"]["kept"] for file in files]
    [row, _] = found["rows"]
    assert (row["task"], row["metric"], row["good"], found["notes"]) == ("kept", "acc", "higher is better", [])
    assert int(row["questions"]) == blocks["json"].count("question")
    for name, one in zip(("base", "aligned"), written, strict=True):
        assert row[name] == f"{one['acc,none']:.4f} ± {one['acc_stderr,none']:.4f}"
    assert row["difference"] in Path("runs/mine/report.html").read_text(encoding="utf-8")
