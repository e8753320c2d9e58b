"""Whatever a file or an option holds, `sami` does its work or says in one line why not: no traceback, ever.

Inputs are damaged at random, by seed, and driven through the command. Costly steps are patched to raise Accepted.
"""

import contextlib
import dataclasses
import gzip
import io
import json
import shutil
import signal
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random

import pyarrow
import pytest
from pyarrow import parquet
from support.fabricated_run import fabricate
from support.mutation import damaged, override

from sami_jax import miniature
from sami_jax.cli import comparing, explain, files, main
from sami_jax.config import load_config
from sami_jax.config.file import _fields
from sami_jax.miniature.untrained import write_random_bytes_model
from sami_jax.models.pretrained import open_model
from sami_jax.principles.files import read_principles
from sami_jax.stages import finetuning, loop, preparation  # noqa: F401 (imported before it is patched)

CASES = 10_000  # of the long form
SHORT = 80
PATIENCE = 20  # seconds of computing a case may take, by a clock that libtpu leaves alone; fifteen times that with all it waits for


class Accepted(BaseException):
    """The input was read to its end: what would follow is costly."""


class Hangs(BaseException):
    pass


def accept(*_, **__):
    raise Accepted


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of input: good files, those of them that are damaged, and the commands that read them."""

    share: int  # of all cases, in thousandths
    write: Callable[[Path], object]  # good files into a folder
    damaged: str  # glob of the files to damage
    commands: Callable[[Path, Random], list[list[str]]]
    bytes: int | None = None  # damaged at a file's beginning; None: anywhere


def lines(file: Path, *rows) -> None:
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


QUERIES = [{"id": n, "query": f"How do I clean the chair {n}?", "tags": ["a"]} for n in range(8)]
PAIRS = [
    {
        "id": f"p{n}",
        "query": "How do I clean the chair?",
        "constitutions": ["1. Be calm.", "1. Be lively."],
        "responses": [" Hello.", " Hi, 日本."],
        "finish_reasons": ["stop", "length"],
    }
    for n in range(4)
]
PROMPTS = [{"id": f"p{n}", "prompt": "Human: Is that clear?\n\nAssistant:"} for n in range(4)]
VERDICTS = [
    {"id": n % 4, "constitution": "1. Be calm.", "win": (1, 0.5, 0, None)[n % 4], "flipped": None, "baseline_tokens": 9,
     "test_tokens": 8 + n, "tags": ["principle a"]} for n in range(8)
]  # fmt: skip
RESPONSES = [{"id": n, "constitution": "1. Be calm.", "response": f"Yes {n}.", "tokens": 3} for n in range(4)]
PRINCIPLE = """\
id: kind
version: 2
principle: Be kind.  # always
antithesis: Be cruel.
phrasings:
  - {principle: 親切に。, antithesis: 意地悪に。}
source: {kind: writer, name: m, prompt: p, draft: d}
tags: [tone]
notes: |-
  Two
  lines.
reviews:
  - {reviewer: A, date: "2026-11-24T10:00:00Z", decision: approved, content: "sha256:ab", comment: Clear.}
