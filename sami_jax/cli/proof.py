"""The verbs that prove: win rates, judging, ratings by people, comparison of two models."""

import argparse
import math

from sami_jax.cli.options import (
    add_verb,
    any_path,
    new_file,
    new_folder,
    skipped_by,
    tell_programs,
    with_config,
    with_endpoint,
    with_results,
    with_skipping,
)
from sami_jax.cli.rates import TIES, print_rates
from sami_jax.errors import UserError
from sami_jax.ground.paths import path_of


def add_verbs(verbs) -> None:
    winrate = add_verb(
        verbs,
        "winrate",
        _winrate,
        "what a file of verdicts adds up to",
        "sami winrate --input verdicts.jsonl --ties half",
    )
    winrate.add_argument("--input", type=any_path, required=True, help='JSONL of {"win": 1 | 0.5 | 0 | null, ...}')
    winrate.add_argument("--ties", choices=tuple(TIES), default="half", help="how a tie counts")

    rank = add_verb(
        verbs,
        "rank",
        _rank,
        "several models by the verdicts on pairs of them (Bradley-Terry)",
        "sami rank base:it1=verdicts1.jsonl base:it2=verdicts2.jsonl it1:it2=verdicts3.jsonl",
    )
    rank.add_argument("matches", nargs="+", metavar="BASELINE:TEST=FILE", help="a verdict file and whose it is")

    judge = add_verb(
        verbs,
        "judge",
        _judge,
        "have a judge decide between the responses of two models",
        "sami judge --baseline base.jsonl --test trained.jsonl --queries queries.jsonl --output verdicts.jsonl --judge DIR",
    )
    _with_pairs(judge)
    judge.add_argument("--output", type=new_file, required=True, help="verdicts; a stopped judging is continued")
    with_judge(judge)
    judge.add_argument("--ties", choices=tuple(TIES), default="half", help="how a tie counts in what is printed")

    compare = add_verb(
        verbs,
        "compare",
        _compare,
        "ship it? two models on held-out queries, by a plan made beforehand",
        "sami compare --config=tiny --test runs/tiny/iteration_3/model --judge miniature --output ab",
    )
    with_config(compare)
    compare.add_argument(
        "--baseline", type=any_path, help="model folder in Hugging Face format; default: the config's base model"
    )
    compare.add_argument("--test", type=any_path, required=True, help="model folder in Hugging Face format")
    for role in ("baseline", "test"):
        compare.add_argument(
            f"--{role}_chat",
            action="store_true",
            help="ask it by its chat template, as --config.prompt.chat=True asks both",
        )
        compare.add_argument(
            f"--{role}_examples",
            type=any_path,
            metavar="FILE",
            help='JSONL of {"query", "constitution", "response"} to show it',
        )
    compare.add_argument("--output", type=new_folder, required=True, help="folder; a stopped comparison is continued")
    compare.add_argument("--margin", type=float, default=0.05, help="gain in win rate worth shipping for")
    compare.add_argument(
        "--most_invalid",
        type=float,
        default=0.05,
        help="share of verdicts that may be invalid; above it nothing is decided",
    )
    with_skipping(compare)
    with_judge(compare)
    compare.set_defaults(compiles=True)

    rate = add_verb(verbs, "rate", None, "people as judges: blinded pairs out, ratings in", "sami rate export --help")
    sub = rate.add_subparsers(dest="subverb", required=True, metavar="VERB", parser_class=type(rate))
    export = add_verb(
        sub,
        "export",
        _rate_export,
        "a blinded, shuffled sheet, and tasks for Label Studio",
        "sami rate export --baseline base.jsonl --test trained.jsonl --queries queries.jsonl --output ratings",
    )
    _with_pairs(export)
    export.add_argument("--output", type=new_folder, required=True, help="folder to write")
    export.add_argument("--seed", type=int, default=0, help="of the shuffling")
    bring = add_verb(
        sub,
        "import",
        _rate_import,
        "ratings to verdicts, and their agreement with a judge",
        "sami rate import ratings/ratings.csv --key ratings/key.json --output people.jsonl --verdicts verdicts.jsonl",
    )
    bring.add_argument(
        "ratings",
        nargs="+",
        type=any_path,
        help="the filled sheet, or an export of Label Studio (JSON, JSON-MIN, CSV); of several raters, one each",
    )
    bring.add_argument("--key", type=any_path, required=True, help="key.json that the export wrote")
    bring.add_argument("--output", type=new_file, required=True, help="verdicts")
    bring.add_argument("--verdicts", type=any_path, help="a judge's on the same pairs, to tell the agreement with")
    for parser in (winrate, rank, judge, compare, export, bring):
        with_results(parser)


