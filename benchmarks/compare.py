"""sami_jax beside transformers + torch, and of a real model beside CTranslate2, llama.cpp and peft: `python -m benchmarks.compare --output benchmarks/results/cpu.json`.

Every side runs in a process of its own, the sides taking turns. First a round that is not timed, in which all sides must agree: S
to 1e-4, gradients to a cosine of 0.99999, greedy tokens one by one, up to ties. Times are of warm steps; compilation is given apart.
"""

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from benchmarks import cases

S_TOLERANCE, COSINE = 1e-4, 0.99999
TIE = 1e-6  # of two logits: less than float32 tells apart
TRAINING_SIDES = {"T0": "torch_side", "T1": "torch_side", "J0": "jax_side", "J1": "jax_side"}
ADAPTER_SIDES = {"peft": "torch_side", "LoRA": "jax_side"}
GENERATION_SIDES = {"dynamic": "torch_side", "static": "torch_side", "ours": "jax_side"}
ENGINE_SIDES = {"CTranslate2": "engines", "llama.cpp": "engines"}  # of the real model
OUT_OF_MEMORY = "out of memory"
MEMORY_LIMIT = 20 * 2**30  # bytes of address space a side may take


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="JSON file; the table is written beside it, as .md")
    parser.add_argument("--rounds", type=int, default=2, help="timed processes of each side")
    parser.add_argument("--seconds", type=float, default=4.0, help="least time measured in each")
    parser.add_argument("--task", choices=("train", "adapters", "generate"), help="by default all")
    parser.add_argument("--model", choices=cases.NAMES, help="by default all")
    parser.add_argument("--size", type=int, help="one C or batch; by default all")
    arguments = parser.parse_args()
    report = earlier(arguments.output)
    with tempfile.TemporaryDirectory() as folder:
        for name in [arguments.model] if arguments.model else cases.NAMES:
            model = cases.REAL_FOLDER if name == cases.REAL else Path(folder) / name
            if name != cases.REAL:
                write_model(model, cases.MODELS[name])
            if arguments.task in (None, "generate"):
                for batch in chosen(cases.BATCHES, arguments.size):
                    add(generation_case(name, model, batch, arguments), report, arguments.output)
            for task, sides in (("train", TRAINING_SIDES), ("adapters", ADAPTER_SIDES)):
                if arguments.task in (None, task) and (task == "train" or name == cases.REAL):
                    for count in chosen(cases.COUNTS, arguments.size):
                        add(training_case(task, sides, name, model, count, arguments), report, arguments.output)
    print(markdown(report))


def chosen(sizes: tuple[int, ...], size: int | None) -> tuple[int, ...]:
    return tuple(one for one in sizes if size in (None, one))


def earlier(file: Path) -> dict:
    """The report so far, where it is of this machine and these versions; else a new one."""
    report = {"machine": machine(), "results": []}
    if file.exists():
        found = json.loads(file.read_text(encoding="utf-8"))
        if found["machine"] | {"date": report["machine"]["date"]} == report["machine"]:
            report["results"] = found["results"]
    return report


def case(result: dict) -> tuple:
    return result["task"], cases.NAMES.index(result["model"]), result.get("C") or result["batch"]


def add(result: dict, report: dict, file: Path) -> None:
    """Keeps each result as it comes, in place of an earlier one of its case."""
    others = [other for other in report["results"] if case(other) != case(result)]
    report["results"] = sorted([*others, result], key=case)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    file.with_suffix(".md").write_text(markdown(report), encoding="utf-8")


def write_model(folder: Path, shape: dict) -> None:
    """A Llama of random weights, in a process of its own."""
    script = (
        "import sys, json, torch, transformers; torch.manual_seed(0); s = json.loads(sys.argv[2])\n"
        "config = transformers.LlamaConfig(hidden_size=s['d'], num_hidden_layers=s['layers'], num_attention_heads=s['heads'],"
        " num_key_value_heads=s['kv_heads'], intermediate_size=s['d_ff'], vocab_size=s['vocabulary'],"
        " max_position_embeddings=1024, tie_word_embeddings=False)\n"
        "transformers.LlamaForCausalLM(config).save_pretrained(sys.argv[1])"
    )
    subprocess.run([sys.executable, "-c", script, str(folder), json.dumps(shape)], check=True, capture_output=True)


def write_adapter(model: Path, folder: Path) -> None:
    """Adapters of random weights in peft's format, in a process of its own."""
    script = (
        "import sys, peft, torch, transformers; torch.manual_seed(0)\n"
        "config = peft.LoraConfig(r=8, lora_alpha=16, target_modules='all-linear', init_lora_weights=False)\n"
        "model = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1])\n"
        "peft.get_peft_model(model, config).save_pretrained(sys.argv[2])"
    )
    subprocess.run([sys.executable, "-c", script, str(model), str(folder)], check=True, capture_output=True)


