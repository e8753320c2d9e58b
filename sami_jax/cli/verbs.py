"""The verbs that train, sample, score, measure, export, verify and report: their options, and what they call."""

import argparse
from pathlib import Path

from sami_jax.cli.options import (
    add_verb,
    any_path,
    new_file,
    new_folder,
    skipped_by,
    tell_programs,
    with_config,
    with_hosts,
    with_results,
    with_skipping,
)
from sami_jax.errors import StoppedByCanary, UserError
from sami_jax.ground.lock import lock_folder
from sami_jax.ground.stopping import gracefully


def add_verbs(verbs) -> None:
    run = add_verb(
        verbs,
        "run",
        _run,
        "the whole loop: sample, filter, train, evaluate",
        "sami run --config=tiny --config.optim.learning_rate=5e-5",
    )
    _with_gate(run)
    with_hosts(run)
    run.add_argument("--workdir", type=new_folder, help="where everything goes; default runs/NAME")
    run.add_argument(
        "--force_resume",
        action="store_true",
        help="go on in a folder whose run was made with another config, principles or data; the audit log says so",
    )

    train = add_verb(
        verbs,
        "train",
        _train,
        "train the base model on a pairs file, once",
        "sami train --config=tiny --pairs runs/tiny/iteration_1/pairs.jsonl --output out",
    )
    _with_gate(train)
    with_hosts(train)
    train.add_argument(
        "--pairs",
        type=any_path,
        required=True,
        help='JSONL of {"query", "constitutions", "responses", "finish_reasons"}',
    )
    train.add_argument(
        "--output", type=new_folder, required=True, help="folder for checkpoints/, metrics.jsonl and model/"
    )
    train.add_argument("--iteration", type=int, default=1, help="whose number of updates to make")

    evaluate = add_verb(
        verbs,
        "evaluate",
        _evaluate,
        "measure a model on held-out queries",
        "sami evaluate --config=tiny --model runs/tiny/iteration_3/model --output out",
    )
    _with_gate(evaluate)
    with_hosts(evaluate)
    evaluate.add_argument("--model", type=any_path, required=True, help="model folder in Hugging Face format")
    evaluate.add_argument("--output", type=new_folder, required=True, help="folder for responses and evaluation.json")
    evaluate.add_argument(
        "--baseline", type=any_path, help="output folder of an earlier evaluate, to compute wins over it"
    )

    sample = add_verb(
        verbs,
        "sample",
        _sample,
        "answer prompts",
        "sami sample --model DIR --input prompts.jsonl --output responses.jsonl --temperature 0.7",
    )
    _with_model_and_files(
        sample,
        'JSONL of {"id", "prompt"}, or with --chat {"id", "messages"}',
        'JSONL of {"id", "response", "tokens", "finish_reason", "token_ids"}, in order',
    )
    with_config(sample)
    _with_chat(sample, "prompts are what the user says")
    sample.add_argument("--temperature", type=float, default=0.0, help="0 takes the likeliest token")
    sample.add_argument("--top_p", type=float, default=1.0, help="nucleus probability; 1 keeps all")
    sample.add_argument("--top_k", type=int, default=0, help="likeliest tokens kept; 0 keeps all")
    sample.add_argument("--max_new_tokens", type=int, default=128, help="tokens")
    sample.add_argument(
        "--stop", action="append", default=[], metavar="TEXT", help="text that ends a response; may be repeated"
    )
    sample.add_argument(
        "--seed", type=int, default=0, help="each line's sample depends on the seed and its place alone"
    )

    score = add_verb(
        verbs,
        "score",
        _score,
        "S[i, j] = log p(response j | prompt i)",
        "sami score --model DIR --input pairs.jsonl --output scores.jsonl --normalize sum",
    )
    with_config(score)
    _with_model_and_files(
        score,
        'JSONL of {"id", "prompts": [C], "responses": [C]}, or {"id", "query", "constitutions": [C], "responses": [C]} for the config\'s training template',
        'JSONL of {"id", "logprobs": [[C x C]], "response_tokens", "mi_lower_bound", "row_accuracy", "column_accuracy"}',
    )
    _with_chat(score, "prompts are what the user says, or lists of messages; also by --config.prompt.chat=True")
    score.add_argument("--normalize", choices=("mean", "sum"), default="mean", help="over response tokens")
    score.add_argument(
        "--score_eos", action="store_true", help="score the end of text, in a chat of turn, after each response too"
    )

    explain = add_verb(
        verbs,
        "explain",
        _explain,
        "which words of a response did its constitution cause, and which principle?",
        "sami explain runs/tiny --output explained.jsonl",
    )
    explain.add_argument("run", type=any_path, help="a run's folder")
    explain.add_argument("--iteration", type=int, help="whose model to ask, 0 for the base; default the last")
    explain.add_argument(
        "--set",
        choices=("trained", "held_out_principles", "held_out_phrasings"),
        default="trained",
        help="whose responses: the iteration's on trained (default), held_out_principles or held_out_phrasings",
    )
    explain.add_argument(
        "--responses",
        type=any_path,
        help='other responses: JSONL of {"id", "query", "constitution", "response"}, at least two lines an id, with different constitutions',
    )
    explain.add_argument("--limit", type=int, help="explain the first so many responses only")
    explain.add_argument(
        "--output",
        type=new_file,
        help='JSONL of {"id", "query", "constitution", "response", "tokens": [{"text", "pmi"}], "principles": [{"id", "text", "share", "tokens"}]}, nats',
    )
    _with_computation(explain)

    export = add_verb(
        verbs,
        "export",
        _export,
        "a training checkpoint to a model folder",
        "sami export --checkpoint runs/tiny/iteration_3/checkpoints --output model",
    )
    export.add_argument("--checkpoint", type=any_path, required=True, help="a run's iteration_N/checkpoints")
    export.add_argument("--output", type=new_folder, required=True, help="folder to write, in Hugging Face format")
    export.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    export.add_argument(
        "--gguf", choices=("f32", "f16", "bf16", "q8_0"), help="write a GGUF file of these numbers into the folder, too"
    )

    verify = add_verb(verbs, "verify", _verify, "is all that a run left as it was recorded?", "sami verify runs/tiny")
    verify.add_argument("run", type=any_path, help="a run's folder")

    report = add_verb(
        verbs, "report", _report, "a run as one HTML file, for people who decide", "sami report runs/tiny --language ja"
    )
    report.add_argument("run", type=any_path, help="a run's folder, finished or stopped")
    report.add_argument(
        "--output", type=new_file, help="the file; default report.html, or report.ja.html, in the folder"
    )
    report.add_argument(
        "--language", choices=("en", "ja"), default="en", help="English or Japanese; texts stay as they are"
    )
    report.add_argument(
        "--figures", type=new_folder, metavar="DIR", help="write its curves there too, an SVG file each, RUN_CURVE.svg"
    )
    report.add_argument(
        "--kept",
        type=any_path,
        nargs=2,
        metavar=("BASE.json", "ALIGNED.json"),
        help="results files of lm-eval, of the base and of the aligned model: the report says how they differ",
    )
    for parser in (run, train, evaluate, sample, score, explain, export, verify, report):
        with_results(parser)
    for parser in (run, train, evaluate, sample, score, explain):
        parser.set_defaults(compiles=True)


