"""The `sami` command: parses, validates, calls.

Exit status: 0 done; 2 bad input, said in one line on stderr; 130 interrupted.
"""

import argparse
import gc
import hashlib
import logging
import os
import platform
import sys
from pathlib import Path

from sami_jax.errors import UserError


def main(argv: list[str] | None = None) -> int:
    # Quiet libraries before any of them is imported: their news would stand between the user and ours.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.getLogger("absl").setLevel(logging.ERROR)
    if argv is None:  # the process is ours
        _hurry()
    _keep_compiled_programs()
    parser = _parser()
    arguments, rest = parser.parse_known_args(argv)
    overrides = [argument for argument in rest if argument.startswith("--config.")]
    if unknown := [argument for argument in rest if argument not in overrides]:
        return _complain(f"{unknown[0]}: not an option of `sami {arguments.verb}`; see `sami {arguments.verb} --help`")
    if overrides and "config" not in arguments:
        return _complain(f"{overrides[0]}: `sami {arguments.verb}` takes no config; see `sami {arguments.verb} --help`")
    arguments.overrides = overrides
    try:
        arguments.call(arguments)
    except UserError as error:
        return _complain(str(error))
    except KeyboardInterrupt:
        return _complain("interrupted; the same command continues", status=130)
    return 0


def _hurry() -> None:
    """Spares the start what no verb needs."""
    sys.modules.setdefault("torch", None)  # transformers and tensorboardX import it where it is installed: two seconds
    gc.set_threshold(100_000)  # what imports and tracing make stays, and need not be gone through again and again


def _keep_compiled_programs() -> None:
    """A second start finds its programs compiled, unless JAX_COMPILATION_CACHE_DIR (or an empty one) says otherwise.

    Programs for CPU hold whatever instructions the CPU has, so each kind of CPU has a folder of its own.
    """
    cpu = Path("/proc/cpuinfo")
    flags = [line for line in cpu.read_text().splitlines() if line.startswith("flags")][:1] if cpu.exists() else []
    kind = hashlib.sha256("".join([platform.machine(), *flags]).encode()).hexdigest()[:8]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sami_jax" / f"compiled-{kind}"
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")


def _complain(message: str, status: int = 2) -> int:
    print(f"sami: {' '.join(message.split())}", file=sys.stderr)
    return status


class _Parser(argparse.ArgumentParser):
    """Errors in one line, without the usage text."""

    def error(self, message: str):
        self.exit(2, f"sami: {message}; see `{self.prog} --help`\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="sami", description="Teach a language model to follow written principles, without labels.")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB", parser_class=_Parser)

    def verb(name: str, call, summary: str, example: str) -> argparse.ArgumentParser:
        sub = verbs.add_parser(
            name,
            help=summary,
            description=summary,
            epilog=f"example: {example}",
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.set_defaults(call=call)
        return sub

    def with_config(sub: argparse.ArgumentParser) -> None:
        sub.add_argument(
            "--config",
            default="tiny",
            metavar="NAME|FILE[:ARG]",
            help="a config by name or file; change fields with --config.FIELD=VALUE",
        )

    run = verb(
        "run",
        _run,
        "the whole loop: sample, filter, train, evaluate",
        "sami run --config=tiny --config.optim.learning_rate=5e-5",
    )
    with_config(run)
    run.add_argument("--workdir", type=Path, help="where everything goes; default runs/NAME")

    train = verb(
        "train",
        _train,
        "train the base model on a pairs file, once",
        "sami train --config=tiny --pairs runs/tiny/iteration_1/pairs.jsonl --output out",
    )
    with_config(train)
    train.add_argument(
        "--pairs", type=Path, required=True, help='JSONL of {"query", "constitutions", "responses", "finish_reasons"}'
    )
    train.add_argument("--output", type=Path, required=True, help="folder for checkpoints/, metrics.jsonl and model/")
    train.add_argument("--iteration", type=int, default=1, help="whose number of updates to make")

    evaluate = verb(
        "evaluate",
        _evaluate,
        "measure a model on held-out queries",
        "sami evaluate --config=tiny --model runs/tiny/iteration_3/model --output out",
    )
    with_config(evaluate)
    evaluate.add_argument("--model", type=Path, required=True, help="model folder in Hugging Face format")
    evaluate.add_argument("--output", type=Path, required=True, help="folder for responses and evaluation.json")
    evaluate.add_argument("--baseline", type=Path, help="output folder of an earlier evaluate, to compute wins over it")

    sample = verb(
        "sample",
        _sample,
        "answer prompts",
        "sami sample --model DIR --input prompts.jsonl --output responses.jsonl --temperature 0.7",
    )
    _with_model_and_files(
        sample, 'JSONL of {"id", "prompt"}', 'JSONL of {"id", "response", "tokens", "finish_reason"}, in order'
    )
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

    score = verb(
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
    score.add_argument("--normalize", choices=("mean", "sum"), default="mean", help="over response tokens")
    score.add_argument("--score_eos", action="store_true", help="score the end-of-text token after each response too")

    export = verb(
        "export",
        _export,
        "a training checkpoint to a model folder",
        "sami export --checkpoint runs/tiny/iteration_3/checkpoints --output model",
    )
    export.add_argument("--checkpoint", type=Path, required=True, help="a run's iteration_N/checkpoints")
    export.add_argument("--output", type=Path, required=True, help="folder to write, in Hugging Face format")
    export.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    return parser


def _with_model_and_files(sub: argparse.ArgumentParser, input_help: str, output_help: str) -> None:
    sub.add_argument("--model", type=Path, required=True, help="model folder in Hugging Face format")
    sub.add_argument("--input", type=Path, required=True, help=input_help)
    sub.add_argument("--output", type=Path, required=True, help=output_help)
    sub.add_argument("--batch_size", type=int, default=8, help="lines computed together")
    sub.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of weights and computation")


# Heavy imports wait until a verb runs, so that --help and complaints are instant.


def _run(arguments: argparse.Namespace) -> None:
    from sami_jax.config_file import load_config
    from sami_jax.run import run

    config, name = load_config(arguments.config, arguments.overrides)
    run(config, arguments.workdir or Path("runs") / name)


def _train(arguments: argparse.Namespace) -> None:
    from sami_jax.config_file import load_config
    from sami_jax.run import prepare, train

    config, _ = load_config(arguments.config, arguments.overrides)
    inputs = prepare(config, arguments.output)
    if not 1 <= arguments.iteration <= len(config.train.updates):
        raise UserError(
            f"--iteration {arguments.iteration}: config.train.updates has {len(config.train.updates)} entries; choose one of them"
        )
    train(config, inputs, arguments.pairs, arguments.output, arguments.iteration, arguments.output / "tensorboard")


def _evaluate(arguments: argparse.Namespace) -> None:
    import json

    from sami_jax.config_file import load_config
    from sami_jax.models.pretrained import open_model
    from sami_jax.run import evaluate, prepare

    config, _ = load_config(arguments.config, arguments.overrides)
    inputs = prepare(config, arguments.output)
    results = evaluate(
        config, inputs, open_model(arguments.model, config.model.attention), arguments.output, arguments.baseline
    )
    print(json.dumps(results, indent=2))


def _sample(arguments: argparse.Namespace) -> None:
    from sami_jax.verbs import sample_file

    sample_file(arguments)


def _score(arguments: argparse.Namespace) -> None:
    from sami_jax.verbs import score_file

    score_file(arguments)


def _export(arguments: argparse.Namespace) -> None:
    from sami_jax.verbs import export_checkpoint

    export_checkpoint(arguments)


if __name__ == "__main__":
    sys.exit(main())
