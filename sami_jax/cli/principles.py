"""`sami principles`: principles drafted by a model, decided by people."""

import argparse
import os
import subprocess
from pathlib import Path

from sami_jax.cli.options import add_verb, any_path, tell_programs, with_endpoint, with_results, with_skipping
from sami_jax.errors import UserError
from sami_jax.ground.paths import path_of

FOLDER = Path("principles")


def add_verbs(verbs) -> None:
    group = add_verb(
        verbs, "principles", None, "draft, review and approve principles", "sami principles list --folder principles"
    )
    sub = group.add_subparsers(dest="subverb", required=True, metavar="VERB", parser_class=type(group))

    add = add_verb(
        sub,
        "add",
        _add,
        "write a principle yourself",
        'sami principles add greeting --principle "Greet the person." --antithesis "Do not greet."',
    )
    add.add_argument("id", help="a short name without spaces")
    add.add_argument("--principle", required=True, metavar="TEXT")
    add.add_argument("--antithesis", required=True, metavar="TEXT", help="asks for the opposite")
    add.add_argument("--tag", action="append", default=[], help="may be repeated")
    add.add_argument("--notes", default="", metavar="TEXT")

    draft = add_verb(
        sub,
        "draft",
        _draft,
        "have a writer model draft principles",
        'sami principles draft "Summaries of forum posts" --count 5 --endpoint http://localhost:8000/v1 --writer mistral-7b',
    )
    draft.add_argument("task", help="what responses are about, in your words")
    draft.add_argument("--writer", required=True, metavar="DIR|NAME", help="a model folder, or a model at --endpoint")
    with_endpoint(draft, "200 a principle")
    draft.add_argument("--count", type=int, default=5, help="principles wanted")
    draft.add_argument("--example", action="append", metavar="ID", help="shown to the writer; default: all approved")
    draft.add_argument("--attempts", type=int, default=5, help="replies read at most")
    draft.add_argument("--temperature", type=float, default=0.7)
    draft.add_argument("--seed", type=int, default=0)

    listing = add_verb(sub, "list", _list, "every principle and its status", "sami principles list --json")

    show = add_verb(sub, "show", _show, "a principle with its history", "sami principles show greeting@1")
    show.add_argument("name", nargs="+", metavar="ID[@VERSION]")

    review = add_verb(
        sub,
        "review",
        _review,
        "walk through what waits for a decision",
        "sami principles review --reviewer 'Aiko Tanaka'",
    )
    review.add_argument("name", nargs="*", metavar="ID[@VERSION]", help="default: all drafts and those in review")
    for name, summary in (("approve", "approve principles you have read"), ("reject", "reject principles")):
        decide = add_verb(
            sub, name, _decide, summary, f"sami principles {name} greeting --comment 'Read with the team.'"
        )
        decide.add_argument("name", nargs="+", metavar="ID[@VERSION]")
        decide.add_argument("--comment", default="", metavar="TEXT")
        _with_reviewer(decide)
    _with_reviewer(review)

    diff = add_verb(
        sub,
        "diff",
        _diff,
        "what differs between two versions, or two folders",
        "sami principles diff greeting@1 greeting@2",
    )
    diff.add_argument("before", metavar="ID@VERSION|DIR")
    diff.add_argument("after", metavar="ID@VERSION|DIR")

    check = add_verb(
        sub,
        "check",
        _check,
        "find mistakes, near-duplicates, missing approvals; try the files' checks on responses",
        "sami principles check --responses runs/demo/iteration_1/responses.jsonl",
    )
    check.add_argument(
        "--responses",
        type=any_path,
        metavar="FILE",
        help='try the checks on these: JSONL of {"id", "query", "constitution", "response"}, a run\'s responses or pairs',
    )
    check.add_argument("--show", type=int, default=0, metavar="N", help="examples of each outcome, with --responses")
    with_skipping(check)

    bring = add_verb(
        sub,
        "import",
        _import,
        "from CSV and other tables, or the paper's JSON formats",
        "sami principles import ideas.csv",
    )
    bring.add_argument(
        "source",
        type=any_path,
        help="a table (.csv, .jsonl, .parquet, ...), a .json file, or a folder of constitution files",
    )

    send = add_verb(sub, "export", _export, "to CSV, or the paper's JSON formats", "sami principles export ideas.csv")
    send.add_argument("target", type=any_path, help="file to write; a folder for --format constitutions")
    send.add_argument("--format", choices=("csv", "definitions", "constitutions"), default="csv")

    used = add_verb(
        sub,
        "used",
        _used,
        "which runs and models used a principle",
        "sami principles used runs/* --principle concise@1",
    )
    used.add_argument("runs", nargs="+", type=any_path, metavar="RUN", help="run folders")
    used.add_argument("--principle", metavar="ID[@VERSION]", help="default: all")

    for parser in (add, draft, listing, show, review, *(sub.choices[name] for name in ("approve", "reject", "check"))):
        _with_folder(parser)
    for parser in (diff, bring, send):
        _with_folder(parser)
    for name, parser in sub.choices.items():
        if name != "review":  # a conversation
            with_results(parser)


