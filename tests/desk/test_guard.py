"""Attacks: nothing runs, nothing is lost, nothing outside of the folders is read."""

import asyncio
import concurrent.futures
import dataclasses
import re
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request

import httpx
import pytest
from support.desk import FORM, HOST, PAIRS, Browser, logged, principles_in, ratings_in, text_of
from support.fabricated_run import fabricate

from sami_jax.cli import main
from sami_jax.desk.app import make_app
from sami_jax.desk.guard import LARGEST_BODY, Entrance
from sami_jax.desk.pages import Places
from sami_jax.principles.files import read_principles

SCRIPT = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'{{7*7}}"


@pytest.fixture
def places(tmp_path) -> Places:
    fabricate(tmp_path / "runs" / "demo")
    return Places(principles_in(tmp_path / "principles"), ratings_in(tmp_path / "ratings"), tmp_path / "runs")


@pytest.fixture
def browser(places) -> Browser:
    return Browser(places, "Aiko")


def state(places: Places) -> dict[str, bytes]:
    root = places.principles.parent
    return {str(file.relative_to(root)): file.read_bytes() for file in root.rglob("*") if file.is_file()}


POSTS = ("/principles/kind@1/decide", "/principles/kind@1/edit", "/ratings/1", "/name", "/language")


@pytest.mark.parametrize("place", POSTS)
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1:8701"}, 403),
        ({"Origin": "http://["}, 403),
        ({"Origin": "http://127.0.0.1:8700.evil.example"}, 403),
        ({"Origin": ""}, 403),
        ({"Host": "evil.example", "Origin": "http://evil.example"}, 421),
        ({"Host": "localhost.evil.example:8700"}, 421),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "multipart/form-data; boundary=x"}, 415),
        ({"Cookie": "sami_desk_8700=x.y"}, 403),
    ],
)
def test_requests_of_others_change_nothing(browser, places, place, headers, status):
    fields = {"csrf": browser.form("/name", "/name")["csrf"], "name": "Eve", "decision": "approve", "better": "1"}
    before = state(places)
    if "Cookie" in headers:
        browser.cookies.clear()
    assert browser.post(place, data=fields, headers=headers).status_code == status
    assert state(places) == before


@pytest.mark.parametrize("place", POSTS)
@pytest.mark.parametrize("token", [None, "", "0" * 64, "é", "of another session"])
def test_a_missing_or_wrong_form_token(browser, places, place, token):
    fields = browser.form("/principles/kind@1", "decide") | {"decision": "approve", "better": "1"}
    if token == "of another session":
        fields["csrf"] = Browser(places).form("/name", "/name")["csrf"]
    elif token is None:
        del fields["csrf"]
    else:
        fields["csrf"] = token
    before = state(places)
    assert browser.post(place, data=fields).status_code == 403
    assert state(places) == before


def test_the_same_form_with_all_in_order_is_taken(browser, places):
    """What the tests above change is what keeps them out."""
    assert browser.fill("/principles/kind@1", "decide", decision="approve").status_code == 200
    assert [line["event"] for line in logged(places.principles)] == ["principle approved"]


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_other_methods(browser, method):
    assert browser.request(method, "/principles/kind@1").status_code == 405


def test_reading_pages_writes_nothing(browser, places):
    before = state(places)
    for place in ("/", "/principles", "/principles/kind@1", "/ratings", "/ratings/1", "/runs", "/runs/demo", "/name"):
        assert browser.get(place).status_code == 200, place
        assert browser.head(place).status_code in (200, 405)
    for place in POSTS[:2]:
        assert browser.get(place).status_code == 405
    assert state(places) == before


TRAVERSALS = [
    "../secret.yaml", "..%2Fsecret.yaml", "%2e%2e%2fsecret.yaml", "..%5Csecret", "%2Fetc%2Fpasswd", "....//secret", "kind@1%00.yaml",
    "%00", "/etc/passwd", "~", "~root", "secret", "audit.jsonl", "key.json", "..%252fsecret.yaml", "demo%2F..%2F..%2Fsecret", "con", "\u2025/secret",
]  # fmt: skip