"""
CONSTITUTION = {
    "positive": "1. Be kind.\n2. Be brief.",
    "negative": "1. Be cruel.\n2. Be long.",
    "identifiers": {"positive": ["pos kind", "pos brief"], "negative": ["neg kind", "neg brief"]},
}
LABELS = [
    {"data": {"item": None}, "annotations": [{"completed_by": 1, "result": [{"from_name": "better", "value": {"choices": ["1"]}}]}]}
    for _ in range(3)
]  # fmt: skip


def write_tables(folder: Path) -> None:
    """Queries as other data sets have them."""
    turns = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "R"}]
    rows = [{"id": n, "prompt": turns, "info": {"post": f"日本 {n}"}} for n in range(8)]
    parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "q.parquet")
    (folder / "q.csv").write_text('id,query\n1,"One, ""1""\n🙂"\n2,Two\n')
    text = "\n\nHuman: Q\n\nAssistant: R\n\nHuman: {}"
    (folder / "q.jsonl.gz").write_bytes(
        gzip.compress("".join(json.dumps({"chosen": text.format(n)}) + "\n" for n in range(8)).encode(), mtime=0)
    )


def write_ratings(folder: Path) -> None:
    for name in "ab":
        lines(folder / f"{name}.jsonl", *(row | {"query": "Q"} for row in RESPONSES))
    argv = ["rate", "export", "--baseline", f"{folder}/a.jsonl", "--test", f"{folder}/b.jsonl", "--output", str(folder)]
    assert main(argv) == 0
    sheet = (folder / "ratings.csv").read_text()
    (folder / "ratings.csv").write_text(sheet.replace(",,\r\n", ",1,ann\r\n").replace(",,\n", ",1,ann\n"))
    items = list(json.loads((folder / "key.json").read_text()))
    (folder / "labels.json").write_text(
        json.dumps([one | {"data": {"item": i}} for one, i in zip(LABELS, items, strict=False)])
    )
    lines(folder / "v.jsonl", *VERDICTS)


def write_model(folder: Path) -> None:
    write_random_bytes_model(folder / "m", 64, 0)
    (folder / "m" / "generation_config.json").write_text('{"eos_token_id": 0}')
    lines(folder / "in.jsonl", {"id": 1, "prompt": "Hi"})


def write_sharded_model(folder: Path) -> None:
    write_model(folder)
    (folder / "m" / "model.safetensors").rename(folder / "m" / "part.safetensors")
    names = ("model.embed_tokens.weight", "lm_head.weight", "model.norm.weight")
    index = {"metadata": {"total_size": 1}, "weight_map": dict.fromkeys(names, "part.safetensors")}
    (folder / "m" / "model.safetensors.index.json").write_text(json.dumps(index))


def write_run(folder: Path) -> None:
    fabricate(folder / "run", stopped={"last_good": 2})
    lines(folder / "run" / "iteration_1" / "explain.jsonl",
          {"id": 1, "query": "Q", "constitution": "1. A.", "response": "R", "tokens": [{"text": "R", "pmi": 0.5}],
           "principles": [{"id": "thanks", "text": "A.", "share": 0.5, "tokens": [0.5]}]})  # fmt: skip
    (folder / "run" / "iteration_1" / "model").mkdir()


def skipping(rng: Random) -> list[str]:
    return ["--skip_bad_rows"] * (rng.random() < 0.3)


SAMPLE = ["sample", "--model", str(miniature.BASE), "--output", "out.jsonl", "--max_new_tokens", "8"]
READ_MODEL = ["sample", "--model", "m", "--input", "in.jsonl", "--output", "out.jsonl", "--max_new_tokens", "8"]
PUSH = ["push", "m", "--to", "me/m", "--dry_run", "--quiet"]
READ_RUN = [
    ["verify", "run"],
    ["principles", "used", "run"],
    ["explain", "run"],
]
RATED = [
    ["rate", "import", name, "--key", "key.json", "--output", "people.jsonl", "--verdicts", "v.jsonl"]
    for name in ("ratings.csv", "labels.json")
]
KINDS = {
    "queries": Kind(100, lambda f: lines(f / "q.jsonl", *QUERIES), "q.jsonl", lambda f, rng: [
        ["run", "--config.data.queries=q.jsonl", "--workdir", "w", *skipping(rng)]]),
    "tables": Kind(60, write_tables, "q.*", lambda f, rng: [
        ["run", f"--config.data.queries={name}", "--workdir", "w", *skipping(rng)] for name in ("q.csv", "q.parquet", "q.jsonl.gz")]),
    "pairs": Kind(100, lambda f: lines(f / "p.jsonl", *PAIRS), "p.jsonl", lambda f, rng: [
        ["train", "--pairs", "p.jsonl", "--output", "o", *skipping(rng)],
        ["score", "--model", "x", "--input", "p.jsonl", "--output", "o.jsonl", *skipping(rng)]]),
    "prompts": Kind(80, lambda f: lines(f / "in.jsonl", *PROMPTS), "in.jsonl", lambda f, rng: [
        [*SAMPLE, "--input", "in.jsonl", *skipping(rng)]]),
    "verdicts": Kind(80, lambda f: lines(f / "v.jsonl", *VERDICTS), "v.jsonl", lambda f, rng: [
        ["winrate", "--input", "v.jsonl", *rng.choice(([], ["--json"], ["--ties", "drop"]))], ["rank", "a:b=v.jsonl"]]),
    "responses": Kind(60, lambda f: [lines(f / f"{n}.jsonl", *RESPONSES) for n in "ab"] + [lines(f / "q.jsonl", *QUERIES)], "*.jsonl",
        lambda f, rng: [["rate", "export", "--baseline", "a.jsonl", "--test", "b.jsonl", "--queries", "q.jsonl", "--output", "o", *skipping(rng)]]),
    "ratings": Kind(80, write_ratings, "[rkl]*.*s*", lambda f, rng: RATED),
    "principles": Kind(80, lambda f: [(f / n).write_text(PRINCIPLE.replace("kind", n[:-5], 1)) for n in ("kind.yaml", "b.yaml")], "kind.yaml",
        lambda f, rng: [["principles", "list", "--folder", "."], ["principles", "check", "--folder", "."],
            ["principles", "show", "b", "--folder", "."], ["principles", "export", "o.csv", "--folder", "."],
            ["principles", "approve", "kind", "--reviewer", "x", "--folder", "."]]),
    "authors": Kind(60, lambda f: [(f / "d.json").write_text('{"kind": {"definition": "A.", "antithesis": "B."}, "b": {"definition": "C", "antithesis": "D"}}'),
                                  (f / "c.json").write_text(json.dumps(CONSTITUTION))], "*.json",
        lambda f, rng: [["principles", "import", name, "--folder", "p"] for name in ("d.json", "c.json")]),
    "csv": Kind(40, lambda f: (f / "i.csv").write_text('id,version,principle,antithesis,tags,notes\nkind,1,"Be, kind.",Be cruel.,a b,\nkind,1,X,Y,,\n'), "i.csv",
        lambda f, rng: [["principles", "import", "i.csv", "--folder", "p"]]),
    "model": Kind(60, write_model, "m/*.json", lambda f, rng: [READ_MODEL, PUSH]),
    "weights": Kind(40, write_model, "m/*.safetensors", lambda f, rng: [READ_MODEL], 2500),
    "index": Kind(20, write_sharded_model, "m/*index.json", lambda f, rng: [READ_MODEL]),
    "record": Kind(20, lambda f: (shutil.copytree(miniature.BASE, f / "c" / "model"), (f / "c" / "adapter.json").write_text(json.dumps(
            {"base": str(miniature.BASE), "dtype": "float32", "adapter": {"rank": 2, "alpha": 4.0, "targets": ["query"]}}))), "c/adapter.json",
        lambda f, rng: [["export", "--checkpoint", "c", "--output", "o"]]),
    "run": Kind(100, write_run, "run/**/*.json*", lambda f, rng: [
        *READ_RUN, *[["report", "run", "--language", rng.choice(("en", "ja"))]] * (rng.random() < 0.4)]),  # drawing costs
    "config": Kind(80, lambda f: None, "", lambda f, rng: [
        ["run", "--workdir", "w", *(override(FIELDS, rng) for _ in range(rng.choice((1, 1, 2))))]]),
}  # fmt: skip
FIELDS = _fields(load_config("tiny", [])[0])


@pytest.fixture(scope="module", autouse=True)
def nothing_costly():
    """What is read for every case is read once, and what follows the reading is not done."""
    with pytest.MonkeyPatch.context() as patch:
        base, principles = open_model(miniature.BASE), read_principles(miniature.PRINCIPLES)
        config, _ = load_config("tiny", ["--config.mesh.data=8"])
        inputs = preparation.prepare(config, Path("w"), False)
        real = files.open_model
        patch.setattr(preparation, "read_principles", lambda folder: principles)
        patch.setattr(preparation, "open_model", accept)
        patch.setattr(
            preparation, "prepare", lambda config, workdir, allow, skipped: dataclasses.replace(inputs, skipped=skipped)
        )
        patch.setattr(finetuning, "TrainingBatches", accept)
        patch.setattr(explain, "open_model", accept)
        patch.setattr(comparing, "open_model", accept)
        patch.setattr(
            files, "open_model", lambda folder, prompt=None: real(folder, prompt=prompt) if str(folder) == "m" else base
        )
        patch.setattr(files, "make_mesh", accept)
        patch.setattr(files, "restore_params", accept)
        yield


def drive(argv: list[str]) -> str | None:
    """Runs `sami ARGV`; what is wrong with how it ended, None where nothing is."""
    told, shown = io.StringIO(), io.StringIO()
    signal.setitimer(signal.ITIMER_VIRTUAL, PATIENCE)
    signal.alarm(15 * PATIENCE)
    try:
        with contextlib.redirect_stderr(told), contextlib.redirect_stdout(shown):
            status = main(argv)
    except Accepted:
        return None
    except SystemExit as exit:  # argparse's own refusals
        status = exit.code
    except BaseException as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        ours = [f for f in traceback.extract_tb(error.__traceback__) if "sami_jax" in f.filename][-1]
        return f"{type(error).__name__} at {ours.filename.rpartition('sami_jax/')[2]}:{ours.lineno} ({frame.name}): {error!s:.100}"
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.alarm(0)
    said = told.getvalue().splitlines()
    if status not in (0, 2):
        return f"status {status}"
    news = [line for line in said if " rows passed over" not in line]
    if status == 2 and not (len(news) == 1 and news[0].startswith("sami: ")):
        return f"status 2 with {said[:3]!r:.300}"
    return None


def cases(folder: Path, name: str, count: int) -> list[str]:
    """What is wrong, by seed, with `count` cases of a kind."""
    kind, found = KINDS[name], []
    good, work = folder / "good", folder / "work"
    good.mkdir()
    kind.write(good)
    for seed in range(count):
        rng = Random(f"{name}/{seed}")
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(good, work)
        if kind.damaged:
            file = rng.choice(sorted(work.glob(kind.damaged)))
            content = file.read_bytes()
            cut = kind.bytes or len(content)
            file.write_bytes(damaged(content[:cut], rng) + content[cut:])
        with contextlib.chdir(work):
            found += [
                f"{name}/{seed}: sami {argv[0]}: {wrong}" for argv in kind.commands(work, rng) if (wrong := drive(argv))
            ]
    return found


def hang(*_):
    raise Hangs


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("total", [SHORT, pytest.param(CASES, marks=pytest.mark.faults)])
def test_no_input_brings_a_traceback(tmp_path, name, total):
    for number in (signal.SIGALRM, signal.SIGVTALRM):
        signal.signal(number, hang)
    found = cases(tmp_path, name, max(2, KINDS[name].share * total // 1000))
    by_place = Counter(one.partition(": sami ")[2] for one in found)
    assert not found, "\n" + "\n".join([*(f"{n} x {what}" for what, n in by_place.most_common(30)), *found[:10]])


# Every option that takes a path, in a command that is good otherwise.
PATHS = [
    ["run", "--workdir", "@"],
    ["run", "--config", "@"],
    ["run", "--config", "@.py"],
    ["run", "--workdir", "w", "--config.data.queries=@"],
    ["train", "--pairs", "@", "--output", "o"],
    ["train", "--pairs", "p.jsonl", "--output", "@"],
    ["evaluate", "--model", "@", "--output", "o"],
    ["sample", "--model", "base", "--input", "@", "--output", "o.jsonl", "--max_new_tokens", "8"],
    ["score", "--model", "base", "--input", "@", "--output", "o.jsonl"],
    ["explain", "@"],
    ["explain", "run", "--responses", "@"],
    ["export", "--checkpoint", "@", "--output", "o"],
    ["verify", "@"],
    ["push", "@", "--to", "me/m", "--dry_run"],
    ["report", "@"],
    ["report", "run", "--output", "@"],
    ["winrate", "--input", "@"],
    ["rank", "a:b=@"],
    ["judge", "--baseline", "a.jsonl", "--test", "@", "--output", "o.jsonl", "--judge", "miniature"],
    ["judge", "--baseline", "a.jsonl", "--test", "a.jsonl", "--output", "@", "--judge", "miniature"],
    ["judge", "--baseline", "a.jsonl", "--test", "a.jsonl", "--output", "o.jsonl", "--judge", "miniature", "--principles", "@"],
    ["rate", "export", "--baseline", "a.jsonl", "--test", "a.jsonl", "--output", "@"],
    ["rate", "export", "--baseline", "a.jsonl", "--test", "a.jsonl", "--queries", "@", "--output", "o"],
    ["rate", "import", "@", "--key", "key.json", "--output", "o.jsonl"],
    ["rate", "import", "ratings.csv", "--key", "@", "--output", "o.jsonl"],
    ["rate", "import", "ratings.csv", "--key", "key.json", "--output", "@"],
    ["principles", "list", "--folder", "@"],
    ["principles", "check", "--folder", "@"],
    ["principles", "add", "x", "--principle", "A.", "--antithesis", "B.", "--folder", "@"],
    ["principles", "import", "@", "--folder", "p"],
    ["principles", "import", "i.csv", "--folder", "@"],
    ["principles", "export", "@", "--folder", "good"],
    ["principles", "export", "@", "--folder", "good", "--format", "constitutions"],
    ["principles", "used", "@"],
]  # fmt: skip
PLACES = {"folder": "folder", "missing": "none/none", "below a file": "a.jsonl/x", "no name": "", "long": "x" * 300, "no text": "\udcff", "not writable": "/proc/none/x"}  # fmt: skip


@pytest.mark.parametrize("argv", PATHS, ids=" ".join)
def test_a_path_may_lead_anywhere(tmp_path, argv):
    for name in ("ratings", "csv", "run", "pairs"):
        KINDS[name].write(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "good").mkdir()
    (tmp_path / "good" / "kind.yaml").write_text(PRINCIPLE)
    with contextlib.chdir(tmp_path):
        found = {name: drive([part.replace("@", place) for part in argv]) for name, place in PLACES.items()}
    assert not any(found.values()), found