def _with_gate(sub: argparse.ArgumentParser) -> None:
    with_config(sub)
    sub.add_argument(
        "--allow_unapproved",
        action="store_true",
        help="use principles nobody approved; the manifest and the model card will say so",
    )
    with_skipping(sub)


def _with_model_and_files(sub: argparse.ArgumentParser, input_help: str, output_help: str) -> None:
    sub.add_argument("--model", type=any_path, required=True, help="model folder in Hugging Face format")
    sub.add_argument("--input", type=any_path, required=True, help=input_help)
    sub.add_argument("--output", type=new_file, required=True, help=output_help)
    with_skipping(sub)
    _with_computation(sub)


def _with_chat(sub: argparse.ArgumentParser, meaning: str) -> None:
    sub.add_argument("--chat", action="store_true", help=f"ask by the tokenizer's chat template: {meaning}")
    sub.add_argument(
        "--date", help="told to a chat template that asks for the day, YYYY-MM-DD; else one that is always the same"
    )


def _with_computation(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--batch_size", type=int, default=8, help="lines computed together")
    sub.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of weights and computation")


# Heavy imports wait until a verb runs, so that --help and complaints are instant.


def _run(arguments: argparse.Namespace) -> None:
    from sami_jax.config import load_config
    from sami_jax.report.summary import as_json
    from sami_jax.stages.loop import run

    config, name = load_config(arguments.config, arguments.overrides)
    workdir = arguments.workdir or Path("runs") / name
    stopped = None
    try:
        with gracefully():
            run(config, workdir, arguments.allow_unapproved, skipped_by(arguments), arguments.force_resume)
    except StoppedByCanary as stop:  # what is good was kept and measured
        stopped = stop
    tell_programs(arguments, as_json(workdir))
    if stopped:
        raise stopped


def _train(arguments: argparse.Namespace) -> None:
    import dataclasses

    from sami_jax.config import load_config
    from sami_jax.ground.redaction import redacted
    from sami_jax.ground.terminal import show
    from sami_jax.stages.finetuning import train
    from sami_jax.stages.preparation import prepare, principle_records, recorded
    from sami_jax.tracking.trackers import open_trackers

    config, _ = load_config(arguments.config, arguments.overrides)
    inputs = prepare(config, arguments.output, arguments.allow_unapproved, skipped_by(arguments))
    if not 1 <= arguments.iteration <= len(config.train.updates):
        raise UserError(
            f"--iteration {arguments.iteration}: config.train.updates has {len(config.train.updates)} entries; choose one of them"
        )
    with gracefully(), lock_folder(arguments.output), open_trackers(config, arguments.output) as trackers:
        trackers.describe(redacted(recorded(config)), principle_records(config, inputs))
        stop = train(config, inputs, arguments.pairs, arguments.output, arguments.iteration, trackers)
    model = arguments.output / "model"
    kept = str(model) if stop is None or stop.last_good else None
    tell_programs(arguments, {"model": kept, "stopped": stop and dataclasses.asdict(stop)})
    if kept:
        show(f"Model: {kept}")
    if stop:
        raise StoppedByCanary(
            f"update {stop.update}: stopped by canaries: {stop.reason}; model of update {stop.last_good} kept"
        )


def _evaluate(arguments: argparse.Namespace) -> None:
    from sami_jax.config import load_config
    from sami_jax.models.pretrained import open_model
    from sami_jax.report.summary import print_evaluation
    from sami_jax.serving.engine import open_engine
    from sami_jax.stages.loop import evaluate
    from sami_jax.stages.preparation import prepare

    config, _ = load_config(arguments.config, arguments.overrides)
    inputs = prepare(config, arguments.output, arguments.allow_unapproved, skipped_by(arguments))
    model = open_model(arguments.model, config.model.attention, config.prompt)
    with gracefully(), lock_folder(arguments.output), open_engine(config, inputs.mesh, arguments.output) as engine:
        results = evaluate(config, inputs, model, arguments.output, arguments.baseline, engine)
    tell_programs(arguments, results)
    print_evaluation(str(arguments.model), results)


def _sample(arguments: argparse.Namespace) -> None:
    from sami_jax.cli.files import sample_file

    sample_file(arguments)


def _score(arguments: argparse.Namespace) -> None:
    from sami_jax.cli.files import score_file

    score_file(arguments)


def _explain(arguments: argparse.Namespace) -> None:
    from sami_jax.cli.explain import explain_run

    explain_run(arguments)


def _export(arguments: argparse.Namespace) -> None:
    from sami_jax.cli.files import export_checkpoint

    export_checkpoint(arguments)


def _verify(arguments: argparse.Namespace) -> None:
    import dataclasses

    from sami_jax.ground.terminal import show
    from sami_jax.provenance.verify import verify

    found = verify(arguments.run)
    tell_programs(arguments, {"run": str(arguments.run), **dataclasses.asdict(found)})
    show(
        f"{arguments.run}: as recorded: {found.files} files, {found.events} events, {found.principles} principles; run {found.status}"
    )


def _report(arguments: argparse.Namespace) -> None:
    from sami_jax.ground.terminal import show
    from sami_jax.report.kept import read_kept
    from sami_jax.report.write import write_figures, write_report

    kept = read_kept(arguments.run, *arguments.kept) if arguments.kept else None
    file = write_report(arguments.run, arguments.output, arguments.language, kept)
    files = write_figures(arguments.run, arguments.figures, arguments.language) if arguments.figures else []
    pictures = [str(figure) for figure in files]
    tell_programs(arguments, {"report": str(file), "figures": pictures, "kept": kept and kept.as_json()})
    show(f"Report: {file}")
    if files:
        show(f"Figures: {len(files)} in {arguments.figures}")