@pytest.mark.parametrize("base", ["/", "/principles/", "/runs/", "/ratings/", "/static/", "/enter/"])
def test_no_path_leads_out_of_the_folders(browser, places, base):
    (places.principles.parent / "secret.yaml").write_text("id: secret\nprinciple: SECRET\nantithesis: SECRET\n")
    (places.principles.parent / "secret").mkdir()
    (places.principles.parent / "secret" / "run.json").write_text("SECRET")
    before = state(places)
    for tail in TRAVERSALS:
        for end in ("", "/report", "/live", "/ask"):
            answer = browser.get(base + tail + end, follow_redirects=False)
            assert answer.status_code in (400, 404, 405) or (base, answer.status_code) == ("/enter/", 200), tail
            assert "SECRET" not in answer.text and "root:" not in answer.text and "baseline_first" not in answer.text
        fields = browser.form("/principles/kind@1", "decide") | {"decision": "approve", "better": "1"}
        for action in ("/decide", "/edit", ""):
            assert browser.post(base + tail + action, data=fields).status_code in (400, 404, 405)
    assert state(places) == before


def test_no_link_leads_out_of_the_folders(browser, places, tmp_path):
    secret = tmp_path / "elsewhere"
    fabricate(secret / "run")
    (secret / "p.yaml").write_text("id: hidden\nprinciple: SECRET\nantithesis: SECRETS\n")
    (places.runs / "out").symlink_to(secret / "run")
    assert "out" not in text_of(browser.get("/runs").text).split() and browser.get("/runs/out").status_code == 404
    examples = places.runs / "demo/iteration_1/evaluation/trained.jsonl"
    examples.unlink()
    examples.symlink_to(secret / "run/iteration_1/evaluation/trained.jsonl")
    for place in ("/runs/demo", "/runs/demo/report", "/runs/demo/live"):
        answer = browser.get(place)
        assert answer.status_code == 400 and "leads out of" in answer.text
    (places.principles / "p.yaml").symlink_to(secret / "p.yaml")
    for place in ("/principles", "/principles/hidden"):
        answer = browser.get(place)
        assert answer.status_code == 400 and "leads out of" in answer.text and "SECRET" not in answer.text


def test_back_leads_to_pages_of_ours(browser):
    for place in (
        "//evil.example",
        "http://evil.example",
        "/\\evil.example",
        "evil",
        "/a\r\nSet-Cookie: x=y",
        "",
    ):
        answer = browser.post("/name", data=browser.form("/name", "/name") | {"back": place}, follow_redirects=False)
        assert answer.status_code == 303 and answer.headers["location"] == "/" and "x" not in answer.cookies
    answer = browser.post("/name", data=browser.form("/name", "/name") | {"back": "/runs/a?b%"}, follow_redirects=False)
    assert answer.headers["location"] == "/runs/a%3Fb%25"


def elements(page: str) -> str:
    """A page without the texts between its tags."""
    return "".join(re.findall(r"<[^>]*>", page))


def test_script_stays_text_wherever_it_stands(tmp_path):
    """In a principle, a note, a tag, a name, a comment, a query, a constitution, a response, a reason, a run's name and numbers."""
    folder = principles_in(tmp_path / "principles")
    argv = [
        "--principle",
        SCRIPT,
        "--antithesis",
        f"not {SCRIPT}",
        "--tag",
        SCRIPT,
        "--notes",
        SCRIPT,
        "--folder",
        str(folder),
    ]
    assert main(["principles", "add", "evil", *argv]) == 0
    assert (
        main(["principles", "approve", "evil", "--reviewer", SCRIPT, "--comment", SCRIPT, "--folder", str(folder)]) == 0
    )
    rated = [dataclasses.replace(pair, query=SCRIPT, constitution=SCRIPT, test=SCRIPT) for pair in PAIRS]
    run = fabricate(tmp_path / "runs" / "<script>alert(1)<")
    line = '{"id": "x", "query": "%s", "constitution": "%s", "response": "%s", "tokens": 1}\n'
    escaped = SCRIPT.replace('"', '\\"')
    (run / "iteration_1/responses.jsonl.partial").write_text(line % (escaped, escaped, escaped))
    places = Places(folder, ratings_in(tmp_path / "ratings", rated), tmp_path / "runs")
    browser = Browser(places, SCRIPT)
    browser.fill("/principles/evil@1", "decide", decision="comment", comment=SCRIPT)
    pages = [
        "/",
        "/principles",
        "/principles/evil@1",
        "/ratings",
        "/ratings/1",
        "/runs",
        "/runs/%3Cscript%3Ealert(1)%3C",
        "/name",
    ]
    for place in pages:
        answer = browser.get(place)
        assert answer.status_code == 200, place
        tags = elements(answer.text)
        assert tags.count("<script") == 1 and "onerror" not in re.sub(r'value="[^"]*"', "", tags), place
        assert "49" not in text_of(answer.text) and "'self'" in answer.headers["content-security-policy"]
        assert not re.search(r'\s(style|on\w+)="', re.sub(r'value="[^"]*"', "", tags)), "the policy would stop it"
    assert SCRIPT in text_of(browser.get("/principles/evil@1").text).replace("\n", " ")
    assert SCRIPT in text_of(browser.get("/ratings/1").text)


