"""The audit log: a chain that shows any change, and survives a crash in mid-write."""

import itertools
import json

import pytest

from sami_jax.errors import UserError
from sami_jax.provenance.audit import AuditLog, read_audit


@pytest.fixture
def log(tmp_path):
    log = AuditLog(tmp_path / "audit.jsonl")
    for number in range(4):
        log.add("sampled", iteration=number, text="日本語")
    return tmp_path / "audit.jsonl"


def test_is_a_chain_that_goes_on(log):
    AuditLog(log).add("trained", iteration=9)
    events = read_audit(log)
    assert [event["number"] for event in events] == [1, 2, 3, 4, 5]
    assert all(after["previous"] == before["hash"] for before, after in itertools.pairwise(events))
    opened = AuditLog(log)
    assert opened.last("sampled", iteration=2)["number"] == 3 and opened.last("sampled", iteration=7) is None


def test_every_changed_byte_is_found(log):
    content = log.read_bytes()
    first_end = content.index(b"\n")
    for place in range(len(content)):
        changed = content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
        log.write_bytes(changed)
        with pytest.raises(UserError, match=r"audit.jsonl:\d: ") as error:
            read_audit(log)
        if place < first_end:
            assert "audit.jsonl:1: " in str(error.value)


@pytest.mark.parametrize("order", [[0, 2, 3], [1, 2, 3], [0, 2, 1, 3], [0, 1, 1, 2, 3]])
def test_removed_moved_and_doubled_lines_are_found(log, order):
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(lines[place] for place in order))
    with pytest.raises(UserError, match="does not follow from the one before"):
        read_audit(log)


def test_a_line_made_anew_breaks_the_next(log):
    from sami_jax.ground.digests import json_digest

    lines = [json.loads(line) for line in log.read_text().splitlines()]
    lines[1]["iteration"] = 7
    del lines[1]["hash"]
    lines[1]["hash"] = json_digest(lines[1])
    log.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    with pytest.raises(UserError, match=r"audit\.jsonl:3: the line does not follow"):
        read_audit(log)


def test_a_torn_last_line_is_taken_away(log):
    whole = log.read_bytes()
    log.write_bytes(whole + b'{"number": 5, "ti')
    AuditLog(log).add("trained")
    assert log.read_bytes().startswith(whole) and len(read_audit(log)) == 5