def training_case(task: str, sides: dict, name: str, model: Path, count: int, arguments) -> dict:
    options = ["--task", task, "--count", str(count)]
    with tempfile.TemporaryDirectory() as folder:
        if task == "adapters":
            write_adapter(model, Path(folder) / "adapter")
            options += ["--adapter", str(Path(folder) / "adapter")]
        measured = measure(sides, model, options, Path(folder), arguments)
        agreement = check_training(Path(folder), [side for side in sides if measured[side]])
    return {"task": task, "model": name, "C": count, "agreement": agreement, "sides": measured}


def generation_case(name: str, model: Path, batch: int, arguments) -> dict:
    options = ["--task", "generate", "--batch", str(batch)]
    sides = GENERATION_SIDES | (ENGINE_SIDES if name == cases.REAL else {})
    with tempfile.TemporaryDirectory() as folder:
        measured = measure(sides, model, options, Path(folder), arguments)
        tokens = {side: np.load(Path(folder) / side / "tokens.npy") for side in sides}
    ours = tokens.pop("ours")
    agreement = {side: check_generation(model, ours, theirs, side) for side, theirs in tokens.items()}
    return {"task": "generate", "model": name, "batch": batch, "agreement": agreement, "sides": measured}


def measure(sides: dict, model: Path, options: list[str], checks: Path, arguments) -> dict:
    """One round to agree, then the timed ones, every other of them in reverse order."""
    rounds = {side: [] for side in sides}
    for number in range(arguments.rounds + 1):
        for side in list(sides)[:: 1 if number % 2 else -1]:
            if rounds[side] is None:
                continue
            seconds = arguments.seconds if number else 0.0
            command = [
                sys.executable,
                "-m",
                f"benchmarks.{sides[side]}",
                "--side",
                side,
                "--model",
                str(model),
                *options,
            ]
            command += ["--check", str(checks / side), "--seconds", str(seconds)]
            done = subprocess.run(command, capture_output=True, text=True, env=environment(), preexec_fn=limit_memory)
            if done.returncode:
                if "alloc" not in done.stderr.lower() and "memory" not in done.stderr.lower():
                    raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr}")
                rounds[side] = None
            elif number:
                rounds[side].append(json.loads(done.stdout.splitlines()[-1]))
            print(side, *options, OUT_OF_MEMORY if done.returncode else done.stdout.splitlines()[-1][:120], flush=True)
    return {side: measured and summary(measured) for side, measured in rounds.items()}


def environment() -> dict:
    return os.environ | {"JAX_PLATFORMS": "cpu", "TRANSFORMERS_VERBOSITY": "error", "HF_HUB_OFFLINE": "1"}


def limit_memory() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_LIMIT, MEMORY_LIMIT))


def summary(rounds: list[dict]) -> dict:
    seconds = [second for one in rounds for second in one["seconds"]]
    return {
        "median": statistics.median(seconds),
        "min": min(seconds),
        "max": max(seconds),
        "steps": len(seconds),
        "first": statistics.median(one["first"] for one in rounds),
        "memory": statistics.median(one["memory"] for one in rounds),
        "memory_before": statistics.median(one["memory_before"] for one in rounds),
    }


def check_training(folder: Path, sides: list[str]) -> dict:
    """Compares each side with the last, ours."""
    *others, own = sides
    ours_s, ours = np.load(folder / own / "s.npy"), load_file(folder / own / "gradient")
    agreement = {}
    for side in others:
        difference = float(np.abs(np.load(folder / side / "s.npy") - ours_s).max())
        theirs = load_file(folder / side / "gradient")
        dot, norms = 0.0, [0.0, 0.0]
        for name in ours:
            a, b = ours[name].astype(np.float64).ravel(), theirs[name].astype(np.float64).ravel()
            dot, norms = dot + a @ b, [norms[0] + a @ a, norms[1] + b @ b]
        cosine = float(dot / np.sqrt(norms[0] * norms[1]))
        if difference >= S_TOLERANCE or cosine <= COSINE:
            raise SystemExit(
                f"{folder}: {own} and {side} disagree: S by {difference:.1e}, gradient cosine {cosine:.7f}"
            )
        agreement[side] = {"s": difference, "gradient_cosine": cosine}
    return agreement


