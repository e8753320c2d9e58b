"""`sami import`: its options, and what it prints."""

import argparse

from sami_jax.cli.options import add_verb, any_path, new_folder, tell_programs, with_results


def add_verbs(verbs) -> None:
    importing = add_verb(
        verbs,
        "import",
        _import,
        "a GGUF file to a model folder",
        "sami import SmolLM2-135M-Instruct.Q4_1.gguf --output smollm2",
    )
    importing.add_argument("file", type=any_path, help="GGUF file: architecture llama, qwen2, qwen3 or gemma2")
    importing.add_argument(
        "--output", type=new_folder, required=True, help="folder to write, in Hugging Face format, with a model card"
    )
    with_results(importing)


def _import(arguments: argparse.Namespace) -> None:
    from sami_jax.ground.terminal import show
    from sami_jax.imports.gguf import import_gguf

    made = import_gguf(arguments.file, arguments.output)
    tell_programs(arguments, {**made._asdict(), "output": str(arguments.output)})
    show(f"{made.architecture}, {made.weights / 1e6:.1f} million weights in {made.dtype}: {arguments.output}")
