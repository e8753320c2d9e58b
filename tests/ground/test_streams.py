"""stdout and stderr that are closed, full, left by their reader, or of another encoding: the work goes on to its end."""

import os
import pty
import subprocess
import sys

import pytest

CODE = (
    "import sys\n"
    "from sami_jax.ground.streams import take_streams\n"
    "take_streams()\n"
    "work = open(sys.argv[1], 'w')\n"
    "for n in range(3000):\n"
    "    print('\\u4e01\\u5be7 \\xe9 \\udc80', n)\n"
    "    print('news \\u4e01', n, file=sys.stderr)\n"
    "sys.stdout.flush()\n"
    "work.write('done')\n"
)


def start(tmp_path, redirected: str = "", **variables: str) -> tuple[int, str, str, str]:
    """Status, what stdout and stderr had, and what the work left."""
    command = ["sh", "-c", f'"$0" -c "$1" "$2" {redirected}', sys.executable, CODE, str(tmp_path / "work")]
    done = subprocess.run(command, capture_output=True, env=os.environ | variables)
    return done.returncode, done.stdout.decode(), done.stderr.decode(), (tmp_path / "work").read_text()


@pytest.mark.parametrize(
    ("variables", "shown"),
    [
        ({"PYTHONIOENCODING": "ascii:strict"}, r"\u4e01\u5be7 \xe9 \udc80 0"),
        ({"PYTHONIOENCODING": "utf-8:strict"}, "丁寧 é \\udc80 0"),
        ({"LC_ALL": "C", "PYTHONUTF8": "0"}, r"\u4e01\u5be7 \xe9 \udc80 0"),
        ({"LC_ALL": "C"}, "丁寧 é \\udc80 0"),
        ({"PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "ascii"}, r"\u4e01\u5be7 \xe9 \udc80 0"),
    ],
)
def test_what_cannot_be_shown_is_escaped(tmp_path, variables, shown):
    status, out, err, left = start(tmp_path, **variables)
    assert (status, left) == (0, "done") and out.splitlines()[0] == shown and err.startswith("news ")


@pytest.mark.parametrize(
    "redirected", ["| head -n 1", ">&-", "2>&-", ">&- 2>&- <&-", "2>/dev/full", "2>&1 >/dev/null | true"]
)
def test_nobody_who_reads_is_no_reason_to_end(tmp_path, redirected):
    _, _, err, left = start(tmp_path, redirected)
    assert left == "done" and "Traceback" not in err and "Exception ignored" not in err


def test_results_that_find_no_room_are_told(tmp_path):
    status, _, err, left = start(tmp_path, ">/dev/full")
    assert status == 1 and left == ""  # here nobody catches it; `sami` says it in one line
    assert err.splitlines()[-1].endswith("standard output: No space left on device; have the results go elsewhere")


def test_a_terminal_that_was_closed_is_no_reason_to_end(tmp_path):
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", CODE.replace("range(3000)", "range(20_000)"), str(tmp_path / "work")],
        stdin=follower,
        stdout=subprocess.DEVNULL,
        stderr=follower,
        start_new_session=True,
    )
    os.close(follower)
    assert os.read(leader, 4)
    os.close(leader)
    assert process.wait() == 0 and (tmp_path / "work").read_text() == "done"
