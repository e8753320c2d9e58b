"""Which sampled responses are trained on: every drop is counted by its reason."""

from collections import Counter
from collections.abc import Sequence

from ml_collections import ConfigDict

from sami_jax.data.pairs import clean
from sami_jax.evaluation.echo import echoes


def drop_reason(
    responses: Sequence[str],
    constitutions: Sequence[str],
    positive: Sequence[bool],
    config: ConfigDict,
    finish_reasons: Sequence[str] = (),
) -> str | None:
    """Why the responses to one query are not trained on; None keeps them.

    Args:
      responses: cleaned, one per constitution.
      constitutions: their texts.
      positive: which constitutions state no antithesis; `config.end_with` is asked of their responses alone.
      config: a run's `filter`.
      finish_reasons: "stop" of each response that ended by itself, "length" of one that was cut off.
    """
    if not config.keep_unfinished and "length" in finish_reasons:
        return "cut off before its end"
    for response in responses:
        if not response.removeprefix(config.prefix).strip():
            return f"no response after {config.keep_after!r}" if config.keep_after else "empty response"
        if found := next((text for text in config.forbidden if text in response), None):
            return f"contains {found!r}"
    if not config.keep_echo and any(map(echoes, responses, constitutions)):
        return "repeats its constitution"
    for response, is_positive in zip(responses, positive, strict=True):
        if config.end_with and is_positive and not response.rstrip().endswith(tuple(config.end_with)):
            return "positive response does not end as asked"
    if not config.keep_equal and len({response.strip() for response in responses}) == 1 and len(responses) > 1:
        return "responses are equal"
    return None


def filter_pairs(
    rows: Sequence[dict], positives: Sequence[Sequence[bool]], config: ConfigDict
) -> tuple[list[dict], dict[str, int]]:
    """Cleans and filters.

    Args:
      rows: {"id", "query", "constitutions", "responses", ...} with raw responses.
      positives: for each row, which constitutions state no antithesis.
    Returns:
      the rows that stay, with cleaned responses, and the number of dropped queries by reason.
    """
    kept, dropped = [], Counter()
    for row, positive in zip(rows, positives, strict=True):
        responses = [clean(response, config) for response in row["responses"]]
        if reason := drop_reason(responses, row["constitutions"], positive, config, row.get("finish_reasons", ())):
            dropped[reason] += 1
        else:
            kept.append({**row, "responses": responses})
    return kept, dict(dropped.most_common())
