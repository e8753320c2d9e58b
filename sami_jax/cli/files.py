"""What `sami sample`, `score` and `export` do: files in, files out. Each checks its whole input before it loads any weight."""

import argparse
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from sami_jax.cli.options import skipped_by, tell_programs
from sami_jax.config import load_config
from sami_jax.config.checks import validate
from sami_jax.contrast import objective
from sami_jax.contrast.likelihood import normalized
from sami_jax.contrast.scoring import score, tracked
from sami_jax.data.batches import ContrastExample
from sami_jax.data.chat import DATE, is_date
from sami_jax.data.dialogue import Message, messages_in, of_messages
from sami_jax.data.fields import BadRow, absent, list_in, plain_id
from sami_jax.data.jsonl import parse_measured, read_json, write_jsonl, write_text
from sami_jax.data.replies import sampled_lists
from sami_jax.data.rows import read_rows
from sami_jax.data.shape import misfit
from sami_jax.data.templates import render, user_template
from sami_jax.errors import UserError
from sami_jax.evaluation.canaries import Stop
from sami_jax.export.gguf import gguf_entries, write_gguf
from sami_jax.export.huggingface import copy_companions, export
from sami_jax.export.merged import merged, stored, unchanged_share
from sami_jax.export.modelfile import modelfile
from sami_jax.ground.digests import file_digest
from sami_jax.ground.terminal import say, show
from sami_jax.models.adapters import read_record
from sami_jax.models.files import check_replaceable
from sami_jax.models.huggingface import read_config
from sami_jax.models.pretrained import ModelFolder, open_model, without_weights
from sami_jax.provenance.manifest import MANIFEST, read_statement
from sami_jax.report.model_card import PRINCIPLES, SETTINGS, write_card
from sami_jax.sampling.drawing import SamplingOptions
from sami_jax.sampling.rollout import seeds, write_responses
from sami_jax.sampling.samplers import Prompt
from sami_jax.serving.engine import check_server, open_engine
from sami_jax.sharding import ALL_DEVICES, make_mesh
from sami_jax.stages.checkpoint import SIDE_FILES, restore_params
from sami_jax.stages.merging import told_merge

# The columns that `sami score` reads.
SCORED = ("id", "prompts", "query", "constitutions", "responses", "token_ids")


def sample_file(arguments: argparse.Namespace) -> None:
    """`sami sample`: {"id", "prompt"} lines in, {"id", "response", "tokens", "finish_reason", "token_ids"} lines out, in order; in a
    chat {"id", "messages"} too."""
    options = _sampling_options(arguments)
    config, _ = load_config(arguments.config, arguments.overrides)
    config.sampling.batch_size = arguments.batch_size
    validate(config)
    model = open_model(arguments.model)
    check_server(config, model)
    model = model.chatting(date=_date(arguments, DATE)) if arguments.chat else model

    def encoded(row: dict) -> tuple[dict, list[int]]:
        id, asked = plain_id(row), [messages_in(row[key]) for key in keys if not absent(row.get(key))]
        if not asked:
            raise BadRow("key 'prompt' is missing", "; add it to the line" + " (or 'messages')" * bool(model.chat))
        ids = _encode(model, asked[0])
        _check_length(model, len(ids), options.max_new_tokens)
        return {"id": id}, ids

    keys = ("prompt", "messages") if model.chat else ("prompt",)
    rows = read_rows(arguments.input, ("id", *keys), ("id",), encoded, skipped_by(arguments))
    drawn = seeds(str(arguments.seed), rows[-1][0])
    prompts = [Prompt(key, ids, drawn[number - 1]) for number, (key, ids) in rows]
    mesh = make_mesh(ALL_DEVICES)
    params = model.load(mesh, arguments.dtype)
    # The loop continues a file it finds; this verb begins afresh, and an older output stands until the new one is whole.
    fresh = arguments.output.with_name(arguments.output.name + ".new")
    for leftover in (fresh, fresh.with_name(fresh.name + ".partial")):
        leftover.unlink(missing_ok=True)
    with open_engine(config, mesh, arguments.output.parent) as engine:
        write_responses(fresh, engine.sampler(model, params), prompts, options, "sampling")
    fresh.replace(arguments.output)
    tell_programs(arguments, {"responses": len(prompts), "output": str(arguments.output)})
    show(f"{len(prompts)} responses: {arguments.output}")


