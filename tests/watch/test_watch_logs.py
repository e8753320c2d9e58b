"""Logs as they lie in folders: rotated, packed, damaged, still written."""

import gzip
import json
import os
import threading

import pytest

from sami_jax.errors import UserError
from sami_jax.watch import logs


def line(time: int, response: str = "r") -> bytes:
    return json.dumps({"time": time, "query": "q", "response": response}).encode() + b"\n"


def contents(found) -> list[bytes]:
    return [one.content.strip() for one in found if one and one.content]


def test_rotated_logs_are_read_in_the_order_of_their_times(tmp_path):
    files = {"app.jsonl": line(30), "app.jsonl.1": b"noise\n" + line(20), "app.jsonl.2.gz": gzip.compress(line(10))}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    names = logs.in_order([str(tmp_path / name) for name in files])
    assert [os.path.basename(name) for name in names] == ["app.jsonl.2.gz", "app.jsonl.1", "app.jsonl"]
    read = [json.loads(one)["time"] for one in contents(logs.lines(names, follow=False)) if one != b"noise"]
    assert read == [10, 20, 30]


def test_a_long_line_and_a_damaged_file_are_told(tmp_path, monkeypatch):
    monkeypatch.setattr(logs, "LONGEST", 1000)
    file = tmp_path / "long"
    file.write_bytes(line(1) + b"x" * 5000 + b"\n\n \n" + line(2))
    found = list(logs.lines_of(str(file)))
    assert [(one.number, bool(one.content), bool(one.fault)) for one in found] == [
        (1, True, False),
        (2, False, True),
        (5, True, False),
    ]
    packed = tmp_path / "cut.gz"
    packed.write_bytes(gzip.compress(os.urandom(100) + b"\n" + line(1) * 3)[:-12])
    *_, last = logs.lines_of(str(packed))
    assert last.content is None and "packed" in last.fault


@pytest.mark.parametrize("files", [["-", "x"], ["/nowhere/log"], ["."], ["a\0b"]])
def test_what_cannot_be_read_is_said_at_once(files):
    with pytest.raises(UserError):
        logs.check_files(files, follow=False)


def test_a_log_is_followed_through_its_rotation(tmp_path, monkeypatch):
    monkeypatch.setattr(logs, "PAUSE", 0.02)
    file = tmp_path / "log"
    file.write_bytes(line(1))
    followed, found, steps = logs.lines([str(file)], follow=True), [], threading.Event()

    def rotate():
        with open(file, "ab") as stream:
            stream.write(line(2)[:9])  # in mid-line
            stream.flush()
            stream.write(line(2)[9:] + line(3))
        file.rename(tmp_path / "log.1")
        file.write_bytes(line(4))

    for one in followed:
        if one is None:
            if steps.is_set() and len(found) >= 4:
                break
            if not steps.is_set():
                steps.set()
                rotate()
        else:
            found.append(json.loads(one.content)["time"])
    assert found == [1, 2, 3, 4]
    with open(file, "wb") as stream:  # emptied in place
        stream.write(b"")
    assert next(followed, None) is None