def _with_folder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--folder", type=any_path, default=FOLDER, help=f"of principle files; default {FOLDER}")


def _with_reviewer(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--reviewer", metavar="NAME", help="who decides; default: your name in git's settings")


def _add(arguments: argparse.Namespace) -> None:
    from sami_jax.ground.lock import alone_in
    from sami_jax.ground.terminal import show
    from sami_jax.principles.files import ID, file_of, principle_files, read_principle, write_principle
    from sami_jax.principles.lint import text_errors
    from sami_jax.principles.principle import Principle

    if not ID.fullmatch(arguments.id):
        raise UserError(f"{arguments.id!r} cannot be an id; use letters, digits, '_', '.' and '-'")
    arguments.folder.mkdir(parents=True, exist_ok=True)
    if arguments.id in [read_principle(file).id for file in principle_files(arguments.folder)]:
        raise UserError(
            f"{arguments.folder}: there is a principle {arguments.id!r}; choose another id, or edit it in `review`"
        )
    wording = (arguments.principle.strip(), arguments.antithesis.strip())
    principle = Principle(arguments.id, (wording,), tags=tuple(arguments.tag), notes=arguments.notes)
    if errors := text_errors(principle):
        raise UserError(f"{arguments.id}: {errors[0]}")
    with alone_in(arguments.folder):
        file = file_of(arguments.folder, principle)
        write_principle(file, principle)
    tell_programs(arguments, {"principle": principle.name, "file": str(file)})
    show(f"{principle.name}: {file}")


def _draft(arguments: argparse.Namespace) -> None:
    from sami_jax.cli.drafting import draft_principles

    draft_principles(arguments)


def _list(arguments: argparse.Namespace) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from sami_jax.ground.terminal import cell, show_table
    from sami_jax.principles.files import read_files
    from sami_jax.principles.principle import approvers, content_hash, status

    files = read_files(arguments.folder)
    principles = sorted(files.items(), key=lambda item: (item[1].id, item[1].version))
    rows = [
        {
            "id": p.id,
            "version": p.version,
            "status": status(p, files.values()),
            "hash": content_hash(p),
            "file": str(file),
            "wordings": len(p.phrasings),
            "approved_by": approvers(p),
        }
        for file, p in principles
    ]
    tell_programs(arguments, rows)
    table = Table(box=box.SIMPLE_HEAD)
    for column in ("principle", "status", "source", "text"):
        table.add_column(column, no_wrap=True, overflow="ellipsis")
    for _, p in principles:
        now = status(p, files.values())
        table.add_row(p.name, Text(now, STYLES[now]), cell(p.source.kind), cell(p.phrasings[0][0]))
    show_table(table)


STYLES = {"draft": "yellow", "in review": "yellow", "approved": "green", "rejected": "red", "superseded": "dim"}


def _show(arguments: argparse.Namespace) -> None:
    import dataclasses

    from sami_jax.cli.review import print_principle
    from sami_jax.principles.files import read_principles
    from sami_jax.principles.principle import find, status

    principles = read_principles(arguments.folder)
    chosen = [find(principles, name, arguments.folder) for name in arguments.name]
    tell_programs(
        arguments,
        [dataclasses.asdict(p) | {"check": p.check and p.check.sides, "status": status(p, principles)} for p in chosen],
    )
    for principle in chosen:
        print_principle(principle, principles)


def _review(arguments: argparse.Namespace) -> None:
    from sami_jax.cli.review import review

    review(arguments.folder, arguments.name, _reviewer(arguments))


def _decide(arguments: argparse.Namespace) -> None:
    from sami_jax.ground.terminal import show
    from sami_jax.principles.files import read_principles
    from sami_jax.principles.principle import find
    from sami_jax.principles.reviewing import decide

    decision = {"approve": "approved", "reject": "rejected"}[arguments.subverb]
    principles, reviewer = read_principles(arguments.folder), _reviewer(arguments)
    rows = []
    for principle in [find(principles, name, arguments.folder) for name in arguments.name]:
        decided = decide(arguments.folder, principle, reviewer, decision, arguments.comment)
        renamed = f" (its text was changed after the approval of {principle.name})" if decided != principle.name else ""
        rows.append({"principle": decided, "decision": decision, "reviewer": reviewer})
        show(f"{decided}: {decision} by {reviewer}{renamed}")
    tell_programs(arguments, rows)


def _diff(arguments: argparse.Namespace) -> None:
    from sami_jax.ground.terminal import show
    from sami_jax.principles.differences import differences, folder_differences
    from sami_jax.principles.files import read_principles
    from sami_jax.principles.principle import find

    folders = [path_of(side) for side in (arguments.before, arguments.after)]
    if all(folder.is_dir() for folder in folders):
        lines = folder_differences(*map(read_principles, folders))
    else:
        principles = read_principles(arguments.folder)
        lines = differences(*(find(principles, name, arguments.folder) for name in (arguments.before, arguments.after)))
    lines = list(lines)
    tell_programs(arguments, lines)
    styles = {"+": "green", "-": "red", "@": "dim"}
    for line in lines or ["no difference in the texts"]:
        show(line, style=styles.get(line[:1]))


def _check(arguments: argparse.Namespace) -> None:
    import dataclasses

    if arguments.responses:
        from sami_jax.cli.trying import try_on_responses

        return try_on_responses(arguments)

    from sami_jax.ground.terminal import show
    from sami_jax.principles.files import read_principles
    from sami_jax.principles.lint import check
    from sami_jax.principles.principle import current, own_status

    findings = check(arguments.folder)
    tell_programs(arguments, [dataclasses.asdict(finding) for finding in findings])
    for finding in findings:
        kind, style = ("error", "red") if finding.error else ("note", "dim") if finding.note else ("warning", "yellow")
        show(f"{kind}: {finding.where}: {finding.text}", style)
    if errors := sum(finding.error for finding in findings):
        raise UserError(f"{arguments.folder}: {errors} error(s); mend the files named above")
    used = current(read_principles(arguments.folder))
    waiting = [p.name for p in used if own_status(p) != "approved"]
    warnings = sum(not finding.note for finding in findings)
    show(f"{len(used)} principles, {warnings} warning(s); not approved: {', '.join(waiting) or 'none'}")


def _import(arguments: argparse.Namespace) -> None:
    from sami_jax.ground.terminal import show
    from sami_jax.principles.exchange import import_principles, merge

    merged = merge(arguments.folder, import_principles(arguments.source))
    tell_programs(arguments, merged)
    for outcome, names in merged.items():
        if names:
            show(f"{outcome}: {', '.join(names)}")


def _export(arguments: argparse.Namespace) -> None:
    from sami_jax.ground.terminal import show
    from sami_jax.principles.exchange import export_principles
    from sami_jax.principles.files import read_principles

    principles = read_principles(arguments.folder)
    export_principles(principles, arguments.target, arguments.format)
    tell_programs(arguments, {"principles": len(principles), "output": str(arguments.target)})
    show(f"{len(principles)} principles: {arguments.target}")


def _used(arguments: argparse.Namespace) -> None:
    import dataclasses

    from sami_jax.ground.terminal import show
    from sami_jax.provenance.manifest import uses

    found = [use for run in arguments.runs for use in uses(run) if arguments.principle in (None, use.id, use.principle)]
    tell_programs(arguments, [dataclasses.asdict(use) for use in found])
    for use in found:
        show(f"{use.principle}  {use.hash.removeprefix('sha256:')[:12]}  {use.role:<8}  {use.status:<9}  {use.model}")
    if not found:
        show(f"no run here used {arguments.principle or 'any principle'}")


def _reviewer(arguments: argparse.Namespace) -> str:
    """Who decides: --reviewer, or git's user.name, or the login name."""
    if name := (arguments.reviewer or "").strip():
        return name
    try:
        # The user's own git, wherever it is.
        asked = subprocess.run(["git", "config", "user.name"], capture_output=True, timeout=10)  # nosec B607
        name = asked.stdout.decode("utf-8", "replace").strip()
    except (OSError, subprocess.TimeoutExpired):
        name = ""
    if name := name or os.environ.get("USER", "").strip():
        return name
    raise UserError("who decides is not known; give --reviewer NAME")
