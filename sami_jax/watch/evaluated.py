"""What the run's own evaluation measured, as windows have it."""

import math

from sami_jax.evaluation.measure import share_followed
from sami_jax.evaluation.signs import refuses
from sami_jax.ground.server_replies import CUT_OFF
from sami_jax.report.data import MAIN_SET, Iteration
from sami_jax.watch.lines import Answer
from sami_jax.watch.measuring import Measuring
from sami_jax.watch.tally import ALL, PRINCIPLE, Cell, Tallies, Tally

HELD_OUT = "held_out_principles"  # tells of principles that the main set does not state
# Measures that should not depend on who asks what: in these, first windows that differ are an alarm. The others are shown.
ALIKE = ("following", "well_formed", "echo")


def evaluated(model: Iteration, measuring: Measuring, refusals: tuple[str, ...]) -> Tallies:
    """The responses of a run's model to its held-out queries, with the verdicts that the run has of them. A query is one value, the
    mean of its responses': they belong together. Of what is followed, the principles count and not the antitheses, which nobody serves.

    Raises:
      UserError: a file of the run cannot be read.
    """
    found: Tallies = {}
    for name in (MAIN_SET, HELD_OUT):
        by_query: dict[str, dict[str, list[float]]] = {}
        for row, verdict in zip(model.responses(name), model.verdicts(name), strict=False):
            answer = Answer(
                None, row["query"], row["response"], row["constitution"], (), row.get("finish_reason") not in CUT_OFF
            )
            stated = {statement.id for statement in measuring.stated(answer.constitution) if statement.positive}
            verdict = {id: follows for id, follows in verdict.items() if id in stated}
            values = {PRINCIPLE + id: float(follows) for id, follows in verdict.items()}
            if name == MAIN_SET:
                values |= measuring.own(answer) | {"length": math.log(1 + len(answer.response))}
                values["refusal"] = float(refuses(answer.response, refusals))
                if verdict:
                    values["following"] = share_followed(verdict)
            for measure, value in values.items():
                by_query.setdefault(str(row["id"]), {}).setdefault(measure, []).append(value)
        for measures in by_query.values():
            for measure, values in measures.items():
                found.setdefault(Cell(measure, ALL), Tally()).add(sum(values) / len(values))
    return found


def comparable(tallies: Tallies) -> list[Cell]:
    """Those that first windows are held against."""
    return [cell for cell in tallies if cell.kind in ALIKE]
