"""`sami principles draft` against a local model, a real server, and servers that fail in every way they can."""

import http.server
import json
import shutil
import threading
import time
from pathlib import Path

import pytest
from support.scripted_model import free_port, write_scripted_model

from sami_jax import miniature
from sami_jax.cli import main
from sami_jax.errors import BAD_INPUT, TRY_AGAIN
from sami_jax.principles.files import read_principles
from sami_jax.principles.principle import own_status

SCRIPT = [
    "id:",
    " brief\n",
    "principle: Say it in one sentence.\nantithesis: Say it in many sentences.\n\n",
    "And remember to be kind!\n\n",
    "id: warm\nprinciple: Sound like a friend.\nantithesis: Sound like a machine.",
]


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def writer(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "scripted"
    write_scripted_model(folder, SCRIPT)
    return folder


def draft(*argv: str) -> int:
    return main(["principles", "draft", "Answers to questions", *argv])


def log() -> list[dict]:
    return [json.loads(line) for line in Path("principles/drafts.jsonl").read_text().splitlines()]


def check_both_drafted(out: str, name: str) -> None:
    brief, warm = read_principles(Path("principles"))
    assert brief.phrasings == (("Say it in one sentence.", "Say it in many sentences."),)
    assert warm.id == "warm" and own_status(warm) == "draft"
    assert (brief.source.kind, brief.source.name) == ("writer", name) and brief.source.prompt.startswith("sha256:")
    assert "2 of 2 drafted; 1 block(s) of the replies could not be used" in out
    [line] = log()
    assert line["drafted"] == ["brief@1", "warm@1"]
    [refused] = line["refused"]
    assert refused["block"].endswith("And remember to be kind!")


def test_a_local_model(writer, capsys):
    assert draft("--writer", str(writer), "--count", "2") == 0
    check_both_drafted(capsys.readouterr().out, "scripted")


def test_a_weak_local_model_is_no_failure_of_ours(capsys):
    """The miniature cannot write principles: all it says is kept and counted."""
    status = draft("--writer", str(miniature.BASE), "--count", "1", "--attempts", "1")
    assert status == 2
    err = capsys.readouterr().err.strip().splitlines()
    assert err[-1].startswith("sami: ") and "Traceback" not in "".join(err)


@pytest.mark.slow
@pytest.mark.parametrize("api", ["chat", "completions"])
def test_a_real_server(server, writer, capsys, api):
    assert draft("--endpoint", server, "--writer", str(writer), "--api", api, "--count", "2") == 0
    check_both_drafted(capsys.readouterr().out, str(writer))


@pytest.mark.slow
@pytest.mark.parametrize("api", ["chat", "completions"])
def test_the_miniature_behind_a_real_server(server, tmp_path, capsys, api):
    model = tmp_path / "miniature"
    shutil.copytree(miniature.BASE, model)
    options = ["--endpoint", server, "--writer", str(model), "--api", api, "--count", "1", "--attempts", "1"]
    assert draft(*options) == 2
    assert "no usable principle in 1 replies" in capsys.readouterr().err
    [line] = log()
    assert line["reply"] and line["refused"] and not line["drafted"]


@pytest.mark.slow
def test_a_model_the_server_does_not_have(server, capsys):
    assert draft("--endpoint", server, "--writer", "nobody/nothing") == TRY_AGAIN  # its server says 500
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


class Faulty(http.server.BaseHTTPRequestHandler):
    """Answers as the first word of its server's `answers` says, then the next; the last one stays."""

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        answers = self.server.answers
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        self.server.asked += 1
        if answer == "hang":
            time.sleep(3)
        elif answer == "close":
            self.connection.close()
        elif isinstance(answer, int):
            self.send_response(answer)
            self.send_header("retry-after-ms", "1")
            self.end_headers()
            self.wfile.write(b'{"error": {"message": "no"}}')
        else:
            self.send_response(200)
            self.send_header("Content-Type", "text/html" if answer.startswith("<") else "application/json")
            self.end_headers()
            self.wfile.write(answer.encode())

    def log_message(self, *_):
        pass


@pytest.fixture
def faulty():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Faulty)
    server.asked = 0
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def says(text: str) -> str:
    return json.dumps({"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}]})  # fmt: skip


BRIEF = says("id: brief\nprinciple: Say it in one sentence.\nantithesis: Say it in many sentences.")


@pytest.mark.parametrize(
    ("answers", "words", "asked"),
    [
        ([429], "too many requests (status 429), 5 times", 5),
        ([500], "the server failed (status 500), 5 times", 5),
        ([401], "put the key into the environment variable OPENAI_API_KEY", 1),
        ([404], "no such model or address", 1),
        ([400], "the request was refused (status 400)", 1),
        (["<html>hello</html>"], "not of the OpenAI protocol", 1),
        (["{}"], "not of the OpenAI protocol", 1),
        (['{"choices": []}'], "not of the OpenAI protocol", 1),
        (['{"choices": [{'], "not of the OpenAI protocol", 1),
        (["close"], "no connection", 5),
        (["hang"], "no answer in time, 5 times", 5),
    ],
)  # fmt: skip
def test_faults_end_in_one_line_after_bounded_tries(faulty, capsys, monkeypatch, answers, words, asked):
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.01)
    monkeypatch.setenv("OPENAI_API_KEY", "a-planted-secret-key")
    faulty.answers = list(answers)
    url = f"http://127.0.0.1:{faulty.server_address[1]}/v1"
    assert draft("--endpoint", url, "--writer", "m", "--timeout", "0.5") == (TRY_AGAIN if asked > 1 else BAD_INPUT)
    out, err = capsys.readouterr()
    assert len(err.strip().splitlines()) == 1 and words in err and url in err
    assert faulty.asked == asked
    assert "a-planted-secret-key" not in out + err


CUT = json.loads(BRIEF)
CUT["choices"][0]["finish_reason"] = "length"
CUT["choices"][0]["message"]["content"] += (
    "\n\nid: warm\nprinciple: Sound like a friend.\nantithesis: Sound like a mach"
)
THINKING = says("<think>\n\nid: warm\nprinciple: Sound so.\nantithesis: Sound otherwise.\n\n</think>\n\n" + json.loads(BRIEF)["choices"][0]["message"]["content"])  # fmt: skip
ONLY_THOUGHTS = json.dumps({"choices": [{"finish_reason": "length", "message": {"content": None, "reasoning_content": "Hm."}}]})  # fmt: skip
SECRET = says("id: key\nprinciple: Say sk-abcdefgh12345678.\nantithesis: Say nothing.")


@pytest.mark.parametrize(
    ("answers", "status", "drafted", "words"),
    [
        ([json.dumps(CUT), BRIEF], 2, ["brief"], "not used (cut off at 77 tokens): id: warm principle: Sound like a friend."),
        ([THINKING], 0, ["brief"], "1 of 1 drafted"),
        ([ONLY_THOUGHTS], 2, [], "no usable principle in 2 replies; 2: cut off at 77 tokens; see principles/drafts.jsonl, give it more --max_tokens"),
        ([SECRET], 2, [], "not used (it holds what looks like a secret): id: key principle: Say ***."),
    ],
)  # fmt: skip
def test_replies_that_are_cut_off_and_thoughts(faulty, capsys, answers, status, drafted, words):
    faulty.answers = answers
    url = f"http://127.0.0.1:{faulty.server_address[1]}/v1"
    count = "2" if drafted and status else "1"
    options = ["--max_tokens", "77", "--attempts", "2", "--count", count]
    assert draft("--endpoint", url, "--writer", "m", *options) == (0 if drafted else status)
    told = capsys.readouterr()
    assert words in " ".join((told.out + told.err).split())
    assert [p.id for p in read_principles(Path("principles"))] == drafted if drafted else not list(Path("principles").glob("*.yaml"))  # fmt: skip
    assert "sk-abc" not in Path("principles/drafts.jsonl").read_text()


def test_drafts_so_far_are_kept_when_a_server_dies(faulty, capsys, monkeypatch):
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.01)
    faulty.answers = [429, 503, BRIEF, "close"]
    assert (
        draft("--endpoint", f"http://127.0.0.1:{faulty.server_address[1]}/v1", "--writer", "m", "--count", "2")
        == TRY_AGAIN
    )
    out, err = capsys.readouterr()
    assert "1 of 2 drafted" in out and "no connection" in err
    assert [p.id for p in read_principles(Path("principles"))] == ["brief"]


def test_nobody_listens(capsys, monkeypatch):
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.01)
    assert draft("--endpoint", f"http://127.0.0.1:{free_port()}/v1", "--writer", "m") == TRY_AGAIN
    assert "no connection" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--writer", "nowhere"], "nowhere: no such model folder"),
        (["--writer", "m", "--endpoint", "localhost"], "localhost: not an address"),
        (["--writer", "m", "--count", "0"], "--count 0: must be above 0"),
        (["--writer", "m", "--temperature", "-1"], "--temperature -1.0: must be at least 0"),
        (["--writer", "m", "--example", "x"], "no principle 'x'"),
    ],
)
def test_bad_options(capsys, argv, words):
    assert draft(*argv) == 2
    assert words in capsys.readouterr().err