def _with_pairs(parser: argparse.ArgumentParser) -> None:
    line = 'JSONL of {"id", "response"}, with "constitution" and "query" where there are any'
    parser.add_argument("--baseline", type=any_path, required=True, help=line)
    parser.add_argument("--test", type=any_path, required=True, help="likewise, of the tested model, in the same order")
    parser.add_argument(
        "--queries",
        type=any_path,
        help="file of id and query a row (.jsonl, .json, .csv, .parquet), where the lines hold no query",
    )
    with_skipping(parser)


def with_judge(parser: argparse.ArgumentParser) -> None:
    """Options that choose a judge of pairs, read by `make_judge`."""
    parser.add_argument(
        "--judge",
        required=True,
        metavar="DIR|NAME|checks|miniature",
        help="a model folder, a model at --endpoint, what the principles' files can decide, or the miniature's exact one",
    )
    with_endpoint(parser, "400")
    parser.add_argument("--concurrency", type=int, default=8, help="requests at a time")
    parser.add_argument("--batch_size", type=int, default=8, help="questions a model folder computes together")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of a model folder")
    parser.add_argument("--one_order", action="store_true", help="judge each pair in one drawn order, at half the cost")
    parser.add_argument(
        "--principles", type=any_path, help="folder of principle files; default: those of the miniature"
    )


def make_judge(arguments: argparse.Namespace):
    """The judge that `with_judge`'s options choose."""
    from sami_jax.evaluation.asking import MAX_TOKENS, EndpointJudge

    for name in ("concurrency", "timeout", "batch_size", "max_tokens"):
        if (value := getattr(arguments, name)) is not None and value <= 0:
            raise UserError(f"--{name} {value}: must be above 0")
    if arguments.endpoint:
        from sami_jax.ground.endpoint import Endpoint

        endpoint = Endpoint(
            arguments.endpoint, arguments.judge, arguments.api, arguments.key_variable, arguments.timeout
        )
        return EndpointJudge(endpoint, arguments.concurrency, arguments.max_tokens or MAX_TOKENS)
    if arguments.judge in ("miniature", "checks"):
        return _exact_judge(arguments)
    from sami_jax.evaluation.local_judge import local_judge

    return local_judge(path_of(arguments.judge), arguments.batch_size, arguments.dtype, arguments.api == "chat")


def _exact_judge(arguments: argparse.Namespace):
    from sami_jax import miniature
    from sami_jax.evaluation.judges import ChecksJudge, MiniatureJudge
    from sami_jax.evaluation.judging import ExactPairJudge
    from sami_jax.ground.terminal import say
    from sami_jax.principles.files import read_principles

    folder = arguments.principles or miniature.PRINCIPLES
    principles = read_principles(folder)
    if arguments.judge == "miniature":
        return ExactPairJudge("miniature", MiniatureJudge(), principles)
    if not arguments.principles:
        raise UserError("--judge checks: give --principles, the folder of the files that hold them")
    judge = ChecksJudge(principles)
    if without := [principle.id for principle in principles if not judge.knows(principle.id)]:
        say(f"{folder}: without a check, and not judged: {', '.join(without)}")
    return ExactPairJudge("checks", judge, principles)


def _pairs(arguments: argparse.Namespace):
    from sami_jax.data.queries import read_queries
    from sami_jax.evaluation.pairs import read_pairs_of_files

    skipped = skipped_by(arguments)
    queries = read_queries(arguments.queries, skipped) if arguments.queries else []
    texts = {query.id: query.text for query in queries}
    return read_pairs_of_files(arguments.baseline, arguments.test, texts, skipped)