def test_the_report_is_shut_off(browser):
    answer = browser.get("/runs/demo/report")
    assert answer.status_code == 200 and "sandbox" in answer.headers["content-security-policy"]
    assert "script-src" not in answer.headers["content-security-policy"] and "<b>replies" not in answer.text


@pytest.mark.parametrize("place", POSTS)
def test_bodies_are_bounded(browser, places, place):
    before = state(places)
    big = b"comment=" + b"x" * 10_000_000
    assert browser.post(place, content=big, headers=FORM).status_code == 413

    def parts():
        for _ in range(10_000):
            yield b"x" * 1000

    assert browser.post(place, content=parts(), headers=FORM).status_code == 413
    for wrong in ("-1", "x", "9" * 400):
        assert browser.post(place, content=b"", headers=FORM | {"Content-Length": wrong}).status_code == 413
    for body in (b"\xff=\xff", b"a=%ff", b"&".join(b"a%d=" % n for n in range(1000))):
        assert browser.post(place, content=body, headers=FORM).status_code == 400
    assert state(places) == before


def test_a_body_of_just_the_bound_is_read(browser):
    fields = browser.form("/principles/kind@1", "decide") | {"decision": "comment"}
    fields["comment"] = "x" * (LARGEST_BODY - 1000)
    assert browser.post("/principles/kind@1/decide", data=fields).status_code == 200


def test_names_and_texts_that_cannot_be_written(browser, places):
    before = state(places)
    page = "/principles/kind@1"
    for name in ("", " ", "x" * 81, "a\nb", "a\x00b", "a\u202eb", "\ud800"):
        fields = browser.form(page, "decide") | {"name": name.encode("utf-8", "surrogatepass"), "decision": "approve"}
        answer = browser.post(f"{page}/decide", content=urllib.parse.urlencode(fields), headers=FORM)
        assert answer.status_code == 400, repr(name)
    for comment in ("a\x00b", "a\x1b[2Jb", "a\u202eb"):
        assert browser.fill(page, "decide", decision="comment", comment=comment).status_code == 400
        assert browser.fill(page, "edit", **{"principle-0": comment}).status_code == 400
    assert browser.fill(page, "decide", decision="comment", comment="  ").status_code == 400
    assert browser.fill(page, "decide", decision="burn").status_code == 400
    assert state(places) == before


def get_in(app, path: str) -> Browser:
    browser = Browser(Places(), app=app)
    assert browser.get("/").status_code == 401
    assert browser.get(path).status_code == 200  # looking at the address uses up nothing
    assert browser.post(path, headers=FORM, follow_redirects=False).status_code == 303
    return browser


def test_from_elsewhere_a_token_lets_in_once(tmp_path):
    told: list[str] = []
    entrance = Entrance(told.append)
    app = make_app(Places(principles=principles_in(tmp_path)), entrance)
    entrance.open()
    [first] = told
    browser = get_in(app, first)
    assert browser.get("/principles").status_code == 200 and len(told) == 2 and told[0] != told[1]
    cookie = next(iter(browser.cookies.jar))
    assert cookie.has_nonstandard_attr("HttpOnly") and len(cookie.value) > 60
    other = Browser(Places(), app=app)
    for path in (first, "/enter/", "/enter/x", "/enter/é", "/enter/" + "0" * 64):
        assert other.post(path, headers=FORM).status_code in (401, 403), path
        assert other.get("/principles").status_code == 401 and other.get("/principles/kind@1").status_code == 401
    assert "Be kind" not in other.get("/principles").text
    assert other.post(told[1], headers={"Origin": "http://evil.example"}).status_code == 403
    for value in ("", "x", "x.y", cookie.value[:-1], cookie.value.upper(), f"{cookie.value}0"):
        assert httpx_get(app, value) == 401
    assert other.get("/static/desk.css").status_code == 200
    get_in(app, told[1])
    assert len(told) == 3


