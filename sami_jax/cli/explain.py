"""What `sami explain` does: reads a run, explains responses, shows a few of them with their words coloured by heat."""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

from ml_collections import ConfigDict
from rich import box
from rich.table import Table
from rich.text import Text

from sami_jax.cli.options import tell_programs
from sami_jax.data.chat import DATE
from sami_jax.data.jsonl import write_jsonl
from sami_jax.data.shape import misfit
from sami_jax.data.templates import check_template
from sami_jax.errors import UserError
from sami_jax.evaluation.explain import Answer, by_word, explain_all, read_answers
from sami_jax.ground.redaction import redact
from sami_jax.ground.terminal import cell, say, show, show_table, visible
from sami_jax.models.pretrained import open_model
from sami_jax.provenance.manifest import masked_fields, read_statement
from sami_jax.sharding import ALL_DEVICES, make_mesh

SHOWN = 4  # responses
# What is needed of a run's config.
PROMPT = {
    "training": str,
    "max_tokens": int,
    "chat?": bool,
    "system?": str,
    "date?": str,
}  # chats are younger than some runs
SETTINGS = {"filter": {"prefix": str, "cut_at": [str]}, "prompt": PROMPT}
NAMED = 3  # words, of those a principle moved most
LEAST = 0.1  # nats; words that a principle moved less are not named
# From which share of log C, the most a token's mutual information can be, a word is shown in which style.
HEAT = ((0.75, "bold red"), (0.5, "red"), (0.25, "yellow"))
COLD = (-0.25, "cyan")  # said in spite of the constitution


def explain_run(arguments: argparse.Namespace) -> None:
    """`sami explain`: responses to their explanations, a line each, in order."""
    for name in ("batch_size", "limit"):
        if (value := getattr(arguments, name)) is not None and value < 1:
            raise UserError(f"--{name} {value}: must be at least 1")
    made_from = read_statement(arguments.run)["predicate"]
    if wrong := misfit(made_from["config"], SETTINGS):
        raise UserError(f"{arguments.run}: the manifest's config: {wrong}; restore run.json")
    for path in masked_fields(made_from):
        if path.startswith(("config.prompt.", "config.filter.", "principles")):
            raise UserError(
                f"{arguments.run}: {path} held a secret, which run.json does not keep, so nobody can tell what the model was asked; "
                "take the secret out and run anew"
            )
    config = ConfigDict(made_from["config"])
    config.prompt.update({"chat": False, "system": "", "date": DATE, **made_from["config"]["prompt"]})
    system = config.prompt.system if config.prompt.chat else ""
    check_template(config.prompt.training, f"{arguments.run}: the manifest's config.prompt.training", system)
    iteration = _iteration(arguments.run, arguments.iteration)
    folder = arguments.run / f"iteration_{iteration}"
    left = folder / "adapter" if (folder / "adapter").is_dir() else folder / "model"  # as it was trained
    path = left if iteration else made_from["base_model"]["path"]
    model = open_model(path, prompt=config.prompt)
    responses = arguments.responses or folder / "evaluation" / f"{arguments.set}.jsonl"
    answers = read_answers(responses, config.filter)[: arguments.limit]
    ids = {text: p["id"] for p in made_from["principles"] for phrasing in p["phrasings"] for text in phrasing}
    mesh = make_mesh(ALL_DEVICES)
    params = model.load(mesh, arguments.dtype)
    rows = explain_all(model, params, answers, config, ids, mesh, arguments.batch_size)
    if arguments.output:
        write_jsonl(arguments.output, rows)
        say(f"{len(rows)} explanations: {arguments.output}")
    shares = _shares(rows)
    tell_programs(
        arguments,
        {"explanations": len(rows), "output": arguments.output and str(arguments.output), "principles": shares},
    )
    for answer, row in list(zip(answers, rows, strict=True))[:SHOWN]:
        _print_explanation(answer, row)
    _print_shares(shares)


def _iteration(run: Path, chosen: int | None) -> int:
    """The iteration asked for, or the last that has a model.

    Raises:
      UserError: it has none.
    """
    numbers = [model.parent.name.removeprefix("iteration_") for model in run.glob("iteration_*/model")]
    known = [0, *sorted(int(number) for number in numbers if number.isdecimal())]
    if chosen is not None and chosen not in known:
        raise UserError(f"--iteration {chosen}: {run} has no model of it; choose one of {', '.join(map(str, known))}")
    return known[-1] if chosen is None else chosen


def _print_explanation(answer: Answer, row: dict) -> None:
    table = Table(box=None, show_header=False, padding=(0, 1))
    table.add_column(justify="right", style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    texts = [token["text"] for token in row["tokens"]]
    table.add_row("query", cell(row["query"]))
    table.add_row("response", _heated(texts, [token["pmi"] for token in row["tokens"]], len(answer.constitutions)))
    for principle in row["principles"]:
        words = sorted(by_word(texts, principle["tokens"]), key=lambda word: -abs(word[1]))[:NAMED]
        moved = ", ".join(
            f"{text.strip()} {value:+.2f}" for text, value in words if abs(value) >= LEAST and text.strip()
        )
        line = f"{principle['text']}  {moved}" if moved else principle["text"]
        table.add_row(f"{principle['share']:+.2f} nats", cell(line))
    show_table(table)
    show()


def _heated(texts: Sequence[str], values: Sequence[float], constitutions: int) -> Text:
    """The words of a response, in colours that tell each one's pointwise mutual information."""
    if redact(whole := "".join(texts)) != whole:
        return cell(whole)
    text = Text()
    most = math.log(constitutions) or 1.0
    for word, value in by_word(texts, values):
        style = next((style for least, style in HEAT if value >= least * most), "")
        text.append(visible(word), COLD[1] if value <= COLD[0] * most else style)
    return text


def _shares(rows: Sequence[dict]) -> list[dict]:
    """How much each principle moves the responses under constitutions that state it, the one that moves most first."""
    shares: dict[str, list[float]] = {}
    for row in rows:
        for principle in row["principles"]:
            shares.setdefault(principle["id"] or principle["text"], []).append(principle["share"])
    told = [
        {
            "principle": name,
            "responses": len(found),
            "mean_share": sum(found) / len(found),
            "felt": sum(share >= LEAST for share in found) / len(found),
        }
        for name, found in shares.items()
    ]
    return sorted(told, key=lambda row: -row["mean_share"])


def _print_shares(shares: Sequence[dict]) -> None:
    table = Table(title="Share of each principle, nats a response", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("principle", overflow="fold")
    for column in ("responses", "mean", f"{LEAST} or more"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in shares:
        numbers = (str(row["responses"]), f"{row['mean_share']:+.2f}", f"{100 * row['felt']:.0f} %")
        table.add_row(cell(row["principle"]), *numbers)
    show_table(table)
    show("share: log-probability, nats, that a response loses when the principle's line is taken out", style="dim")
    show("red, yellow: words that the constitution made likelier; cyan: words written in spite of it", style="dim")