def _judge(arguments: argparse.Namespace) -> None:
    from sami_jax.evaluation.judging import judge_pairs
    from sami_jax.evaluation.verdicts import by_tag, summarize

    pairs = _pairs(arguments)
    verdicts = judge_pairs(pairs, make_judge(arguments), arguments.output, not arguments.one_order)
    _give(arguments, summarize(verdicts, arguments.ties), by_tag(verdicts, arguments.ties))


def _compare(arguments: argparse.Namespace) -> None:
    from sami_jax.cli.comparing import compare_models

    compare_models(arguments, make_judge(arguments))


def _rate_export(arguments: argparse.Namespace) -> None:
    from sami_jax.evaluation.ratings import KEY, TASKS, export_ratings
    from sami_jax.evaluation.sheets import SHEET
    from sami_jax.ground.terminal import show

    pairs = _pairs(arguments)
    export_ratings(pairs, arguments.output, arguments.seed)
    files = {name: str(arguments.output / file) for name, file in (("sheet", SHEET), ("tasks", TASKS), ("key", KEY))}
    tell_programs(arguments, {"items": len(pairs), **files})
    show(f"{len(pairs)} items: {arguments.output / SHEET}, {arguments.output / TASKS}; keep {KEY} from the raters")


def _rate_import(arguments: argparse.Namespace) -> None:
    import dataclasses

    from sami_jax.data.jsonl import write_jsonl
    from sami_jax.evaluation.ratings import Agreement, agreement, between_raters, import_ratings
    from sami_jax.evaluation.verdicts import read_verdicts, summarize
    from sami_jax.ground.terminal import show

    def shown(found: Agreement) -> str:
        return f"Cohen's kappa: {found.kappa:.2f} (95 %: {found.ci_low:.2f} to {found.ci_high:.2f}; n = {found.n})"

    ratings = [import_ratings(file, arguments.key) for file in arguments.ratings]
    rows, unrated = [row for one in ratings for row in one.rows], sum(one.unrated for one in ratings)
    write_jsonl(arguments.output, rows)
    rated = read_verdicts(arguments.output)
    summary = summarize(rated, "half")
    print_rates(summary, {}, "half")
    if unrated:
        show(f"{unrated} rows without a rating")
    summary["unrated"] = unrated
    if between := between_raters(rows):
        summary["between_raters"] = [{"raters": names, **dataclasses.asdict(found)} for names, found in between.items()]
        for (one, other), found in between.items():
            show(f"agreement of {one} and {other}, {shown(found)}")
    if arguments.verdicts:
        found = agreement(rated, read_verdicts(arguments.verdicts))
        if found is None:
            raise UserError(
                f"{arguments.verdicts}: no pair in common with {arguments.output}; give the judge's verdicts on the same pairs"
            )
        summary["agreement"] = dataclasses.asdict(found)
        show(f"agreement with the judge, {shown(found)}")
    tell_programs(arguments, summary)


def _winrate(arguments: argparse.Namespace) -> None:
    from sami_jax.evaluation.verdicts import by_tag, read_verdicts, summarize

    verdicts = read_verdicts(arguments.input)
    found = summarize(verdicts, arguments.ties)
    slices = by_tag(verdicts, arguments.ties)
    _give(arguments, found, slices)


def _give(arguments: argparse.Namespace, found: dict, slices: dict[str, dict]) -> None:
    tell_programs(arguments, found | ({"slices": slices} if slices else {}))
    print_rates(found, slices, arguments.ties)


def _rank(arguments: argparse.Namespace) -> None:
    from sami_jax.evaluation.verdicts import rank, read_verdicts
    from sami_jax.ground.terminal import show

    matches = []
    for match in arguments.matches:
        names, _, file = match.partition("=")
        baseline, _, test = names.partition(":")
        if not (baseline and test and file) or baseline == test:
            raise UserError(f"{match}: not BASELINE:TEST=FILE; name two models and the file of verdicts on them")
        matches.append((baseline, test, read_verdicts(path_of(file))))
    ranked = rank(matches)
    last, weakest = ranked[-1]
    rows = [
        {"model": name, "strength": strength, "wins_against_last": 1 / (1 + math.exp(weakest - strength))}
        for name, strength in ranked
    ]
    tell_programs(arguments, rows)
    for row in rows:
        show(f"{row['model']}: {row['strength']:+.2f} (wins {100 * row['wins_against_last']:.0f} % against {last})")
