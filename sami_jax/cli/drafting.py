"""`sami principles draft`: asks a writer, keeps what it wrote, and shows what could not be read."""

import argparse
import datetime
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from sami_jax.cli.options import tell_programs
from sami_jax.errors import UserError
from sami_jax.ground.endpoint import Endpoint
from sami_jax.ground.paths import path_of
from sami_jax.ground.redaction import redacted
from sami_jax.ground.terminal import say, show
from sami_jax.principles.files import file_of, principle_files, read_principle, write_principle
from sami_jax.principles.principle import Principle, current, find, own_status
from sami_jax.principles.writer import TOKENS_EACH, Reply, draft, prompt_hash

LOG = "drafts.jsonl"  # every prompt and reply, with what was taken from it and what was not


def draft_principles(arguments: argparse.Namespace) -> None:
    """Drafts are written as each reply comes: a writer that fails later costs nothing of them."""
    _check(arguments)
    folder: Path = arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    known = [read_principle(file) for file in principle_files(folder)]
    examples = _examples(arguments, known)
    ask = _writer(arguments)
    drafted, refused, broken = [], 0, Counter()
    name = arguments.writer if arguments.endpoint else path_of(arguments.writer).name
    try:
        for reply in draft(ask, name, arguments.task, arguments.count, examples, known, arguments.attempts):
            _keep(folder, name, reply)
            drafted += [principle.name for principle in reply.principles]
            refused += len(reply.refused)
            broken.update([reply.broken] if reply.broken else [])
    finally:
        if drafted or refused:
            show(
                f"{len(drafted)} of {arguments.count} drafted; {refused} block(s) of the replies could not be used: {folder / LOG}"
            )
    if not drafted:
        listed = "".join(f"; {count}: {reason}" for reason, count in broken.most_common())
        advice = "give it more --max_tokens, " if any(reason.startswith("cut off") for reason in broken) else ""
        raise UserError(
            f"{name}: no usable principle in {arguments.attempts} replies{listed}; see {folder / LOG}, {advice}show the writer examples (--example), or use a stronger one"
        )
    tell_programs(arguments, {"drafted": drafted, "refused": refused, "log": str(folder / LOG)})
    show(f"next: sami principles review --folder {folder}")


def _check(arguments: argparse.Namespace) -> None:
    for name in ("count", "attempts", "timeout", "max_tokens"):
        if (value := getattr(arguments, name)) is not None and value <= 0:
            raise UserError(f"--{name} {value}: must be above 0")
    if not 0 <= arguments.temperature < float("inf"):
        raise UserError(f"--temperature {arguments.temperature}: must be at least 0")
    if not arguments.task.strip():
        raise UserError("the task is empty; say what responses are about")


def _examples(arguments: argparse.Namespace, known: Sequence[Principle]) -> list[Principle]:
    if arguments.example is None:
        return [p for p in current(known) if own_status(p) == "approved"]
    return [find(known, name, arguments.folder) for name in arguments.example]


def _writer(arguments: argparse.Namespace):
    from sami_jax.sampling.writers import endpoint_writer, local_writer

    options = (arguments.temperature, arguments.max_tokens or TOKENS_EACH * arguments.count, arguments.seed)
    if arguments.endpoint is None:
        return local_writer(path_of(arguments.writer), *options, arguments.api == "chat")
    endpoint = Endpoint(arguments.endpoint, arguments.writer, arguments.api, arguments.key_variable, arguments.timeout)
    return endpoint_writer(endpoint, arguments.api, *options)


def _keep(folder: Path, writer: str, reply: Reply) -> None:
    for principle in reply.principles:
        write_principle(file_of(folder, principle), principle)
        show(f"{principle.name}: {principle.phrasings[0][0]}")
    for block, reason in reply.refused:
        say(f"  not used ({reason}): {' '.join(block.split())[:100]}")
    line = {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "writer": writer,
        "prompt_hash": prompt_hash(reply.prompt),
        "prompt": reply.prompt,
        "reply": reply.text,
        "drafted": [principle.name for principle in reply.principles],
        "refused": [{"block": block, "reason": reason} for block, reason in reply.refused],
    }
    with open(folder / LOG, "a", encoding="utf-8") as stream:
        stream.write(json.dumps(redacted(line), ensure_ascii=False) + "\n")