def httpx_get(app, cookie: str) -> int:
    async def ask() -> int:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url=HOST) as client:
            return (await client.get("/principles", headers={"Cookie": f"sami_desk_8700={cookie}"})).status_code

    return asyncio.run(ask())


def test_a_form_from_before_a_restart_is_refused(browser, places):
    fields = browser.form("/principles/kind@1", "decide") | {"decision": "approve"}
    again = Browser(places)
    again.cookies = browser.cookies
    answer = again.post("/principles/kind@1/decide", data=fields)
    assert answer.status_code == 403 and "started anew" in answer.text


@pytest.mark.slow
def test_two_hundred_at_once_through_a_socket(places):
    """A real server, and clients that write at the same time: each comment is there, the log's chain holds."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    argv = ["desk", "--principles", str(places.principles), "--ratings", str(places.ratings), "--port", str(port)]
    with subprocess.Popen([sys.executable, "-m", "sami_jax.cli", *argv], stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout and server.stdout.readline() == f"http://127.0.0.1:{port}/\n"
            url = f"http://127.0.0.1:{port}"
            deadline = time.monotonic() + 30
            while time.monotonic() < deadline:
                try:
                    page = urllib.request.urlopen(f"{url}/principles/kind@1", timeout=30)
                    break
                except OSError:
                    time.sleep(0.1)
            cookie = page.headers["Set-Cookie"].partition(";")[0]
            csrf = re.search(r'name="csrf" value="(\w+)"', page.read().decode())[1]
            seen = [_seen(f"{url}/principles/{id}@1", cookie) for id in ("kind", "brief")]
            headers = {"Cookie": cookie, "Origin": url}

            def write(n: int) -> int:
                fields = {"csrf": csrf, "name": f"R{n}", "decision": "comment", "comment": str(n)}
                place = f"{url}/principles/{('kind', 'brief')[n % 4 // 2]}@1/decide"
                fields["seen"] = seen[n % 4 // 2]
                if n % 2:
                    fields, place = (
                        {"csrf": csrf, "name": f"R{n}", "seen": "", "better": "1", "reason": ""},
                        f"{url}/ratings/2",
                    )
                with httpx.Client(timeout=240) as client:
                    return client.post(place, data=fields, headers=headers).status_code

            for place in (
                "/../../../etc/passwd",
                "/static/../../../../etc/passwd",
                "/principles/../kind@1",
                "//etc/passwd",
                "*",
            ):
                with socket.create_connection(("127.0.0.1", port), timeout=30) as raw:
                    raw.sendall(f"GET {place} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
                    answer = b"".join(iter(lambda: raw.recv(65536), b""))
                    assert b" 404 " in answer[:20] or b" 400 " in answer[:20], answer[:200]
            with concurrent.futures.ThreadPoolExecutor(200) as pool:
                assert set(pool.map(write, range(200))) == {303}
        finally:
            server.terminate()
    brief, kind = read_principles(places.principles)
    said = [[int(review.comment) for review in p.reviews] for p in (kind, brief)]
    assert [sorted(one) for one in said] == [list(range(0, 200, 4)), list(range(2, 200, 4))]
    assert len(list(places.ratings.glob("ratings.R*.csv"))) == 100
    assert {line["name"] for line in logged(places.principles)} == {f"R{n}" for n in range(0, 200, 2)}
    assert len(logged(places.ratings)) == 100


def _seen(page: str, cookie: str) -> str:
    text = httpx.get(page, headers={"Cookie": f"{cookie}; sami_desk_name=Aiko"}, timeout=30).text
    return re.search(r'name="seen" value="([\w:]+)"', text)[1]