def score_file(arguments: argparse.Namespace) -> None:
    """`sami score`: prompts and responses in, S and what follows from it out, a line each, in order."""
    if arguments.batch_size < 1:
        raise UserError(f"--batch_size {arguments.batch_size}: must be at least 1")
    config, _ = load_config(arguments.config, arguments.overrides)
    config.prompt.date = _date(arguments, config.prompt.date)
    validate(config)
    model = open_model(arguments.model, prompt=config.prompt)
    if arguments.chat and not model.chat:
        model = model.chatting(config.prompt.system, config.prompt.date)
    if model.chat:
        model.chat.check_replies()

    def encoded(row: dict) -> tuple[str | int, ContrastExample]:
        return plain_id(row), _contrast_example(model, row, config.prompt, arguments.score_eos)

    read = read_rows(arguments.input, SCORED, ("id", "responses"), encoded, skipped_by(arguments))
    ids, examples = zip(*(row for _, row in read), strict=True)
    mesh = make_mesh(ALL_DEVICES)
    params = model.load(mesh, arguments.dtype)
    lines: list[dict] = [{}] * len(ids)  # in the order of the input
    scored = score(params, model.config, examples, mesh, arguments.batch_size)
    for place, summed in tracked(scored, "scoring", examples):
        lines[place] = _score_line(ids[place], summed, examples[place], arguments.normalize)
    write_jsonl(arguments.output, lines)
    tell_programs(arguments, {"matrices": len(lines), "output": str(arguments.output)})
    show(f"{len(lines)} matrices: {arguments.output}")


def export_checkpoint(arguments: argparse.Namespace) -> None:
    """`sami export`: the newest checkpoint of a training stage to a model folder."""
    check_replaceable(arguments.output)
    side_files = arguments.checkpoint / SIDE_FILES
    if not side_files.is_dir():
        raise UserError(f"{arguments.checkpoint}: no checkpoints folder of a run; give a run's iteration_N/checkpoints")
    mesh = make_mesh(ALL_DEVICES)
    config = read_config(side_files)
    model_config, base = read_record(arguments.checkpoint, config)
    model = without_weights(side_files, config) if arguments.gguf else None
    entries = gguf_entries(model) if model else {}
    step, trained = restore_params(arguments.checkpoint, model_config, mesh, np.float32)
    params = merged(base, model_config, trained, mesh) if model_config.adapter else trained

    def write_side_files(output: Path) -> None:
        copy_companions(side_files)(output)
        if (side_files / PRINCIPLES).is_file():
            shutil.copyfile(side_files / PRINCIPLES, output / PRINCIPLES)

    export(params, config, arguments.output, write_side_files, np.dtype(arguments.dtype))
    if model_config.adapter:
        both = (stored(folder, config, mesh, arguments.dtype) for folder in (base, arguments.output))
        unchanged = unchanged_share(trained, *both)
        say(f"merged into {arguments.dtype}: {unchanged:.0%} of the weights that have an adapter are as in the base")
    _write_card(arguments.checkpoint.parent, arguments.output)
    told = {"checkpoint": int(step), "output": str(arguments.output)}
    if model:
        file = arguments.output / f"model-{arguments.gguf}.gguf"
        principles = side_files / PRINCIPLES
        digest = {"sami.principles.sha256": file_digest(principles)} if principles.is_file() else {}
        write_gguf(params, model, arguments.gguf, file, entries | digest)
        told["gguf"] = str(file)
        if content := modelfile(model, file.name):
            write_text(arguments.output / "Modelfile", content)
        else:
            say(
                "no Modelfile: the model's chat template, if it has one, cannot be told in Ollama's language of templates"
            )
    tell_programs(arguments, told)
    show(f"checkpoint {step}: {arguments.output}" + (f", {told['gguf']}" if model else ""))


def _write_card(iteration: Path, model: Path) -> None:
    """The model card, where the checkpoint is of a run that has its manifest."""
    run = iteration.parent
    if not (run / MANIFEST).is_file():
        return
    predicate = read_statement(run)["predicate"]
    if wrong := misfit(predicate["config"], SETTINGS):
        raise UserError(f"{run}: the manifest's config: {wrong}; restore run.json")
    evaluation = iteration / "evaluation.json"
    results = read_json(evaluation, "restore it", parse_measured) if evaluation.is_file() else {}
    stop = Stop.read(iteration)
    title = f"{run.name}, {iteration.name.replace('_', ' ')}"
    write_card(model, title, predicate, results, stop and stop.reason, told_merge(iteration))


def _date(arguments: argparse.Namespace, otherwise: str) -> str:
    """What --date says, or what holds without it."""
    if arguments.date is None:
        return otherwise
    if not is_date(arguments.date):
        raise UserError(f"--date {arguments.date!r:.40}: must be a date, YYYY-MM-DD")
    return arguments.date