def check_generation(model: Path, ours: np.ndarray, theirs: np.ndarray, side: str) -> dict:
    """Compares [R, NEW_TOKENS] tokens. A row may part from the side's where two tokens tie in float64."""
    parted = np.flatnonzero((ours != theirs).any(axis=1))
    if parted.size:
        import torch
        import transformers

        exact = transformers.LlamaForCausalLM.from_pretrained(model, dtype=torch.float64)  # a local folder  # nosec B615
        prompts = cases.generation_prompts(exact.config.vocab_size, len(ours))
    for row in parted:
        place = np.argmax(ours[row] != theirs[row])
        with torch.no_grad():
            logits = exact(torch.tensor([[*prompts[row], *ours[row, :place]]])).logits[0, -1]
        gap = float(logits.max() - min(logits[ours[row, place]], logits[theirs[row, place]]))
        if gap > TIE:
            raise SystemExit(
                f"{model}, row {row}: token {place} is not that of {side}, and their logits are {gap:.1e} apart"
            )
    return {"tokens": float(np.mean(ours == theirs)), "ties": len(parted)}


def machine() -> dict:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "")
    names = ("jax", "jaxlib", "flax", "torch", "transformers", "peft", "numpy", "ctranslate2", "xllamacpp")
    return {
        "date": datetime.date.today().isoformat(),
        "cpu": cpu or platform.processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in names},
    }


def markdown(report: dict) -> str:
    machine = report["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    about = f"{machine['date']}, {machine['cores']} cores, {machine['cpu']}, Python {machine['python']}, {versions}."
    lines = [about]
    for task, rows in (("train", training_rows), ("adapters", adapter_rows), ("generate", generation_rows)):
        if results := [result for result in report["results"] if result["task"] == task]:
            said, header, cells = rows(results)
            lines += ["", said, ""]
            lines += [f"| {' | '.join(map(str, row))} |" for row in (header, ["---"] * len(header), *cells)]
    return "\n".join(lines) + "\n"


def training_rows(results: list[dict]) -> tuple[str, list[str], list[list]]:
    """What a table says above it, its header and its rows."""
    said = f"One update on one query: prompts of {cases.PREFIX} tokens, responses of {cases.RESPONSE}. Seconds, median (min); peak memory of the process."
    header = ["model", "C", "T0 reference", "T1 fair", "J0 plain", "J1 sami_jax", "T0 / J1", "T1 / J1", "J0 / J1"]
    rows = []
    for result in results:
        sides, own = result["sides"], result["sides"]["J1"]
        cells = [result["model"], result["C"], *(seconds(sides[side]) for side in TRAINING_SIDES)]
        cells += [ratio(sides[side], own, "median") for side in ("T0", "T1", "J0")]
        rows.append([*cells, gibibytes(sides["T0"]), gibibytes(own), ratio(own, sides["T0"], "memory")])
    return said, [*header, "memory T0", "memory J1", "J1 / T0"], rows


def adapter_rows(results: list[dict]) -> tuple[str, list[str], list[list]]:
    rows = []
    for result in results:
        sides, own = result["sides"], result["sides"]["LoRA"]
        cells = [result["model"], result["C"], *(seconds(sides[side]) for side in ADAPTER_SIDES)]
        cells += [ratio(sides["peft"], own, "median"), gibibytes(sides["peft"]), gibibytes(own)]
        rows.append(cells)
    said = "The same with adapters of rank 8 on all projections, T1 by peft."
    return said, ["model", "C", "T1, peft", "sami_jax", "peft / sami_jax", "memory, peft", "memory, sami_jax"], rows


def generation_rows(results: list[dict]) -> tuple[str, list[str], list[list]]:
    names, rows = (*GENERATION_SIDES, *ENGINE_SIDES), []
    for result in results:
        sides, tokens = result["sides"], result["batch"] * cases.NEW_TOKENS
        best = min((side for name, side in sides.items() if name != "ours"), key=lambda side: side["median"])
        speeds = [f"{tokens / sides[name]['median']:,.0f}" if name in sides else "-" for name in names]
        rows.append([result["model"], result["batch"], *speeds, ratio(best, sides["ours"], "median")])
    said = (
        f"Greedy generation: prompts of {cases.PROMPT} tokens, {cases.NEW_TOKENS} new ones. Tokens per second (median)."
    )
    header = ["model", "batch", "transformers, dynamic cache", "static cache", "sami_jax", *ENGINE_SIDES]
    return said, [*header, "against the best"], rows


def seconds(side: dict | None) -> str:
    return f"{side['median']:.2f} ({side['min']:.2f})" if side else OUT_OF_MEMORY


def gibibytes(side: dict | None) -> str:
    return f"{side['memory'] / 2**30:.1f} GiB" if side else "> 20 GiB"


def ratio(one: dict | None, other: dict | None, key: str) -> str:
    return f"{one[key] / other[key]:.2f}x" if one and other else "-"


if __name__ == "__main__":
    main()
