"""Exit statuses: code, documentation and launchers say the same."""

import re
from pathlib import Path

import pytest

from sami_jax import cli, errors

ROOT = Path(__file__).parents[2]
OURS = {0, 1, errors.BAD_INPUT, errors.STOPPED_BY_CANARIES, errors.LOST, errors.NOT_FINITE, errors.TRY_AGAIN}
SIGNALS = {129, 130, 143}


def table(page: str) -> dict[int, str]:
    """The last cell of each row whose first are statuses."""
    rows = re.findall(r"^\| ([\d, ]+) \|(.+)\|$", (ROOT / page).read_text(encoding="utf-8"), re.M)
    return {int(status): rest for first, rest in rows for status in first.split(",")}


@pytest.mark.parametrize("page", ["docs/reliability.md", "docs/terminal.md"])
def test_documentation_has_every_status(page):
    assert set(table(page)) == OURS | SIGNALS


def test_documentation_says_which_are_of_no_use_to_start_again():
    again = {status: rest.rsplit("|", 1)[-1] for status, rest in table("docs/reliability.md").items()}
    of_no_use = {status for status, said in again.items() if said.strip().startswith(("no", "once that is mended"))}
    assert of_no_use - {0} == set(errors.FINAL)


def test_the_command_line_lists_every_status():
    listed = {int(status) for status in re.findall(r"(?:^|\s)(\d{1,3})(?=[, ])", cli.__doc__ or "")}
    assert listed == OURS | SIGNALS


def test_launchers_start_again_after_all_others():
    common = (ROOT / "launch/common.sh").read_text(encoding="utf-8")
    told = {
        int(status)
        for status in re.findall(r"^readonly (?:BAD_INPUT|STOPPED_BY_CANARIES|NOT_FINITE)=(\d+)", common, re.M)
    }
    assert told == set(errors.FINAL)
    jobset = (ROOT / "launch/jobset.yaml").read_text(encoding="utf-8")
    [values] = re.findall(r"values: \[([\d, ]+)\]", jobset)
    assert {int(status) for status in values.split(",")} == set(errors.FINAL)
    slurm = (ROOT / "launch/slurm.sh").read_text(encoding="utf-8")
    [case] = re.findall(r"^  ([\d| ]+)\) exit \"\$status\" ;;", slurm, re.M)
    assert {int(status) for status in case.split("|")} == set(errors.FINAL)


def test_words_of_launchers_agree():
    """Where it is told in a sentence, not in a table."""
    again = "is not started again; after any other status but 0 it is"
    [told] = re.findall(rf"A run that ends with (.+?) {again}", flat("launch/README.md"))
    assert numbers(told) == {*errors.FINAL, 130}
    [told] = re.findall(r"start again after all statuses but ([\d, and]+), where", flat("docs/reliability.md"))
    assert numbers(told) == {0, *errors.FINAL, 130}
    left = re.findall(r'"ended \$([A-Z_]+)"\) leave "\$([A-Z_]+)"', flat("launch/tpu_pod.sh"))
    assert left == [(name, name) for name in ("BAD_INPUT", "STOPPED_BY_CANARIES", "NOT_FINITE", "INTERRUPTED")]
    for page in ("docs/pods.md", "docs/reliability.md"):
        lost, missing = errors.LOST, errors.TRY_AGAIN
        assert f"status {lost}" in flat(page) and f"status {missing}" in flat(page), page


def flat(page: str) -> str:
    return " ".join((ROOT / page).read_text(encoding="utf-8").split())


def numbers(text: str) -> set[int]:
    return {int(number) for number in re.findall(r"\b\d+\b", text)}