def _sampling_options(arguments: argparse.Namespace) -> SamplingOptions:
    if arguments.batch_size < 1:
        raise UserError(f"--batch_size {arguments.batch_size}: must be at least 1")
    names = ("temperature", "top_p", "top_k", "max_new_tokens")
    try:
        return SamplingOptions(**{name: getattr(arguments, name) for name in names}, stop=tuple(arguments.stop))
    except UserError as error:
        raise UserError(f"--{error}".replace("=", " ", 1)) from None


def _contrast_example(model: ModelFolder, row: dict, prompt: ConfigDict, score_eos: bool) -> ContrastExample:
    row = {key: value for key, value in row.items() if not absent(value)}
    if "prompts" in row:
        listed = list_in(row["prompts"])
        prompts = listed if model.chat and isinstance(listed, list) else _texts(row, "prompts")
        prompt_ids = [_encode(model, prompt) for prompt in prompts]
    elif isinstance(row.get("query"), str) and "constitutions" in row:
        prompts = _texts(row, "constitutions")
        template = user_template(prompt, "training") if model.chat else prompt.training
        asked = [(constitution, render(template, constitution, row["query"])) for constitution in prompts]
        prompt_ids = [_chatted(model.chat.prompt, *both) if model.chat else _encode(model, both[1]) for both in asked]
    else:
        raise BadRow("neither 'prompts' nor 'query' and 'constitutions' are there", "; add them")
    responses = _texts(row, "responses")
    if len(prompts) != len(responses):
        raise BadRow(
            "as many prompts as responses are wanted",
            f", not {len(prompts)} prompts but {len(responses)} responses; give one response for each prompt",
        )
    if not all(response.strip() for response in responses):
        raise BadRow("a response is empty", "; remove the line or give the response text")
    end_token = model.chat.end_of_turn if model.chat else model.end_tokens[0]
    replies = model.replies(end_token if score_eos else None)
    sampled = sampled_lists(row.get("token_ids"), len(responses))
    said = _chatted if model.chat else _read
    response_ids = [said(replies.ids, text, "stop", ids) for text, ids in zip(responses, sampled, strict=True)]
    if not all(response_ids):
        raise BadRow("a response has no tokens", "; remove the line or give the response text")
    _check_length(model, max(map(len, prompt_ids)), max(map(len, response_ids)))
    return ContrastExample(tuple(map(tuple, prompt_ids)), tuple(map(tuple, response_ids)))


def _texts(row: dict, key: str) -> list[str]:
    texts = list_in(row[key])
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise BadRow(f"{key}: must be a list of texts", f", not {texts!r:.60}; mend the line")
    return texts


def _encode(model: ModelFolder, prompt) -> list[int]:
    """Ids of a prompt: a text, or in a chat what the user says, or a list of messages."""
    if model.chat and isinstance(prompt, list):
        return _chatted(model.chat.encode, of_messages(prompt))
    if model.chat and isinstance(prompt, str) and prompt.strip():
        return _chatted(model.chat.encode, [Message("user", prompt)])
    if model.chat or not isinstance(prompt, str) or not (ids := _read(model.tokenizer.encode, prompt)):
        raise BadRow("prompt is empty or not a text", "; give the prompt's text")
    return ids


def _read(encode: Callable[..., list[int]], *texts) -> list[int]:
    """Ids of texts as they stand; where they hold a token that the model has not, the row is bad."""
    try:
        return encode(*texts)
    except UserError as refused:
        raise BadRow("a token that the model has not", f": {refused}") from None


def _chatted(encode: Callable[..., list[int]], *texts) -> list[int]:
    """What a chat template makes of a row's texts; where it refuses them, the row is bad."""
    try:
        return encode(*texts)
    except UserError as refused:
        raise BadRow("the chat template refuses the texts", f": {refused}") from None


def _check_length(model: ModelFolder, prompt_tokens: int, response_tokens: int) -> None:
    limit = model.config.max_positions
    if prompt_tokens + response_tokens > limit:
        raise BadRow(
            "longer than the model's context",
            f" of {limit}: prompt of {prompt_tokens} and response of up to {response_tokens} tokens; shorten them",
        )


def _score_line(id, summed: np.ndarray, example: ContrastExample, normalize: str) -> dict:
    response_tokens = [len(response) for response in example.responses]
    s = np.asarray(normalized(summed, np.array(response_tokens), normalize))
    return {
        "id": id,
        "logprobs": s.astype(float).tolist(),
        "response_tokens": response_tokens,
        "mi_lower_bound": float(objective.mi_lower_bound(s)),
        "row_accuracy": float(objective.row_accuracy(s)),
        "column_accuracy": float(objective.column_accuracy(s)),
    }
